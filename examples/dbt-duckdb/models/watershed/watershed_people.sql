-- Written by update-views from `watershed archive sql`: do not edit.
-- A minted ID counts for the first known ID that came with it.
SELECT user_id, person_id
FROM (
  SELECT i.minted_id AS user_id, i.user_id AS person_id,
         ROW_NUMBER() OVER (PARTITION BY i.minted_id ORDER BY i.ts, i.user_id) AS place
  FROM {{ source('archive', 'identities') }} AS i
  WHERE i.minted_id IS NOT NULL
) AS joined
WHERE place = 1
