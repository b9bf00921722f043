//! `GET /admin/openapi.json`: the OpenAPI 3.1 document of the admin API, generated from its routes and
//! types.

use crate::admin::http::auth;
use crate::admin::http::flags_access;
use crate::admin::http::session;
use crate::admin::state::AdminState;
use axum::extract::State;
use axum::{Extension, Json};
use std::sync::Arc;
use utoipa::OpenApi as _;
use utoipa::openapi::path::{HttpMethod, Operation, PathItem};
use utoipa::openapi::schema::{Object, Schema, SchemaType, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, Header, OpenApi, Ref, RefOr, Response, ResponseBuilder};

/// The general part of the document.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "watershed admin API",
        description = "Fields, parameters and paths are added, never renamed or removed. A value that is not known yet is `null`, never 0. Any operation can also return 408 (the request body arrived too slowly) or 503 (all connections are in use, or the operation took too long).",
    ),
    tags(
        (name = "results", description = include_str!("../../../docs/results.md")),
        (name = "decisions", description = "Pause, resume, promote or roll back an experiment, and list decisions"),
        (name = "events", description = "Events that servers report"),
        (name = "users", description = "Assignments of single users, and forgetting a user"),
        (name = "process", description = "Health, metrics and configuration of this process"),
        (name = "flags", description = "Experiments as feature flags, by the OpenFeature Remote Evaluation Protocol (OFREP)"),
        (name = "pages", description = "HTML pages for browsers, login and logout"),
    )
)]
struct Preamble;

/// The document, for the handler that serves it.
#[derive(Clone)]
pub(crate) struct Document(pub Arc<OpenApi>);

/// Builds the document of routes that require authentication and of those that do not.
pub(crate) fn document(mut guarded: OpenApi, open: OpenApi) -> Document {
    let mut document = Preamble::openapi();
    document.info.contact = None;
    for (path, item) in &mut guarded.paths.paths {
        for (method, operation) in operations(item) {
            guard(path, method, operation);
        }
    }
    document.merge(guarded);
    document.merge(open);
    require_nullable_fields(&mut document);
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(BEARER, bearer());
    components.add_security_scheme(SESSION, session());
    components.add_security_scheme(API_KEY, api_key());
    Document(Arc::new(document))
}

const BEARER: &str = "bearer";
const SESSION: &str = "session";
const API_KEY: &str = "apiKey";

/// This document
///
/// If no token is configured, no operation requires one.
#[utoipa::path(
    get,
    path = "/admin/openapi.json",
    operation_id = "openapi",
    tag = "process",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value))
)]
pub(crate) async fn openapi(
    State(state): State<AdminState>,
    Extension(Document(document)): Extension<Document>,
) -> Json<OpenApi> {
    let mut document = OpenApi::clone(&document);
    if state.plan().admin.tokens.is_empty() {
        let items = document.paths.paths.values_mut();
        for (_, operation) in items.flat_map(operations) {
            operation.security = None;
        }
    }
    Json(document)
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (HttpMethod, &mut Operation)> {
    let get = item.get.iter_mut().map(|it| (HttpMethod::Get, it));
    let post = item.post.iter_mut().map(|it| (HttpMethod::Post, it));
    let delete = item.delete.iter_mut().map(|it| (HttpMethod::Delete, it));
    get.chain(post).chain(delete)
}

/// Adds the authentication that an operation requires, and its error responses.
fn guard(path: &str, method: HttpMethod, operation: &mut Operation) {
    let reads = method == HttpMethod::Get && !operation.responses.responses.contains_key("403");
    let is_flag = path.starts_with("/ofrep/");
    let role = match reads || auth::is_for_readers(path) {
        _ if is_flag => "flags",
        true => "read",
        false => "operate",
    };
    let schemes: &[&str] = match is_flag {
        true => &[BEARER, API_KEY, SESSION],
        false => &[BEARER, SESSION],
    };
    let either = schemes
        .iter()
        .map(|scheme| SecurityRequirement::new(*scheme, [role]));
    operation.security = Some(either.collect());
    let unknown = add(
        operation,
        "401",
        "The token or session is missing or unknown",
    );
    with_header(unknown, "www-authenticate");
    if method == HttpMethod::Get {
        // Browsers get the login page.
        let page = RefOr::T(Schema::Object(Object::with_type(Type::String)));
        with_content(unknown, "text/html", page);
    } else {
        let why = match is_flag {
            true => "The request comes from a page of another site without a token of its own",
            false => {
                "The role of the token is too low, or the request comes from a page of another site"
            }
        };
        add(operation, "403", why);
    }
    let why = "No token is configured, and `Host` is neither `localhost` nor an IP address";
    add(operation, "421", why);
    let why = "Too many unknown tokens from this address: wait a minute";
    with_header(add(operation, "429", why), "retry-after");
}

/// Adds an error response. If the operation has one of this status, adds JSON to its content types.
fn add<'a>(
    operation: &'a mut Operation,
    status: &str,
    description: &str,
) -> &'a mut RefOr<Response> {
    let fresh = || RefOr::T(ResponseBuilder::new().description(description).build());
    let responses = &mut operation.responses.responses;
    let response = responses.entry(status.to_owned()).or_insert_with(fresh);
    let refused = RefOr::Ref(Ref::from_schema_name("Refused"));
    with_content(response, "application/json", refused);
    response
}

fn with_content(response: &mut RefOr<Response>, kind: &str, schema: RefOr<Schema>) {
    if let RefOr::T(response) = response {
        let content = ContentBuilder::new().schema(Some(schema)).build();
        response.content.insert(kind.to_owned(), RefOr::T(content));
    }
}

fn with_header(response: &mut RefOr<Response>, name: &str) {
    if let RefOr::T(response) = response {
        let header = RefOr::T(Header::default());
        response.headers.insert(name.to_owned(), header);
    }
}

/// Marks nullable fields of responses as required: they are `null` if not known, and never left out.
/// Fields that can be left out are never `null`. (Components are types of responses only; types of
/// requests are inline.)
fn require_nullable_fields(document: &mut OpenApi) {
    let components = document.components.iter_mut();
    for schema in components.flat_map(|all| all.schemas.values_mut()) {
        let RefOr::T(Schema::Object(object)) = schema else {
            continue;
        };
        let nullable = object.properties.iter().filter(|(_, it)| may_be_null(it));
        let missing = nullable.filter(|(name, _)| !object.required.contains(name));
        let missing: Vec<String> = missing.map(|(name, _)| name.clone()).collect();
        object.required.extend(missing);
    }
}

fn may_be_null(schema: &RefOr<Schema>) -> bool {
    let has_null = |kind: &SchemaType| match kind {
        SchemaType::Type(kind) => *kind == Type::Null,
        SchemaType::Array(kinds) => kinds.contains(&Type::Null),
        SchemaType::AnyValue => false,
    };
    match schema {
        RefOr::T(Schema::Object(object)) => has_null(&object.schema_type),
        RefOr::T(Schema::Array(array)) => has_null(&array.schema_type),
        RefOr::T(Schema::OneOf(one_of)) => one_of.items.iter().any(may_be_null),
        _ => false,
    }
}

fn bearer() -> SecurityScheme {
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
    let description =
        "A token of `admin.tokens`. Its role must be at least the one that the operation names.";
    SecurityScheme::Http(scheme.description(Some(description)).build())
}

fn api_key() -> SecurityScheme {
    let description = "A token, as flag SDKs also send it.";
    let header = ApiKeyValue::with_description(flags_access::API_KEY.as_str(), description);
    SecurityScheme::ApiKey(ApiKey::Header(header))
}

fn session() -> SecurityScheme {
    let description = "The session cookie that `POST /admin/login` sets.";
    let cookie = ApiKeyValue::with_description(session::COOKIE, description);
    SecurityScheme::ApiKey(ApiKey::Cookie(cookie))
}
