select count(users) as n_rows from {{ ref('totals') }} having count(users) = 0
