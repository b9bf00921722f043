//! Events of PostHog. Exposures are its `$feature_flag_called`, which its experiments count.

use super::library::{LIBRARY, VERSION, rfc3339};
use crate::forward::message::{Message, MessageKind};
use serde_json::{Value, json};

/// Returns an event of `/batch/`.
pub(super) fn item(message: &Message<'_>) -> Value {
    let mut properties = message.properties();
    let event = match message.what {
        MessageKind::Exposure { experiment, group } => {
            properties.insert("$feature_flag".to_owned(), json!(experiment));
            properties.insert("$feature_flag_response".to_owned(), json!(group));
            properties.insert(format!("$feature/{experiment}"), json!(group));
            "$feature_flag_called"
        }
        MessageKind::Event { metric, .. } => metric,
    };
    properties.insert("distinct_id".to_owned(), json!(message.user));
    properties.insert("$lib".to_owned(), json!(LIBRARY));
    properties.insert("$lib_version".to_owned(), json!(VERSION));
    // The address of the request is that of this machine.
    properties.insert("$geoip_disable".to_owned(), json!(true));
    if let Some(minted) = &message.minted {
        properties.insert("minted_id".to_owned(), json!(minted));
    }
    if let Some(unit) = message.of.unit() {
        properties.insert("$groups".to_owned(), json!({ unit: message.user }));
    }
    json!({
        "uuid": message.id.to_string(),
        "event": event,
        "timestamp": rfc3339(message.at_ms),
        "properties": properties,
    })
}
