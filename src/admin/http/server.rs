//! Serves the admin API.

use crate::admin::http::connections::{self, BoundedConnections};
use crate::admin::http::{auth, flags_access, openapi, response_headers, router, timeouts};
use crate::admin::state::AdminState;
use axum::{Extension, middleware};
use std::net::TcpListener;
use utoipa_axum::router::OpenApiRouter;

/// Serves the admin API until its task is dropped, with at most `connections` connections. A `health`
/// listener serves health and metrics without a token.
pub async fn serve(
    state: AdminState,
    listener: TcpListener,
    health: Option<TcpListener>,
    connections: usize,
) -> std::io::Result<()> {
    let authorize = || middleware::from_fn_with_state(state.clone(), auth::authorize);
    let serve_routes = |routes: OpenApiRouter<AdminState>| {
        let (routes, _) = routes.split_for_parts();
        let routes = routes.with_state(state.clone());
        let routes = routes.layer(middleware::from_fn(timeouts::limit));
        routes.layer(middleware::from_fn(response_headers::add_headers))
    };
    let document = openapi::document(
        router::guarded().merge(router::flags()).into_openapi(),
        router::open().merge(router::flag_changes()).into_openapi(),
    );
    let may_evaluate = middleware::from_fn_with_state(state.clone(), flags_access::authorize);
    let by_origin = middleware::from_fn_with_state(state.clone(), flags_access::share);
    let flags = router::flags().layer(may_evaluate);
    let flags = flags.merge(router::flag_changes()).layer(by_origin);
    let all = router::guarded().layer(authorize());
    let all = all.merge(flags).merge(router::open());
    let usual = BoundedConnections::new(
        serve_routes(all.fallback(router::unknown)).layer(Extension(document)),
        connections::ADMIN.within(connections),
    )
    .with_tls(&state.plans);
    let few = router::metrics().layer(authorize()).merge(router::probes());
    let reserve = BoundedConnections::new(
        serve_routes(few.fallback(router::full)),
        connections::RESERVE.within(connections),
    )
    .with_tls(&state.plans);
    let listener = tokio::net::TcpListener::from_std(listener)?;
    // Sessions that were ended before the start stay ended.
    state.exchange_ended().await;
    let serving = async {
        tokio::select! {
            ended = connections::serve(listener, usual, Some(reserve)) => ended,
            () = state.exchange_ended_repeatedly() => Ok(()),
            () = state.keep_results_repeatedly() => Ok(()),
        }
    };
    let Some(health) = health else {
        return serving.await;
    };
    let few = router::metrics().merge(router::probes());
    let few = few.merge(router::health()).fallback(router::nothing_else);
    let few = BoundedConnections::new(serve_routes(few), connections::HEALTH.within(connections));
    let health = tokio::net::TcpListener::from_std(health)?;
    tokio::try_join!(serving, connections::serve(health, few, None))?;
    Ok(())
}
