//! Calls `track` of Segment's HTTP API. Exposures are its `Experiment Viewed`.

use super::library::{LIBRARY, VERSION, rfc3339};
use crate::forward::message::{Message, MessageKind};
use serde_json::{Value, json};

/// Returns a message of `/v1/batch`.
pub(super) fn item(message: &Message<'_>) -> Value {
    let mut properties = message.properties();
    let event = match message.what {
        MessageKind::Exposure { experiment, group } => {
            // The specification has IDs and names, which are the same here.
            properties.insert("experiment_name".to_owned(), json!(experiment));
            properties.insert("variation_name".to_owned(), json!(group));
            "Experiment Viewed"
        }
        MessageKind::Event { metric, .. } => metric,
    };
    let mut item = json!({
        "type": "track",
        "messageId": message.id.to_string(),
        "timestamp": rfc3339(message.at_ms),
        "userId": message.user,
        "event": event,
        "properties": properties,
        "context": { "library": { "name": LIBRARY, "version": VERSION } },
    });
    if let Some(minted) = &message.minted {
        item["anonymousId"] = json!(minted);
    }
    if message.of.unit().is_some() {
        item["context"]["groupId"] = json!(message.user);
    }
    item
}
