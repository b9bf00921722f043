-- Written by update-views from `watershed archive sql`: do not edit.
-- Exposures that count, by the person.
SELECT x.experiment_id AS experiment_id, x.phase AS phase,
       CASE WHEN p.person_id IS NULL OR p.person_id = '' THEN x.user_id ELSE p.person_id END AS person_id,
       x.variation_id AS variation_id, x.epoch AS epoch, x.ts AS ts, x.is_new AS is_new,
       x.segments AS segments, x.latency_us AS latency_us, x.journal AS journal, x.seq AS seq
FROM {{ source('archive', 'exposures') }} AS x
LEFT JOIN {{ ref('watershed_people') }} AS p ON p.user_id = x.user_id
WHERE x.served = 'own'
