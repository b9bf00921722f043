//! Messages about decisions and ramps, from the audit log. PURE.

use super::notification::Notification;
use crate::config::plan::NotificationKind;
use crate::store::decisions::{AuditEntry, DecidedBy};
use crate::store::messages::EventMark;
use serde_json::json;

/// Actions that are no decisions about an experiment: the process, privacy, and weights that follow the
/// counts every hour.
const OTHERS: [&str; 3] = ["reload", "forget", "allocate"];

/// Returns the message about an entry, if it is a decision or the step of a ramp.
pub(super) fn notification(entry: &AuditEntry) -> Option<Notification> {
    let AuditEntry {
        experiment,
        action,
        from,
        to,
        at_ms,
        by,
        reason,
        source,
    } = entry;
    let source = source.map(DecidedBy::word);
    if experiment.is_empty() || OTHERS.contains(&&**action) {
        return None;
    }
    let kind = match &**action {
        "ramp" => NotificationKind::Ramp,
        _ => NotificationKind::Decision,
    };
    let why = reason.as_ref().map(|reason| format!(" ({reason})"));
    let why = why.unwrap_or_default();
    Some(Notification {
        kind,
        experiment: Some(experiment.clone()),
        key: format!("{}|{experiment}|{at_ms}|{action}", kind.name()),
        quiet_ms: EventMark::ONCE,
        at_ms: *at_ms,
        data: json!({
            "action": action,
            "from": from,
            "to": to,
            "by": by,
            "source": source,
            "reason": reason,
        }),
        text: format!("{experiment}: {action} by {by}: {from} -> {to}{why}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(action: &str) -> AuditEntry {
        AuditEntry {
            experiment: "site".to_owned(),
            action: action.to_owned(),
            from: "running".to_owned(),
            to: "paused".to_owned(),
            at_ms: 7,
            by: "ann".to_owned(),
            reason: Some("it is slow".to_owned()),
            source: Some(DecidedBy::Person),
        }
    }

    #[test]
    fn decisions_and_steps_are_told_and_other_actions_are_not() {
        let told = notification(&entry("pause")).unwrap();
        assert_eq!(told.kind, NotificationKind::Decision);
        assert_eq!(told.key, "decision|site|7|pause");
        let text = "site: pause by ann: running -> paused (it is slow)";
        assert_eq!(told.text, text);
        assert_eq!(
            (&told.data["by"], &told.data["source"]),
            (&"ann".into(), &"person".into())
        );
        let ramp = notification(&entry("ramp")).unwrap();
        assert_eq!(
            (ramp.kind, &*ramp.key),
            (NotificationKind::Ramp, "ramp|site|7|ramp")
        );
        for other in OTHERS {
            assert_eq!(notification(&entry(other)), None, "{other}");
        }
        let of_all = AuditEntry {
            experiment: String::new(),
            ..entry("pause")
        };
        assert_eq!(notification(&of_all), None);
    }
}
