//! Serves the admin API.

use crate::admin::http::connections::{self, Gate};
use crate::admin::http::{auth, openapi, response_headers, router, timeouts};
use crate::admin::state::AdminState;
use axum::{Extension, middleware};
use std::net::TcpListener;
use utoipa_axum::router::OpenApiRouter;

/// Serves the admin API until its task is dropped, with so many connections at once; and, at a
/// `health` listener, health and metrics without a token.
pub async fn serve(
    state: AdminState,
    listener: TcpListener,
    health: Option<TcpListener>,
    connections: usize,
) -> std::io::Result<()> {
    let guard = || middleware::from_fn_with_state(state.clone(), auth::admit);
    let serve_routes = |routes: OpenApiRouter<AdminState>| {
        let (routes, _) = routes.split_for_parts();
        let routes = routes.with_state(state.clone());
        let routes = routes.layer(middleware::from_fn(timeouts::limit));
        routes.layer(middleware::from_fn(response_headers::dress))
    };
    let document = openapi::document(
        router::guarded().into_openapi(),
        router::open().into_openapi(),
    );
    let all = router::guarded().layer(guard()).merge(router::open());
    let usual = Gate::new(
        serve_routes(all.fallback(router::unknown)).layer(Extension(document)),
        connections::ADMIN.within(connections),
    );
    let few = router::numbers().layer(guard()).merge(router::probes());
    let reserve = Gate::new(
        serve_routes(few.fallback(router::full)),
        connections::RESERVE.within(connections),
    );
    let listener = tokio::net::TcpListener::from_std(listener)?;
    // A session that was ended before the last start does not come back.
    state.exchange_ended().await;
    let serving = async {
        tokio::select! {
            ended = connections::serve(listener, usual, Some(reserve)) => ended,
            () = state.follow_ended() => Ok(()),
        }
    };
    let Some(health) = health else {
        return serving.await;
    };
    let few = router::numbers().merge(router::probes());
    let few = few.merge(router::health()).fallback(router::nothing_else);
    let few = Gate::new(serve_routes(few), connections::HEALTH.within(connections));
    let health = tokio::net::TcpListener::from_std(health)?;
    tokio::try_join!(serving, connections::serve(health, few, None))?;
    Ok(())
}
