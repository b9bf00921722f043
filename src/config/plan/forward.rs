//! Destinations of exposures and events: analytics, collectors, webhooks.

use super::http_target::HttpTarget;
use super::secret::Secret;
use super::webhooks::SigningKey;
use http::HeaderMap;
use std::time::Duration;

/// Where exposures and events are sent.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Its name, unique among all; it names the position in each journal.
    pub name: Box<str>,
    /// Whose format it has.
    pub format: DestinationFormat,
    /// Where requests go.
    pub target: HttpTarget,
    /// More header fields of its requests. Their values are secrets.
    pub headers: HeaderMap,
    /// Whether exposures are sent.
    pub exposures: bool,
    /// Which events are sent.
    pub events: ForwardedEvents,
    /// Whether records of IDs are sent that were given with the same response.
    pub new_ids: bool,
    /// How long records gather.
    pub every: Duration,
    /// The age from which on a record is not sent any more.
    pub max_age: Duration,
    /// The most bytes of the journal that are kept because it does not have them yet.
    pub backlog_bytes: u64,
}

/// Which events are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardedEvents {
    /// Those of all metrics of the file, but for latencies.
    All,
    /// Those of these metrics.
    Of(Box<[Box<str>]>),
}

/// Whose format messages have.
#[derive(Clone, Debug)]
pub enum DestinationFormat {
    /// The HTTP API of Segment, and of those that speak it.
    Segment,
    /// PostHog.
    PostHog {
        /// The key of the project.
        api_key: Secret,
    },
    /// The Measurement Protocol of Google Analytics 4.
    GoogleAnalytics,
    /// A collector of Snowplow.
    Snowplow {
        /// The ID of the application.
        app_id: Box<str>,
    },
    /// JSON, signed by the specification Standard Webhooks.
    Webhook {
        /// The key that signs; `None` sends without a signature.
        key: Option<SigningKey>,
    },
    /// Log records of OpenTelemetry.
    OpenTelemetry {
        /// The name of the service.
        service: Box<str>,
    },
}
