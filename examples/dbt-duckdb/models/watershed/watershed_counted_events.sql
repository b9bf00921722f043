-- Written by update-views from `watershed archive sql`: do not edit.
-- Events by the person, once for each experiment that counts them. An event of a request that another version served
-- shows nothing of the group.
SELECT d.experiment_id AS experiment_id, d.phase AS phase,
       CASE WHEN p.person_id IS NULL OR p.person_id = '' THEN e.user_id ELSE p.person_id END AS person_id,
       e.event AS event, e.ts AS ts, e.reported_ts AS reported_ts, e.value AS value, e.n AS n, e.base AS base,
       e.event_id AS event_id, e.is_new AS is_new, d.within_ms AS within_ms, d.cap AS cap,
       d.covariate_ms AS covariate_ms, e.journal AS journal, e.seq AS seq, e.ordinal AS ordinal
FROM {{ source('archive', 'events') }} AS e
JOIN (
  SELECT declaration, experiment_id, phase, COALESCE(unit, '') AS unit, event, within_ms, cap, covariate_ms
  FROM {{ source('archive', 'definitions') }}
  WHERE kind = 'metric' AND running
) AS d ON d.declaration = e.declaration AND d.event = e.event
LEFT JOIN (
  SELECT DISTINCT journal, seq, experiment_id, 1 AS is_other
  FROM {{ source('archive', 'exposures') }}
  WHERE served <> 'own'
) AS o ON o.journal = e.journal AND o.seq = e.seq AND o.experiment_id = d.experiment_id
LEFT JOIN {{ ref('watershed_people') }} AS p ON p.user_id = e.user_id
WHERE d.unit = COALESCE(e.unit, '') AND COALESCE(o.is_other, 0) = 0
