-- A metric none of whose events is of an exposed user: events may be reported under other IDs than visits. That is
-- normal shortly after an experiment begins, so it is a warning.
{{ config(severity='warn') }}

select events.experiment_id, events.phase, events.event, count(*) as n_events
from {{ ref('watershed_counted_events') }} as events
left join {{ ref('watershed_users') }} as users
  on users.experiment_id = events.experiment_id and users.phase = events.phase and users.user_id = events.person_id
group by events.experiment_id, events.phase, events.event
having count(users.user_id) = 0
