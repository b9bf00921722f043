//! What the script that adds a part is told, and what it answers.

use crate::store::account::Additions;
use crate::store::damage::Damage;
use crate::store::{Applied, Part, Span, StoreError, keys};
use crate::store::{event_ids, fold, waiting};

/// Writes a part as the script reads it.
pub fn arguments(call: &mut ::redis::ScriptInvocation<'_>, part: &Part) {
    call.arg(part.spans.len());
    for span in &part.spans {
        call.arg(&*span.journal).arg(span.after).arg(span.through);
    }
    call.arg(part.forgotten);
    call.arg(part.epochs.len());
    for epoch in &part.epochs {
        call.arg(epoch.digest.to_string())
            .arg(epoch.first_ms)
            .arg(keys::write_definition(epoch));
    }
    let additions = Additions::of_tallies(part);
    for counts in [&additions.totals, &additions.hours] {
        call.arg(counts.len());
        for (field, count) in counts {
            call.arg(field).arg(count.to_string());
        }
    }
    call.arg(part.joins.len());
    for join in &part.joins {
        call.arg(&join.minted)
            .arg(&join.known)
            .arg(u8::from(join.apart));
    }
    call.arg(part.users.len());
    for user in &part.users {
        call.arg(&user.user).arg(user.exposures.len());
        for exposure in &user.exposures {
            call.arg(exposure.at_ms)
                .arg(exposure.epoch.to_string())
                .arg(&exposure.group);
        }
        call.arg(user.events.len());
        for event in &user.events {
            let within = event
                .within_ms
                .map_or(String::new(), |within| within.to_string());
            call.arg(event.at_ms)
                .arg(&event.metric)
                .arg(within)
                .arg(event.count)
                .arg(event.sum)
                .arg(event.base)
                .arg(event.id.map_or(String::new(), |id| format!("{id:016x}")));
        }
    }
    call.arg(part.wait_from_ms)
        .arg(waiting::USERS_MAX)
        .arg(waiting::BYTES_MAX)
        .arg(part.remember_from_ms)
        .arg(event_ids::OF_USER_MAX)
        .arg(event_ids::FORGOTTEN_AT_ONCE)
        .arg(fold::WAIT_MS)
        .arg(event_ids::KEEP_MS);
}

/// Which facts met the damage, for the log.
fn met(part: &Part) -> String {
    let met = part.spans.iter().map(|span| {
        let Span {
            journal,
            after,
            through,
        } = span;
        format!("records {} to {through} of journal {journal}", after + 1)
    });
    met.collect::<Vec<_>>().join(", ")
}

/// Reads what the script answered to a part.
pub fn read_answer(
    part: &Part,
    answer: Vec<String>,
    damage: &Damage,
) -> Result<Applied, StoreError> {
    let unreadable = || StoreError::Unreadable {
        place: "the script's answer".to_owned(),
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
                let place = format!("a user, an epoch or a count of {}", part.experiment);
                damage.note(&place, &format!("damaged record {number} of {}", met(part)));
            }
            Ok(Applied::Now)
        }
        "before" => Ok(Applied::Before),
        "stale" => Ok(Applied::Stale),
        "mismatch" if has.len() == part.spans.len() => {
            let has = has
                .iter()
                .map(|text| text.parse().map_err(|_| unreadable()))
                .collect::<Result<Vec<u64>, _>>()?;
            Ok(Applied::Mismatch(
                part.spans
                    .iter()
                    .map(|span| span.journal.clone())
                    .zip(has)
                    .collect(),
            ))
        }
        _ => Err(unreadable()),
    }
}
