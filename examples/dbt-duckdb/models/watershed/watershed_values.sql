-- Written by update-views from `watershed archive sql`: do not edit.
-- One row for each user and event (metric) with what counts: at or after the first exposure, within the metric's
-- window, each ID once, and cut to the metric's cap.
SELECT experiment_id, phase, user_id, variation_id, epoch, event, n, base,
       CASE WHEN cap IS NOT NULL AND total > cap THEN cap
            WHEN cap IS NOT NULL AND total < -cap THEN -cap
            ELSE total END AS total,
       CASE WHEN cap IS NOT NULL AND (total > cap OR total < -cap) THEN 1 ELSE 0 END AS is_capped
FROM (
  SELECT experiment_id, phase, user_id, variation_id, epoch, event, SUM(n) AS n, SUM(base) AS base,
         SUM(COALESCE(value, 0)) AS total, MAX(cap) AS cap
  FROM (
    SELECT u.experiment_id AS experiment_id, u.phase AS phase, u.user_id AS user_id,
           u.variation_id AS variation_id, u.epoch AS epoch, e.event AS event, e.n AS n, e.base AS base,
           e.value AS value, e.cap AS cap,
           ROW_NUMBER() OVER (
             PARTITION BY u.experiment_id, u.phase, u.user_id, e.event, e.event_id
             ORDER BY e.ts, e.journal, e.seq, e.ordinal
           ) AS place
    FROM {{ ref('watershed_users') }} AS u
    JOIN {{ ref('watershed_counted_events') }} AS e
      ON e.experiment_id = u.experiment_id AND e.phase = u.phase AND e.person_id = u.user_id
    WHERE epoch_ms(e.ts) >= epoch_ms(u.first_exposure)
      AND (e.within_ms IS NULL OR epoch_ms(e.ts) <= epoch_ms(u.first_exposure) + e.within_ms)
  ) AS counted
  WHERE place = 1
  GROUP BY experiment_id, phase, user_id, variation_id, epoch, event
) AS summed
