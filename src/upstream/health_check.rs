//! Runs the health checks of endpoints, once for all workers.

use crate::config::plan::{EndpointAddress, EndpointId, Health, Plan, Upstream};
use crate::tasks;
use crate::upstream::dial::RawConnection;
use crate::upstream::health::Checks;
use crate::upstream::health_state::{EndpointHealth, HealthRegistry};
use crate::upstream::stream::Stream;
use bytes::Bytes;
use http::header::{HOST, HeaderValue, USER_AGENT};
use http::{Request, Uri, Version};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::collections::HashMap;
use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

type BoxError = Box<dyn Error + Send + Sync>;

/// The subject of a check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Subject {
    upstream: Box<str>,
    endpoint: EndpointId,
    health: Arc<Health>,
}

/// A running check.
#[derive(Debug)]
struct Running {
    health: Arc<EndpointHealth>,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
        // Without checks, an endpoint counts as healthy.
        self.health.set_healthy(true, None);
    }
}

/// Checks every endpoint whose upstream has health checks, by the newest plan. Ends when there can be no
/// more plans.
pub async fn run(mut plans: watch::Receiver<Arc<Plan>>, health_registry: Arc<HealthRegistry>) {
    let mut running: HashMap<Subject, Running> = HashMap::new();
    let mut checks = JoinSet::new();
    loop {
        let plan = Arc::clone(&plans.borrow_and_update());
        let mut before = std::mem::take(&mut running);
        for (upstream, endpoint, health) in subjects(&plan) {
            let subject = Subject {
                upstream: upstream.name.clone(),
                endpoint: endpoint.id(),
                health: Arc::clone(health),
            };
            let health = health_registry.of(upstream, endpoint);
            let same = before.remove(&subject).filter(|before| {
                // Certificates may have changed.
                !endpoint.is_secure() && Arc::ptr_eq(&before.health, &health)
            });
            let next = same.unwrap_or_else(|| {
                let check = keep_asking(subject.clone(), endpoint.clone(), Arc::clone(&health));
                Running {
                    task: checks.spawn(tasks::named("health-checks", check)),
                    health,
                }
            });
            running.insert(subject, next);
        }
        drop(before);
        loop {
            tokio::select! {
                changed = plans.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                // A check ends only if it is aborted or panics; then all checks restart.
                Some(ended) = checks.join_next() => {
                    if let Err(error) = ended
                        && error.is_panic()
                    {
                        std::panic::resume_unwind(error.into_panic());
                    }
                }
            }
        }
    }
}

fn subjects(plan: &Plan) -> impl Iterator<Item = (&Upstream, &EndpointAddress, &Arc<Health>)> {
    plan.upstreams.iter().flat_map(|upstream| {
        upstream.health.iter().flat_map(move |health| {
            let each = move |endpoint| (upstream, endpoint, health);
            upstream.endpoints.iter().map(each)
        })
    })
}

async fn keep_asking(subject: Subject, endpoint: EndpointAddress, state: Arc<EndpointHealth>) {
    let Subject {
        upstream, health, ..
    } = subject;
    let mut checks = Checks::default();
    loop {
        let asked = tokio::time::timeout(health.timeout, ask(&endpoint, &health));
        let said = asked
            .await
            .unwrap_or_else(|_| Err(format!("no response within {:?}", health.timeout).into()));
        let well = checks.add(said.is_ok(), &health);
        let failure = said.err().map(|error| format!("{}: {error}", health.path));
        if state.set_healthy(well, failure.clone()) {
            match failure {
                None => tracing::info!("upstreams.{upstream}: {endpoint} is healthy again"),
                Some(failure) => tracing::warn!(
                    "upstreams.{upstream}: {endpoint} is unhealthy and gets no requests: {failure}"
                ),
            }
        }
        // Spread the checks of replicas that start at the same time.
        let spread = 0.9 + 0.2 * fastrand::f64();
        tokio::time::sleep(Duration::from_secs_f64(
            health.interval.as_secs_f64() * spread,
        ))
        .await;
    }
}

/// Runs one check. It fails unless the status is that of a healthy endpoint.
async fn ask(endpoint: &EndpointAddress, health: &Health) -> Result<(), BoxError> {
    let stream = RawConnection::to(endpoint).await?;
    let stream = Stream::open(stream, endpoint, false, None).await?;
    let mut request = Request::new(Empty::<Bytes>::new());
    let agent = HeaderValue::from_static("watershed-health");
    request.headers_mut().insert(USER_AGENT, agent);
    let host = match &health.host {
        Some(host) => host.clone(),
        None => HeaderValue::try_from(endpoint.authority())?,
    };
    let answer = if stream.is_http2() {
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::builder()
            .scheme(endpoint.scheme())
            .authority(host.as_bytes())
            .path_and_query(health.path.clone())
            .build()?;
        let builder = http2::Builder::new(TokioExecutor::new());
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        answered(sender.send_request(request), connection).await?
    } else {
        request.headers_mut().insert(HOST, host);
        *request.uri_mut() = Uri::from(health.path.clone());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        answered(sender.send_request(request), connection).await?
    };
    let status = answer.status().as_u16();
    let (low, high) = health.status;
    match (low..=high).contains(&status) {
        true => Ok(()),
        false => Err(format!("status {status}").into()),
    }
}

/// Returns the response over a connection. A response with `Connection: close` ends the connection at once,
/// and counts all the same.
async fn answered<T>(
    answer: impl Future<Output = hyper::Result<T>>,
    connection: impl Future<Output = hyper::Result<()>>,
) -> Result<T, BoxError> {
    let mut answer = pin!(answer);
    tokio::select! {
        answer = answer.as_mut() => Ok(answer?),
        ended = connection => match answer.await {
            Ok(answer) => Ok(answer),
            Err(_) => Err(ended.err().map_or("it closed the connection".into(), Into::into)),
        },
    }
}
