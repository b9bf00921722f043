-- Written by update-views from `watershed archive sql`: do not edit.
-- One row for each experiment, phase and user, with the first exposure. A visitor whose minted ID never came back is
-- no user.
SELECT f.experiment_id AS experiment_id, f.phase AS phase, f.person_id AS user_id,
       f.variation_id AS variation_id, f.epoch AS epoch, f.ts AS first_exposure, f.segments AS segments,
       f.latency_us AS latency_us, a.n_variations > 1 AS crossed_over
FROM (
  SELECT experiment_id, phase, person_id, variation_id, epoch, ts, segments, latency_us,
         ROW_NUMBER() OVER (
           PARTITION BY experiment_id, phase, person_id ORDER BY ts, epoch, latency_us, journal, seq
         ) AS place
  FROM {{ ref('watershed_counted_exposures') }}
) AS f
JOIN (
  SELECT experiment_id, phase, person_id, COUNT(DISTINCT variation_id) AS n_variations
  FROM {{ ref('watershed_counted_exposures') }}
  GROUP BY experiment_id, phase, person_id
) AS a ON a.experiment_id = f.experiment_id AND a.phase = f.phase AND a.person_id = f.person_id
JOIN (
  SELECT experiment_id, phase, person_id
  FROM (
    SELECT experiment_id, phase, person_id FROM {{ ref('watershed_counted_exposures') }} WHERE NOT is_new
    UNION ALL
    SELECT experiment_id, phase, person_id FROM {{ ref('watershed_counted_events') }} WHERE NOT is_new
    UNION ALL
    SELECT x.experiment_id AS experiment_id, x.phase AS phase, x.person_id AS person_id
    FROM {{ ref('watershed_counted_exposures') }} AS x
    JOIN {{ source('archive', 'identities') }} AS i ON i.user_id = x.person_id
  ) AS came_back
  GROUP BY experiment_id, phase, person_id
) AS r ON r.experiment_id = f.experiment_id AND r.phase = f.phase AND r.person_id = f.person_id
WHERE f.place = 1
