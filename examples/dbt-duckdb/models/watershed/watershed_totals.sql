-- Written by update-views from `watershed archive sql`: do not edit.
-- One row for each experiment, phase, epoch, variation and event (metric): what `watershed judge` reads.
SELECT u.experiment_id AS experiment_id, u.phase AS phase, u.epoch AS epoch, u.variation_id AS variation_id,
       m.event AS event, MAX(w.weight) AS weight, COUNT(*) AS n_users,
       SUM(CASE WHEN u.crossed_over THEN 1 ELSE 0 END) AS n_crossed_over, MIN(u.first_exposure) AS first_exposure,
       SUM(CASE WHEN COALESCE(v.n, 0) > 0 THEN 1 ELSE 0 END) AS n_converted,
       SUM(COALESCE(v.n, 0)) AS n, SUM(COALESCE(v.n, 0) * COALESCE(v.n, 0)) AS n_sq,
       SUM(COALESCE(v.total, 0)) AS total,
       SUM(CAST(COALESCE(v.total, 0) AS DOUBLE PRECISION) * CAST(COALESCE(v.total, 0) AS DOUBLE PRECISION)) AS total_sq,
       SUM(COALESCE(v.base, 0)) AS base, SUM(COALESCE(v.base, 0) * COALESCE(v.base, 0)) AS base_sq,
       SUM(CAST(COALESCE(v.total, 0) AS DOUBLE PRECISION) * CAST(COALESCE(v.base, 0) AS DOUBLE PRECISION)) AS total_base,
       SUM(COALESCE(v.is_capped, 0)) AS n_capped
FROM {{ ref('watershed_users') }} AS u
JOIN (
  SELECT DISTINCT experiment_id, phase, event
  FROM {{ source('archive', 'definitions') }}
  WHERE kind = 'metric' AND experiment_id IS NOT NULL
) AS m ON m.experiment_id = u.experiment_id AND m.phase = u.phase
LEFT JOIN (
  SELECT experiment_id, epoch, variation_id, MAX(weight) AS weight
  FROM {{ source('archive', 'definitions') }}
  WHERE kind = 'variation'
  GROUP BY experiment_id, epoch, variation_id
) AS w ON w.experiment_id = u.experiment_id AND w.epoch = u.epoch AND w.variation_id = u.variation_id
LEFT JOIN {{ ref('watershed_values') }} AS v
  ON v.experiment_id = u.experiment_id AND v.phase = u.phase AND v.user_id = u.user_id AND v.event = m.event
GROUP BY u.experiment_id, u.phase, u.epoch, u.variation_id, m.event
