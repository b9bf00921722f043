with users as (
  select experiment_id, phase, variation_id, cast(first_exposure at time zone 'UTC' as date) as day
  from {{ ref('watershed_users') }}
)
select experiment_id, phase, variation_id, day, count(*) as n_users,
       sum(count(*)) over (partition by experiment_id, phase, variation_id order by day) as n_users_so_far
from users
group by experiment_id, phase, variation_id, day
