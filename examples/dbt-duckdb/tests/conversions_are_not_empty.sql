-- The model has no rows if no experiment counts the variable `event`, such as a misspelt one.
select count(*) as n_users from {{ ref('conversions') }} having count(*) = 0
