//! Reads counts.

use super::connection::{get, whole};
use super::session::{PostgresLink, PostgresSession};
use super::{event_ids, experiments, identities, user_rows};
use crate::store::damage::Damage;
use crate::store::{
    EpochDefinition, ExperimentTotals, HourTotals, StoreError, UserCursor, UserPage, UserRecord,
    keys,
};

/// The number of users that are read at once.
const PAGE_USERS: usize = 1000;

pub(super) async fn totals(
    link: &PostgresLink,
    experiment: &str,
    damage: &Damage,
) -> Result<ExperimentTotals, StoreError> {
    // One transaction, so that definitions and counts are of the same time.
    let mut session = link.begin_reading().await?;
    let totals = match experiments::number(&mut session, experiment).await? {
        None => ExperimentTotals::default(),
        Some(number) => {
            let definitions = definitions(&mut session, number, damage).await?;
            let fields = fields(&mut session, number, "totals", damage).await?;
            ExperimentTotals {
                identities: identities::counts(&mut session, number).await?,
                uncounted: event_ids::counts(&mut session, number).await?,
                ..keys::totals(definitions, fields, damage)
            }
        }
    };
    session.commit().await?;
    Ok(totals)
}

pub(super) async fn hours(
    link: &PostgresLink,
    experiment: &str,
    damage: &Damage,
) -> Result<Vec<HourTotals>, StoreError> {
    let mut session = link.session().await?;
    let hours = match experiments::number(&mut session, experiment).await? {
        None => Vec::new(),
        Some(number) => {
            let fields = fields(&mut session, number, "hours", damage).await?;
            keys::hours(fields, damage)
        }
    };
    session.close();
    Ok(hours)
}

async fn definitions(
    session: &mut PostgresSession<'_>,
    number: i32,
    damage: &Damage,
) -> Result<Vec<EpochDefinition>, StoreError> {
    let sql = "SELECT digest, first_ms, definition FROM epochs WHERE experiment = $1";
    let mut definitions = Vec::new();
    for row in session.rows(sql, &[&number]).await? {
        let (digest, definition) = (get(&row, 0)?, get(&row, 2)?);
        let read = keys::read_definition(digest, whole(&row, 1)?, definition);
        definitions.extend(damage.skip(read)?);
    }
    Ok(definitions)
}

async fn fields(
    session: &mut PostgresSession<'_>,
    number: i32,
    table: &str,
    damage: &Damage,
) -> Result<Vec<(String, i128)>, StoreError> {
    let sql = format!("SELECT field, value::text FROM {table} WHERE experiment = $1");
    let mut fields = Vec::new();
    for row in session.rows(&sql, &[&number]).await? {
        let text: String = get(&row, 1)?;
        let number = text.parse().map_err(|_| StoreError::Unreadable {
            place: table.to_owned(),
            found: text,
        });
        let field = get(&row, 0)?;
        fields.extend(damage.skip(number)?.map(|number| (field, number)));
    }
    Ok(fields)
}

pub(super) async fn user(
    link: &PostgresLink,
    experiment: &str,
    id: &[u8],
    damage: &Damage,
) -> Result<Option<UserRecord>, StoreError> {
    let mut session = link.begin_reading().await?;
    let mut record = None;
    if let Some(number) = experiments::number(&mut session, experiment).await? {
        let user = identities::resolve(&mut session, number, id).await?;
        let of = std::slice::from_ref(&user);
        let mut rows = user_rows::read(&mut session, number, of, damage).await?;
        record = rows.remove(&user).and_then(|rows| rows.record);
    }
    session.commit().await?;
    Ok(record)
}

pub(super) async fn users(
    link: &PostgresLink,
    experiment: &str,
    from: &UserCursor,
    damage: &Damage,
) -> Result<UserPage, StoreError> {
    let sql = "SELECT user_id, record FROM users
               WHERE experiment = (SELECT number FROM experiments WHERE name = $1) AND user_id > $2
               ORDER BY user_id LIMIT $3";
    let most = PAGE_USERS as i64;
    let rows = link.rows(sql, &[&experiment, &from.after, &most]).await?;
    let (mut users, mut last) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in &rows {
        last = get(row, 0)?;
        let record = damage.skip(keys::read_user(get(row, 1)?))?;
        users.extend(record.map(|record| (last.clone(), record)));
    }
    let next = (rows.len() == PAGE_USERS).then(|| UserCursor {
        after: last,
        ..UserCursor::default()
    });
    Ok((users, next))
}
