//! The arguments and the reply of the script that adds a delta.

use crate::experiment::identity::SEEN_ONCE_MS;
use crate::store::apply_semantics::Additions;
use crate::store::damage::Damage;
use crate::store::{Applied, Delta, JournalRange, StoreError, UserDelta, keys};
use crate::store::{aggregate, event_ids, seen_once, waiting};
use std::num::NonZeroU64;

/// Adds a delta to the arguments of the script.
pub(super) fn arguments(call: &mut ::redis::ScriptInvocation<'_>, delta: &Delta) {
    call.arg(delta.ranges.len());
    for range in &delta.ranges {
        call.arg(&*range.journal)
            .arg(range.after)
            .arg(range.through);
    }
    call.arg(delta.forgotten);
    call.arg(delta.epochs.len());
    for epoch in &delta.epochs {
        call.arg(epoch.digest.to_string())
            .arg(epoch.first_ms)
            .arg(keys::write_definition(epoch));
    }
    let additions = Additions::of_tallies(delta);
    for counts in [&additions.totals, &additions.hours] {
        call.arg(counts.len());
        for (field, count) in counts {
            call.arg(field).arg(count.to_string());
        }
    }
    call.arg(delta.joins.len());
    for join in &delta.joins {
        call.arg(&join.minted)
            .arg(&join.known)
            .arg(u8::from(join.apart))
            .arg(join.at_ms);
    }
    call.arg(delta.users.len());
    for user in &delta.users {
        user_arguments(call, user);
    }
    call.arg(delta.wait_from_ms)
        .arg(waiting::USERS_MAX)
        .arg(waiting::BYTES_MAX)
        .arg(delta.remember_from_ms)
        .arg(event_ids::OF_USER_MAX)
        .arg(event_ids::FORGOTTEN_AT_ONCE)
        .arg(seen_once::from_ms(delta))
        .arg(seen_once::BYTES_MAX)
        .arg(seen_once::FORGOTTEN_AT_ONCE)
        .arg(SEEN_ONCE_MS)
        .arg(aggregate::WAIT_MS)
        .arg(event_ids::KEEP_MS);
}

fn user_arguments(call: &mut ::redis::ScriptInvocation<'_>, user: &UserDelta) {
    call.arg(&user.user)
        .arg(user.came_back_ms.map_or(0, NonZeroU64::get))
        .arg(user.exposures.len());
    for exposure in &user.exposures {
        call.arg(exposure.at_ms)
            .arg(exposure.epoch.to_string())
            .arg(&exposure.group)
            .arg(exposure.latency)
            .arg(&exposure.segments);
    }
    call.arg(user.events.len());
    for event in &user.events {
        let within = event
            .within_ms
            .map_or(String::new(), |within| within.to_string());
        call.arg(event.at_ms)
            .arg(event.reported_ms)
            .arg(&event.metric)
            .arg(within)
            .arg(event.count)
            .arg(event.sum)
            .arg(event.base)
            .arg(event.id.map_or(String::new(), |id| format!("{id:016x}")))
            .arg(event.cap.map_or(String::new(), |cap| cap.to_string()))
            .arg(
                event
                    .covariate_ms
                    .map_or(String::new(), |ms| ms.to_string()),
            );
    }
}

/// Describes the records that met damage, for the log.
fn met(delta: &Delta) -> String {
    let met = delta.ranges.iter().map(|range| {
        let JournalRange {
            journal,
            after,
            through,
        } = range;
        format!("records {} to {through} of journal {journal}", after + 1)
    });
    met.collect::<Vec<_>>().join(", ")
}

/// Decodes the reply of the script to a delta.
pub(super) fn read_answer(
    delta: &Delta,
    answer: Vec<String>,
    damage: &Damage,
) -> Result<Applied, StoreError> {
    let unreadable = || StoreError::Unreadable {
        place: "the reply of the script".to_owned(),
        found: answer.join(" "),
    };
    let (word, has) = answer.split_first().ok_or_else(unreadable)?;
    match &**word {
        "now" => {
            let damaged = has
                .first()
                .and_then(|count| count.parse().ok())
                .unwrap_or(0);
            for number in 1..=damaged {
                let place = format!("a user, an epoch or a count of {}", delta.experiment);
                damage.note(
                    &place,
                    &format!("damaged record {number} of {}", met(delta)),
                );
            }
            Ok(Applied::Added)
        }
        "before" => Ok(Applied::AlreadyApplied),
        "stale" => Ok(Applied::Stale),
        "mismatch" if has.len() == delta.ranges.len() => {
            let has = has
                .iter()
                .map(|text| text.parse().map_err(|_| unreadable()))
                .collect::<Result<Vec<u64>, _>>()?;
            Ok(Applied::PositionMismatch(
                delta
                    .ranges
                    .iter()
                    .map(|range| range.journal.clone())
                    .zip(has)
                    .collect(),
            ))
        }
        _ => Err(unreadable()),
    }
}
