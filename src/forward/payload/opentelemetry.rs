//! Log records of OpenTelemetry, as JSON of OTLP. Exposures are its event `feature_flag.evaluation`.

use super::library::{LIBRARY, VERSION};
use crate::forward::message::{Message, MessageKind};
use serde_json::{Value, json};

/// The number of the severity INFO.
const SEVERITY_INFO: u32 = 9;

/// Returns what stands around log records.
pub(super) fn frame(service: &str) -> (String, String) {
    let resource = json!({ "attributes": [
        attribute("service.name", &json!(service)),
        attribute("service.version", &json!(VERSION)),
    ] });
    let scope = json!({ "name": LIBRARY, "version": VERSION });
    let before = format!(
        "{{\"resourceLogs\":[{{\"resource\":{resource},\"scopeLogs\":[{{\"scope\":{scope},\"logRecords\":["
    );
    (before, "]}]}]}".to_owned())
}

/// Returns one log record.
pub(super) fn item(message: &Message<'_>) -> Value {
    let mut attributes = Vec::new();
    let mut add = |name: &str, value: Value| attributes.push(attribute(name, &value));
    let mut properties = message.properties();
    let name = match message.what {
        MessageKind::Exposure { experiment, group } => {
            add("feature_flag.key", json!(experiment));
            add("feature_flag.result.variant", json!(group));
            add("feature_flag.result.reason", json!("split"));
            add("feature_flag.provider.name", json!(LIBRARY));
            add("feature_flag.context.id", json!(message.user));
            properties.remove("experiment_id");
            properties.remove("variation_id");
            "feature_flag.evaluation"
        }
        MessageKind::Event { metric, .. } => {
            add("user.id", json!(message.user));
            metric
        }
    };
    add("watershed.id", json!(message.id.to_string()));
    for (name, value) in properties {
        match &*name {
            "status" => add("http.response.status_code", value),
            // It has one type, whether it is a whole number or not.
            "value" => add("watershed.value", json!(value.as_f64())),
            name => add(&format!("watershed.{name}"), value),
        }
    }
    if let Some(minted) = &message.minted {
        add("watershed.minted_id", json!(minted));
    }
    json!({
        "timeUnixNano": (1_000_000 * u128::from(message.at_ms)).to_string(),
        "severityNumber": SEVERITY_INFO,
        "eventName": name,
        "attributes": attributes,
    })
}

fn attribute(name: &str, value: &Value) -> Value {
    let value = match value {
        Value::Bool(truth) => json!({ "boolValue": truth }),
        // Numbers of 64 bits are texts in the JSON of Protocol Buffers.
        Value::Number(number) if number.is_f64() => json!({ "doubleValue": number }),
        Value::Number(number) => json!({ "intValue": number.to_string() }),
        Value::String(text) => json!({ "stringValue": text }),
        other => json!({ "stringValue": other.to_string() }),
    };
    json!({ "key": name, "value": value })
}
