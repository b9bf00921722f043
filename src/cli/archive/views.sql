
-- A minted ID counts for the first known ID that came with it.
CREATE OR REPLACE VIEW watershed_people AS
SELECT user_id, person_id
FROM (
  SELECT i.minted_id AS user_id, i.user_id AS person_id,
         ROW_NUMBER() OVER (PARTITION BY i.minted_id ORDER BY i.ts, i.user_id) AS place
  FROM watershed_identities AS i
  WHERE i.minted_id IS NOT NULL
) AS joined
WHERE place = 1;

-- Exposures that count, by the person.
CREATE OR REPLACE VIEW watershed_counted_exposures AS
SELECT x.experiment_id AS experiment_id, x.phase AS phase,
       CASE WHEN p.person_id IS NULL OR p.person_id = '' THEN x.user_id ELSE p.person_id END AS person_id,
       x.variation_id AS variation_id, x.epoch AS epoch, x.ts AS ts, x.is_new AS is_new,
       x.segments AS segments, x.latency_us AS latency_us, x.journal AS journal, x.seq AS seq
FROM watershed_exposures AS x
LEFT JOIN watershed_people AS p ON p.user_id = x.user_id
WHERE x.served = 'own';

-- Events by the person, once for each experiment that counts them. An event of a request that another version served
-- shows nothing of the group.
CREATE OR REPLACE VIEW watershed_counted_events AS
SELECT d.experiment_id AS experiment_id, d.phase AS phase,
       CASE WHEN p.person_id IS NULL OR p.person_id = '' THEN e.user_id ELSE p.person_id END AS person_id,
       e.event AS event, e.ts AS ts, e.reported_ts AS reported_ts, e.value AS value, e.n AS n, e.base AS base,
       e.event_id AS event_id, e.is_new AS is_new, d.within_ms AS within_ms, d.cap AS cap,
       d.covariate_ms AS covariate_ms, e.journal AS journal, e.seq AS seq, e.ordinal AS ordinal
FROM watershed_events AS e
JOIN (
  SELECT declaration, experiment_id, phase, COALESCE(unit, '') AS unit, event, within_ms, cap, covariate_ms
  FROM watershed_definitions
  WHERE kind = 'metric' AND running
) AS d ON d.declaration = e.declaration AND d.event = e.event
LEFT JOIN (
  SELECT DISTINCT journal, seq, experiment_id, 1 AS is_other
  FROM watershed_exposures
  WHERE served <> 'own'
) AS o ON o.journal = e.journal AND o.seq = e.seq AND o.experiment_id = d.experiment_id
LEFT JOIN watershed_people AS p ON p.user_id = e.user_id
WHERE d.unit = COALESCE(e.unit, '') AND COALESCE(o.is_other, 0) = 0;

-- One row for each experiment, phase and user, with the first exposure. A visitor whose minted ID never came back is
-- no user.
CREATE OR REPLACE VIEW watershed_users AS
SELECT f.experiment_id AS experiment_id, f.phase AS phase, f.person_id AS user_id,
       f.variation_id AS variation_id, f.epoch AS epoch, f.ts AS first_exposure, f.segments AS segments,
       f.latency_us AS latency_us, a.n_variations > 1 AS crossed_over
FROM (
  SELECT experiment_id, phase, person_id, variation_id, epoch, ts, segments, latency_us,
         ROW_NUMBER() OVER (
           PARTITION BY experiment_id, phase, person_id ORDER BY ts, epoch, latency_us, journal, seq
         ) AS place
  FROM watershed_counted_exposures
) AS f
JOIN (
  SELECT experiment_id, phase, person_id, COUNT(DISTINCT variation_id) AS n_variations
  FROM watershed_counted_exposures
  GROUP BY experiment_id, phase, person_id
) AS a ON a.experiment_id = f.experiment_id AND a.phase = f.phase AND a.person_id = f.person_id
JOIN (
  SELECT experiment_id, phase, person_id
  FROM (
    SELECT experiment_id, phase, person_id FROM watershed_counted_exposures WHERE NOT is_new
    UNION ALL
    SELECT experiment_id, phase, person_id FROM watershed_counted_events WHERE NOT is_new
    UNION ALL
    SELECT x.experiment_id AS experiment_id, x.phase AS phase, x.person_id AS person_id
    FROM watershed_counted_exposures AS x
    JOIN watershed_identities AS i ON i.user_id = x.person_id
  ) AS came_back
  GROUP BY experiment_id, phase, person_id
) AS r ON r.experiment_id = f.experiment_id AND r.phase = f.phase AND r.person_id = f.person_id
WHERE f.place = 1;

-- One row for each user and event (metric) with what counts: at or after the first exposure, within the metric's
-- window, each ID once, and cut to the metric's cap.
CREATE OR REPLACE VIEW watershed_values AS
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
    FROM watershed_users AS u
    JOIN watershed_counted_events AS e
      ON e.experiment_id = u.experiment_id AND e.phase = u.phase AND e.person_id = u.user_id
    WHERE {ms e.ts} >= {ms u.first_exposure}
      AND (e.within_ms IS NULL OR {ms e.ts} <= {ms u.first_exposure} + e.within_ms)
  ) AS counted
  WHERE place = 1
  GROUP BY experiment_id, phase, user_id, variation_id, epoch, event
) AS summed;

-- One row for each experiment, phase, epoch, variation and event (metric): what `watershed judge` reads.
CREATE OR REPLACE VIEW watershed_totals AS
SELECT u.experiment_id AS experiment_id, u.phase AS phase, u.epoch AS epoch, u.variation_id AS variation_id,
       m.event AS event, MAX(w.weight) AS weight, COUNT(*) AS n_users,
       SUM(CASE WHEN u.crossed_over THEN 1 ELSE 0 END) AS n_crossed_over, MIN(u.first_exposure) AS first_exposure,
       SUM(CASE WHEN COALESCE(v.n, 0) > 0 THEN 1 ELSE 0 END) AS n_converted,
       SUM(COALESCE(v.n, 0)) AS n, SUM(COALESCE(v.n, 0) * COALESCE(v.n, 0)) AS n_sq,
       SUM(COALESCE(v.total, 0)) AS total,
       SUM(CAST(COALESCE(v.total, 0) AS {double}) * CAST(COALESCE(v.total, 0) AS {double})) AS total_sq,
       SUM(COALESCE(v.base, 0)) AS base, SUM(COALESCE(v.base, 0) * COALESCE(v.base, 0)) AS base_sq,
       SUM(CAST(COALESCE(v.total, 0) AS {double}) * CAST(COALESCE(v.base, 0) AS {double})) AS total_base,
       SUM(COALESCE(v.is_capped, 0)) AS n_capped
FROM watershed_users AS u
JOIN (
  SELECT DISTINCT experiment_id, phase, event
  FROM watershed_definitions
  WHERE kind = 'metric' AND experiment_id IS NOT NULL
) AS m ON m.experiment_id = u.experiment_id AND m.phase = u.phase
LEFT JOIN (
  SELECT experiment_id, epoch, variation_id, MAX(weight) AS weight
  FROM watershed_definitions
  WHERE kind = 'variation'
  GROUP BY experiment_id, epoch, variation_id
) AS w ON w.experiment_id = u.experiment_id AND w.epoch = u.epoch AND w.variation_id = u.variation_id
LEFT JOIN watershed_values AS v
  ON v.experiment_id = u.experiment_id AND v.phase = u.phase AND v.user_id = u.user_id AND v.event = m.event
GROUP BY u.experiment_id, u.phase, u.epoch, u.variation_id, m.event;
