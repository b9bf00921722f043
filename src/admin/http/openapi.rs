//! `GET /admin/openapi.json`: the admin API as OpenAPI 3.1, from the routes and types that serve.

use crate::admin::http::auth;
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

/// What is said of the whole.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "The admin door of watershed",
        description = "Fields, parameters and paths are added, never renamed. What is not known yet is `null`, never 0. Any request may also be answered 408 (its body came too slowly) or 503 (all connections are in use, or it took too long).",
    ),
    tags(
        (name = "results", description = include_str!("../../../docs/results.md")),
        (name = "decisions", description = "Pause, resume, promote, roll back, and who did"),
        (name = "events", description = "Conversions that servers report"),
        (name = "users", description = "Single users"),
        (name = "process", description = "How this process is"),
        (name = "pages", description = "For browsers"),
    )
)]
struct Whole;

/// The document, for the handler that serves it.
#[derive(Clone)]
pub struct Document(pub Arc<OpenApi>);

/// Builds the document of routes that require authentication and of those that do not.
pub fn document(mut guarded: OpenApi, open: OpenApi) -> Document {
    let mut document = Whole::openapi();
    document.info.contact = None;
    for (path, item) in &mut guarded.paths.paths {
        for (method, operation) in operations(item) {
            guard(path, method, operation);
        }
    }
    document.merge(guarded);
    document.merge(open);
    answers_are_whole(&mut document);
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(BEARER, bearer());
    components.add_security_scheme(SESSION, session());
    Document(Arc::new(document))
}

const BEARER: &str = "bearer";
const SESSION: &str = "session";

/// This document
///
/// Without tokens in the file, none is required.
#[utoipa::path(
    get,
    path = "/admin/openapi.json",
    operation_id = "openapi",
    tag = "process",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value))
)]
pub async fn openapi(
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

/// Adds what the guard asks for, and what it says to those it does not let in.
fn guard(path: &str, method: HttpMethod, operation: &mut Operation) {
    let reads = method == HttpMethod::Get && !operation.responses.responses.contains_key("403");
    let role = match reads || path == auth::LOGOUT {
        true => "read",
        false => "operate",
    };
    let either = [BEARER, SESSION].map(|scheme| SecurityRequirement::new(scheme, [role]));
    operation.security = Some(either.into());
    let unknown = add(operation, "401", "No token, or an unknown one");
    with_header(unknown, "www-authenticate");
    if method == HttpMethod::Get {
        // Browsers are asked for their token.
        let page = RefOr::T(Schema::Object(Object::with_type(Type::String)));
        with_content(unknown, "text/html", page);
    } else {
        let why = "The token may read only, or a page of another site asks";
        add(operation, "403", why);
    }
    let why = "A door without tokens is asked by a name that may be another site's";
    add(operation, "421", why);
    let why = "Too many unknown tokens came from this address: it is to wait for a minute";
    with_header(add(operation, "429", why), "retry-after");
}

/// Adds a refusal: as a kind of content, if there is such an answer.
fn add<'a>(operation: &'a mut Operation, status: &str, why: &str) -> &'a mut RefOr<Response> {
    let fresh = || RefOr::T(ResponseBuilder::new().description(why).build());
    let answers = &mut operation.responses.responses;
    let answer = answers.entry(status.to_owned()).or_insert_with(fresh);
    let refused = RefOr::Ref(Ref::from_schema_name("Refused"));
    with_content(answer, "application/json", refused);
    answer
}

fn with_content(answer: &mut RefOr<Response>, kind: &str, schema: RefOr<Schema>) {
    if let RefOr::T(answer) = answer {
        let said = ContentBuilder::new().schema(Some(schema)).build();
        answer.content.insert(kind.to_owned(), RefOr::T(said));
    }
}

fn with_header(answer: &mut RefOr<Response>, name: &str) {
    if let RefOr::T(answer) = answer {
        let header = RefOr::T(Header::default());
        answer.headers.insert(name.to_owned(), header);
    }
}

/// Answers have all their fields, `null` where something is not known; those that may be left out
/// are never `null`. (Components are what is answered. What is asked stands at its operation.)
fn answers_are_whole(document: &mut OpenApi) {
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
    let told =
        "A token of `admin.tokens`. Its role must be at least the one that an operation names.";
    SecurityScheme::Http(scheme.description(Some(told)).build())
}

fn session() -> SecurityScheme {
    let told = "What `POST /admin/login` gives a browser for a token.";
    let cookie = ApiKeyValue::with_description(session::COOKIE, told);
    SecurityScheme::ApiKey(ApiKey::Cookie(cookie))
}
