//! Flat objects for a webhook, under the names that the archive has.

use super::library::rfc3339;
use crate::forward::message::{Message, MessageKind};
use serde_json::{Value, json};

/// Returns one object.
pub(super) fn item(message: &Message<'_>) -> Value {
    let mut all = message.properties();
    let kind = match message.what {
        MessageKind::Exposure { .. } => "exposure",
        MessageKind::Event { metric, .. } => {
            all.insert("event".to_owned(), json!(metric));
            "event"
        }
    };
    all.insert("type".to_owned(), json!(kind));
    all.insert("id".to_owned(), json!(message.id.to_string()));
    all.insert("ts".to_owned(), json!(rfc3339(message.at_ms)));
    all.insert("user_id".to_owned(), json!(message.user));
    if let Some(minted) = &message.minted {
        all.insert("minted_id".to_owned(), json!(minted));
    }
    Value::Object(all)
}
