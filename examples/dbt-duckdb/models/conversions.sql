with counting as (
  select distinct experiment_id, phase, event
  from {{ source('archive', 'definitions') }}
  where kind = 'metric' and event = '{{ dbt.escape_single_quotes(var("event")) }}'
)
select users.experiment_id, users.phase, users.variation_id, users.user_id, users.first_exposure, counting.event,
       coalesce(counted.n, 0) > 0 as converted, coalesce(counted.n, 0) as n_conversions,
       coalesce(counted.total, 0) as revenue
from {{ ref('watershed_users') }} as users
join counting using (experiment_id, phase)
left join {{ ref('watershed_values') }} as counted using (experiment_id, phase, user_id, event)
