//! Structured events of Snowplow's tracker protocol, which need no schema of their own.

use super::library::VERSION;
use crate::forward::message::{Message, MessageKind};
use serde_json::{Value, json};

/// The schema of the body.
pub(super) const SCHEMA: &str = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4";

/// Returns an event of `payload_data`, all of whose values are texts.
pub(super) fn item(app_id: &str, message: &Message<'_>) -> Value {
    let at = message.at_ms.to_string();
    let mut item = json!({
        "e": "se",
        "p": "srv",
        "tv": format!("watershed-{VERSION}"),
        "aid": app_id,
        "eid": message.id.to_string(),
        "dtm": at,
        "ttm": at,
        "uid": message.user,
    });
    match message.what {
        MessageKind::Exposure { experiment, group } => {
            item["se_ca"] = json!("experiment");
            item["se_ac"] = json!("exposure");
            item["se_la"] = json!(experiment);
            item["se_pr"] = json!(group);
        }
        MessageKind::Event { metric, .. } => {
            item["se_ca"] = json!("event");
            item["se_ac"] = json!(metric);
            if let Some(value) = message.value() {
                item["se_va"] = json!(value.to_string());
            }
        }
    }
    item
}
