{{ config(materialized='external', location=var('totals')) }}

-- Earlier phases, experiments and metrics stay in the archive. The routes file has those of the newest exposure.
with newest as (
  select declaration from {{ source('archive', 'exposures') }} order by ts desc limit 1
),
in_file as (
  select distinct experiment_id, phase, event
  from {{ source('archive', 'definitions') }}
  join newest using (declaration)
  where kind = 'metric'
)
select experiment_id as experiment, epoch, variation_id as "group", weight, n_users as users,
       n_crossed_over as crossed_over,
       strftime(first_exposure at time zone 'UTC', '%Y-%m-%dT%H:%M:%SZ') as first_exposure, event as metric,
       n_converted as converted, n as "count", n_sq as count_sq, total as "sum", total_sq as sum_sq,
       base, base_sq, total_base as "cross", n_capped as capped
from {{ ref('watershed_totals') }}
join in_file using (experiment_id, phase, event)
order by experiment, epoch, "group", metric
