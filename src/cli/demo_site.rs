//! Two versions of a small site for the demo: a landing page, a product page, and an order that converts.
//! The second version has a shorter button, so more visitors order.

use crate::tasks;
use axum::Router;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::net::SocketAddr;

const EVENT: HeaderName = HeaderName::from_static("watershed-event");

/// One version of the site.
#[derive(Clone, Copy, Debug)]
pub(super) struct Version {
    /// Its name.
    pub name: &'static str,
    colour: &'static str,
    slogan: &'static str,
    button: &'static str,
    price: &'static str,
}

/// The current site.
pub(super) const CURRENT: Version = Version {
    name: "current",
    colour: "#33506b",
    slogan: "Coffee, roasted on Mondays.",
    button: "Add to basket and proceed to checkout",
    price: "19.90",
};

/// The redesigned site.
pub(super) const REDESIGN: Version = Version {
    name: "redesign",
    colour: "#8a3b12",
    slogan: "Fresh coffee at your door by Wednesday.",
    button: "Buy now",
    price: "19.90",
};

/// Serves a version on a free port of this machine until its task is dropped. Returns the address.
pub(super) async fn serve(version: Version) -> std::io::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let site = Router::new()
        .route("/", get(landing))
        .route("/product", get(product))
        .route("/order", post(order))
        .route("/style.css", get(style))
        .with_state(version);
    tasks::spawn("demo-site", async move {
        if let Err(error) = axum::serve(listener, site).await {
            tracing::error!("the demo site has ended: {error}");
        }
    });
    Ok(address)
}

async fn landing(State(version): State<Version>) -> Response {
    page(
        version,
        &format!(
            "<h1>{}</h1><p><a href=\"/product\">See this week's roast</a></p>",
            version.slogan
        ),
    )
}

async fn product(State(version): State<Version>) -> Response {
    let form = format!(
        "<h1>Yirgacheffe, 500 g</h1><p>€ {}</p><form method=\"post\" action=\"/order\"><button>{}</button></form>",
        version.price, version.button
    );
    page(version, &form)
}

async fn order(State(version): State<Version>) -> Response {
    let event = format!("purchase;amount={}", version.price);
    let thanks = page(
        version,
        "<h1>Thank you!</h1><p>Your coffee is on its way. <a href=\"/\">Home</a></p>",
    );
    ([(EVENT, event)], thanks).into_response()
}

fn page(version: Version, content: &str) -> Response {
    let text = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Demo site</title><link rel=\"stylesheet\" href=\"/style.css\">{content}<footer>You see the version “{name}”.</footer></html>",
        name = version.name,
    );
    ([(CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response()
}

async fn style(State(version): State<Version>) -> Response {
    let text = format!(
        "body{{font:18px/1.6 system-ui,sans-serif;max-width:36rem;margin:4rem auto;padding:0 1rem}}\
         h1{{color:{colour}}}button{{font:inherit;background:{colour};color:#fff;border:0;border-radius:.4rem;padding:.6rem 1.2rem}}\
         footer{{margin-top:3rem;opacity:.6;font-size:.8rem}}",
        colour = version.colour,
    );
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], text).into_response()
}
