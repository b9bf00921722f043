//! A user's browser, as far as it matters here: cookies, redirects and what browsers say of requests.

use super::diagnosis::Problem;
use super::html::PageAddress;
use crate::cli::admin_client::respond_to;
use anyhow::Context;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HOST, LOCATION, REFERER,
    SET_COOKIE, USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

/// The longest body that is read, in bytes.
const BODY_BYTES_MAX: usize = 2 << 20;
/// How many redirects are followed.
const REDIRECTS_MAX: usize = 5;

/// How many requests may be made, and how long each may take.
#[derive(Debug)]
pub(super) struct RequestBudget {
    left: Cell<u64>,
    made: Cell<u64>,
    is_spent: Cell<bool>,
    timeout: Duration,
}

impl RequestBudget {
    /// A budget.
    pub(super) fn new(requests: u64, timeout: Duration) -> RequestBudget {
        RequestBudget {
            left: Cell::new(requests),
            made: Cell::new(0),
            is_spent: Cell::new(false),
            timeout,
        }
    }

    /// The number of requests that were made.
    pub(super) fn made(&self) -> u64 {
        self.made.get()
    }

    /// Whether a request was not made because there had been too many.
    pub(super) fn is_spent(&self) -> bool {
        self.is_spent.get()
    }

    fn take(&self) -> bool {
        match self.left.get() {
            0 => {
                self.is_spent.set(true);
                false
            }
            left => {
                self.left.set(left - 1);
                self.made.set(self.made.get() + 1);
                true
            }
        }
    }
}

/// A response.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// What was asked for.
    pub address: PageAddress,
    /// The fields of the request.
    pub asked: HeaderMap,
    /// The status.
    pub status: StatusCode,
    /// The fields of the response.
    pub fields: HeaderMap,
    /// The body, as text.
    pub text: String,
}

impl Seen {
    /// The values of a field as text.
    pub(super) fn all<'a>(&'a self, name: &'a http::HeaderName) -> impl Iterator<Item = &'a str> {
        let values = self.fields.get_all(name).into_iter();
        values.filter_map(|value| value.to_str().ok())
    }

    /// Whether it is a stylesheet that came.
    pub(super) fn is_style(&self) -> bool {
        let mut types = self.all(&CONTENT_TYPE);
        let is_css = types.any(|it| it.to_ascii_lowercase().starts_with("text/css"));
        self.status.is_success() && (is_css || self.address.target().contains(".css"))
    }

    /// How it is compressed although the request asked for what is not, if it is.
    pub(super) fn compression(&self) -> Option<&str> {
        let mut all = self.all(&CONTENT_ENCODING);
        all.find(|it| !it.trim().eq_ignore_ascii_case("identity"))
    }

    /// Where it redirects to, if it does.
    pub(super) fn redirect(&self) -> Option<PageAddress> {
        let location = self.fields.get(LOCATION)?.to_str().ok()?;
        self.status
            .is_redirection()
            .then(|| self.address.join(location))?
    }
}

/// A browser with the cookies of one user, and an override if it has one.
#[derive(Debug, Default)]
pub(super) struct Browser {
    cookies: BTreeMap<String, String>,
    token: Option<HeaderValue>,
}

impl Browser {
    /// A browser whose user an override puts into a group.
    pub(super) fn with_override(token: &str) -> Browser {
        Browser {
            token: HeaderValue::from_str(token).ok(),
            ..Browser::default()
        }
    }

    /// Opens a page, and follows redirects within the site. Returns all responses, the page last, and why
    /// there are no more of them.
    pub(super) async fn open(
        &mut self,
        page: &PageAddress,
        budget: &RequestBudget,
    ) -> (Vec<Seen>, Option<Problem>) {
        let mut all: Vec<Seen> = Vec::new();
        let mut next = Some(page.clone());
        while let Some(address) = next.take() {
            let fields = [
                ("accept", "text/html,application/xhtml+xml,*/*;q=0.8"),
                ("sec-fetch-mode", "navigate"),
                ("sec-fetch-dest", "document"),
                ("sec-fetch-site", "none"),
            ];
            let seen = match self.ask(&address, &fields, budget).await {
                Ok(Some(seen)) => seen,
                Ok(None) => break,
                Err(problem) => return (all, Some(problem)),
            };
            let to = seen.redirect().map(|to| to.known_from(page));
            all.push(seen);
            let is_known = |to: &PageAddress| all.iter().any(|it| it.address == *to);
            next = to.filter(|to| to.is_same_site(page));
            if let Some(to) = next
                .as_ref()
                .filter(|to| all.len() > REDIRECTS_MAX || is_known(to))
            {
                let endless = Problem {
                    kind: "endless_redirect",
                    found: format!("{page} redirects without end, at last to {to}"),
                    fix: "let one of the redirects lead to a page".to_owned(),
                };
                return (all, Some(endless));
            }
        }
        (all, None)
    }

    /// Asks for a page, and follows no redirect.
    pub(super) async fn ask_once(
        &mut self,
        page: &PageAddress,
        budget: &RequestBudget,
    ) -> Result<Option<Seen>, Problem> {
        self.ask(page, &[], budget).await
    }

    /// Loads a file that a page needs, or would need: `referer` names the page.
    pub(super) async fn load(
        &mut self,
        file: &PageAddress,
        referer: Option<&PageAddress>,
        budget: &RequestBudget,
    ) -> Result<Option<Seen>, Problem> {
        let referer = referer.map(ToString::to_string);
        let mut fields = vec![
            (ACCEPT.as_str(), "*/*"),
            ("sec-fetch-mode", "no-cors"),
            ("sec-fetch-site", "same-origin"),
        ];
        if let Some(referer) = &referer {
            fields.push((REFERER.as_str(), referer));
        }
        self.ask(file, &fields, budget).await
    }

    async fn ask(
        &mut self,
        address: &PageAddress,
        fields: &[(&str, &str)],
        budget: &RequestBudget,
    ) -> Result<Option<Seen>, Problem> {
        if !budget.take() {
            return Ok(None);
        }
        let seen = self.seen(address, fields, budget).await;
        seen.map(Some).map_err(|error| Problem {
            kind: "no_response",
            found: format!("{error:#}"),
            fix: "let the site answer faster, raise --timeout, or correct the address".to_owned(),
        })
    }

    async fn seen(
        &mut self,
        address: &PageAddress,
        fields: &[(&str, &str)],
        budget: &RequestBudget,
    ) -> anyhow::Result<Seen> {
        let mut request = Request::get(address.target())
            .header(HOST, address.authority())
            // What is compressed could not be read.
            .header(ACCEPT_ENCODING, "identity")
            .header(
                USER_AGENT,
                concat!("watershed-doctor/", env!("CARGO_PKG_VERSION")),
            );
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header("watershed-override", token);
        }
        let cookies = self.cookies.iter();
        let cookies: Vec<String> = cookies
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if !cookies.is_empty() {
            request = request.header(COOKIE, cookies.join("; "));
        }
        let request = request
            .body(Full::default())
            .with_context(|| format!("{address} is not an address"))?;
        let asked = request.headers().clone();
        let answered = async {
            let response = respond_to(&address.to_string(), request).await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
            // What is too long, or breaks off, is judged by its head.
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            anyhow::Ok((parts, body))
        };
        let late = || format!("no response from {address} within {:?}", budget.timeout);
        let (parts, body) = tokio::time::timeout(budget.timeout, answered)
            .await
            .with_context(late)?
            .with_context(|| format!("no response from {address}"))?;
        let seen = Seen {
            address: address.clone(),
            asked,
            status: parts.status,
            fields: parts.headers,
            text: String::from_utf8_lossy(&body).into_owned(),
        };
        self.keep_cookies(&seen);
        Ok(seen)
    }

    fn keep_cookies(&mut self, seen: &Seen) {
        for cookie in seen.all(&SET_COOKIE) {
            let pair = cookie.split(';').next().unwrap_or_default();
            let Some((name, value)) = pair.split_once('=') else {
                continue;
            };
            let is_deleted = cookie.to_ascii_lowercase().contains("max-age=0");
            match is_deleted {
                true => self.cookies.remove(name.trim()),
                false => self
                    .cookies
                    .insert(name.trim().to_owned(), value.trim().to_owned()),
            };
        }
    }
}
