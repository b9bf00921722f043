//! Aliases in PostgreSQL. It has none of version 0.1.0.

use super::connection::{get, whole};
use super::session::PostgresSession;
use crate::store::delta_rows::{Joined, Roles, RowChanges, named};
use crate::store::identities::{IdentityCounts, IdentityRole};
use crate::store::{Delta, StoreError};
use std::collections::HashMap;

/// Decides about the joins of a delta.
pub(super) async fn join(
    session: &mut PostgresSession<'_>,
    number: i32,
    delta: &Delta,
) -> Result<Joined, StoreError> {
    let ids: Vec<&[u8]> = named(delta).into_iter().collect();
    let mut roles = Roles::new();
    if !ids.is_empty() {
        let sql =
            "SELECT user_id, role FROM identities WHERE experiment = $1 AND user_id = ANY($2)";
        for row in session.rows(sql, &[&number, &ids]).await? {
            let id = get(&row, 0)?;
            let role = IdentityRole::read(get(&row, 1)?);
            roles.extend(role.map(|role| (id, role)));
        }
    }
    Ok(Joined::new(delta, roles, HashMap::new()))
}

/// Writes the roles of a delta, and the outcomes of its joins.
pub(super) async fn keep(
    session: &mut PostgresSession<'_>,
    number: i32,
    joined: &Joined,
    changes: &RowChanges,
) -> Result<(), StoreError> {
    if !changes.roles.is_empty() {
        let (ids, roles): (Vec<&[u8]>, Vec<&[u8]>) = changes
            .roles
            .iter()
            .map(|(id, role)| (&**id, &**role))
            .unzip();
        let sql = "INSERT INTO identities SELECT $1, * FROM unnest($2::bytea[], $3::bytea[])
                   ON CONFLICT (experiment, user_id) DO UPDATE SET role = excluded.role";
        session.execute(sql, &[&number, &ids, &roles]).await?;
    }
    let counts = IdentityCounts::NAMES
        .into_iter()
        .zip(joined.counts.values());
    for (name, count) in counts.filter(|(_, count)| *count > 0) {
        let sql = "INSERT INTO identity_counts VALUES ($1, $2, $3)
                   ON CONFLICT (experiment, name) DO UPDATE SET count = identity_counts.count + excluded.count";
        session
            .execute(sql, &[&number, &name, &(count as i64)])
            .await?;
    }
    Ok(())
}

/// Returns the user that an ID counts for.
pub(super) async fn resolve(
    session: &mut PostgresSession<'_>,
    number: i32,
    id: &[u8],
) -> Result<Vec<u8>, StoreError> {
    let sql = "SELECT role FROM identities WHERE experiment = $1 AND user_id = $2";
    let row = session.row(sql, &[&number, &id]).await?;
    let role = row.map(|row| get::<Vec<u8>>(&row, 0)).transpose()?;
    Ok(match role.and_then(|role| IdentityRole::read(&role)) {
        Some(IdentityRole::Absorbed(by)) => by,
        _ => id.to_vec(),
    })
}

/// Forgets every alias of a user. Returns the user and the aliases, and whether there was any.
pub(super) async fn forget(
    session: &mut PostgresSession<'_>,
    number: i32,
    user: &[u8],
) -> Result<(Vec<Vec<u8>>, bool), StoreError> {
    let mut ids = vec![user.to_vec()];
    let by = |role: fn(Vec<u8>) -> IdentityRole| role(user.to_vec()).write();
    let (absorbed, apart) = (by(IdentityRole::Absorbed), by(IdentityRole::Apart));
    let sql =
        "DELETE FROM identities WHERE experiment = $1 AND (user_id = $2 OR role = $3 OR role = $4)
               RETURNING user_id, role = $3";
    let gone = session
        .rows(sql, &[&number, &user, &absorbed, &apart])
        .await?;
    for row in &gone {
        if get(row, 1)? {
            ids.push(get(row, 0)?);
        }
    }
    Ok((ids, !gone.is_empty()))
}

/// Reads the outcomes of IDs that came together.
pub(super) async fn counts(
    session: &mut PostgresSession<'_>,
    number: i32,
) -> Result<IdentityCounts, StoreError> {
    let sql = "SELECT name, count FROM identity_counts WHERE experiment = $1";
    let rows = session.rows(sql, &[&number]).await?;
    let read = |row| Ok((get(row, 0)?, whole(row, 1)?));
    let mut counts = IdentityCounts::default();
    counts.add(&rows.iter().map(read).collect::<Result<_, StoreError>>()?);
    Ok(counts)
}
