//! `HTTPRoute` (gateway.networking.k8s.io/v1), as far as it is read. PURE.

use serde::Deserialize;
use serde_json::Value;

/// The group of the API.
pub const GROUP: &str = "gateway.networking.k8s.io";

/// A route of a cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRoute {
    /// Its name, and more about it.
    pub metadata: Metadata,
    /// What is asked for.
    pub spec: RouteSpec,
    /// What controllers have said of it.
    #[serde(default)]
    pub status: Value,
}

/// What the cluster knows of an object.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The namespace.
    #[serde(default)]
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The number of its version.
    #[serde(default)]
    pub generation: i64,
    /// When it was made, in RFC 3339.
    #[serde(default)]
    pub creation_timestamp: String,
}

/// What is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteSpec {
    /// The gateways that it is for.
    pub parent_refs: Vec<ParentRef>,
    /// The hosts; empty for all.
    pub hostnames: Vec<String>,
    /// The rules.
    pub rules: Vec<RouteRule>,
}

/// A gateway.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentRef {
    /// The group of its API; that of the Gateway API where missing.
    pub group: Option<String>,
    /// Its kind; `Gateway` where missing.
    pub kind: Option<String>,
    /// Its namespace; that of the route where missing.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// A listener of it.
    pub section_name: Option<String>,
    /// The port of a listener of it.
    pub port: Option<u16>,
}

/// Which requests go where.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteRule {
    /// Its name.
    pub name: Option<String>,
    /// One of them must hold; all requests match where there is none.
    pub matches: Vec<RouteMatch>,
    /// What is changed in messages.
    pub filters: Vec<RouteFilter>,
    /// The services.
    pub backend_refs: Vec<BackendRef>,
    /// Limits of time.
    pub timeouts: Option<Value>,
    /// When a request is sent again.
    pub retry: Option<Value>,
    /// How users stay with a service.
    pub session_persistence: Option<Value>,
}

/// Conditions that must all hold.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteMatch {
    /// The path; every path where missing.
    pub path: Option<PathMatch>,
    /// Headers.
    pub headers: Vec<ValueMatch>,
    /// Parameters of the query.
    pub query_params: Vec<ValueMatch>,
    /// The method.
    pub method: Option<String>,
}

/// A condition on the path.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct PathMatch {
    /// `Exact`, `PathPrefix` (where missing) or `RegularExpression`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The path; `/` where missing.
    pub value: Option<String>,
}

/// A condition on a header or parameter.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ValueMatch {
    /// `Exact` (where missing) or `RegularExpression`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

/// A change of messages, or another answer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteFilter {
    /// Its type, such as `RequestHeaderModifier`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Changes of the request.
    pub request_header_modifier: Option<HeaderModifier>,
    /// Changes of the response.
    pub response_header_modifier: Option<HeaderModifier>,
    /// An answer that names another URL.
    pub request_redirect: Option<RequestRedirect>,
    /// Another path or host for the service.
    pub url_rewrite: Option<UrlRewrite>,
}

/// Changes of header fields.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct HeaderModifier {
    /// Replaces all fields of the name.
    pub set: Vec<HeaderField>,
    /// Adds a field.
    pub add: Vec<HeaderField>,
    /// Removes all fields of these names.
    pub remove: Vec<String>,
}

/// A header field.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct HeaderField {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

/// Where clients are sent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestRedirect {
    /// `http` or `https`; that of the request where missing.
    pub scheme: Option<String>,
    /// The host; that of the request where missing.
    pub hostname: Option<String>,
    /// The path; that of the request where missing.
    pub path: Option<PathModifier>,
    /// The port.
    pub port: Option<u16>,
    /// The status; 302 where missing.
    pub status_code: Option<u16>,
}

/// Another URL for the service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct UrlRewrite {
    /// The host.
    pub hostname: Option<String>,
    /// The path.
    pub path: Option<PathModifier>,
}

/// Another path.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathModifier {
    /// `ReplaceFullPath` or `ReplacePrefixMatch`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The whole path.
    pub replace_full_path: Option<String>,
    /// What stands in place of the prefix.
    pub replace_prefix_match: Option<String>,
}

/// A service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendRef {
    /// The group of its API; the core group where missing.
    pub group: Option<String>,
    /// Its kind; `Service` where missing.
    pub kind: Option<String>,
    /// Its name.
    pub name: String,
    /// Its namespace; that of the route where missing.
    pub namespace: Option<String>,
    /// Its port.
    pub port: Option<u16>,
    /// Its share among the others; 1 where missing.
    pub weight: Option<u32>,
    /// What is changed in messages.
    pub filters: Vec<RouteFilter>,
}

impl HttpRoute {
    /// Returns `NAMESPACE/NAME`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }
}

impl ParentRef {
    /// Whether it names this gateway; it stands in a route of the namespace `own`.
    pub fn is(&self, (namespace, name): (&str, &str), own: &str) -> bool {
        self.group.as_deref().is_none_or(|group| group == GROUP)
            && self.kind.as_deref().is_none_or(|kind| kind == "Gateway")
            && self.namespace.as_deref().unwrap_or(own) == namespace
            && self.name == name
    }
}
