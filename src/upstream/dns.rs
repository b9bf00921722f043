//! Asks DNS for the addresses of endpoints, and for how long they hold.

use crate::config::plan::{EndpointName, NameAnswer};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Addresses are asked for again no earlier and no later than after this time, whatever their TTL is.
const TTL_MIN: Duration = Duration::from_secs(1);
const TTL_MAX: Duration = Duration::from_secs(60);
/// The file that goes before DNS, and how long its addresses hold.
const HOSTS: &str = "/etc/hosts";
const HOSTS_TTL: Duration = Duration::from_secs(5);
/// The most addresses of one name that are used.
const ANSWERS_MAX: usize = 64;
/// How long one server may take, and how often it is asked.
const WITHIN: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;

/// Asks name servers.
pub struct DnsResolver(TokioResolver);

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAnswers {
    /// In a fixed order, each once.
    pub answers: Box<[NameAnswer]>,
    /// How long they hold.
    pub ttl: Duration,
}

/// Returns the addresses that the file of this machine has for a name. It goes before DNS.
fn in_hosts(name: &str) -> Option<Box<[NameAnswer]>> {
    let text = std::fs::read_to_string(HOSTS).ok()?;
    let found = answers_in(&text, name);
    (!found.is_empty()).then_some(found)
}

fn answers_in(hosts: &str, name: &str) -> Box<[NameAnswer]> {
    let name = name.trim_end_matches('.');
    let lines = hosts.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let ip = words.next()?.parse().ok()?;
        let is_named = words.any(|other| other.eq_ignore_ascii_case(name));
        is_named.then_some(NameAnswer { ip, target: None })
    });
    let found: BTreeSet<NameAnswer> = lines.collect();
    found.into_iter().collect()
}

impl DnsResolver {
    /// Asks these servers, or those of the system if there are none.
    pub fn new(servers: &[SocketAddr]) -> Result<DnsResolver, NetError> {
        let mut builder = match servers {
            [] => TokioResolver::builder_tokio()?,
            servers => {
                let servers = servers.iter().map(|server| {
                    let mut connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
                    connections
                        .iter_mut()
                        .for_each(|it| it.port = server.port());
                    NameServerConfig::new(server.ip(), true, connections.into())
                });
                let config = ResolverConfig::from_name_servers(servers.collect());
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        let options = builder.options_mut();
        // The TTL says when to ask again.
        options.cache_size = 0;
        // It would be read once only.
        options.use_hosts_file = ResolveHosts::Never;
        options.timeout = WITHIN;
        options.attempts = ATTEMPTS;
        builder.build().map(DnsResolver)
    }

    /// Returns the addresses of a name; an error if it has none.
    pub async fn resolve(&self, name: &EndpointName) -> Result<NameAnswers, NetError> {
        if let Some(answers) = in_hosts(&name.host) {
            return Ok(NameAnswers {
                answers,
                ttl: HOSTS_TTL,
            });
        }
        let (mut answers, valid_until) = match name.is_srv {
            true => self.services(&name.host).await?,
            false => {
                let found = self.0.lookup_ip(&*name.host).await?;
                let answers = found.iter().map(|ip| NameAnswer { ip, target: None });
                (answers.collect(), found.valid_until())
            }
        };
        answers.sort();
        answers.dedup();
        answers.truncate(ANSWERS_MAX);
        let ttl = valid_until.saturating_duration_since(Instant::now());
        Ok(NameAnswers {
            answers: answers.into(),
            ttl: ttl.clamp(TTL_MIN, TTL_MAX),
        })
    }

    /// The addresses of the servers that SRV records name with the best priority (RFC 2782). Weights are
    /// not used: load is balanced by what the endpoints do.
    async fn services(&self, name: &str) -> Result<(Vec<NameAnswer>, Instant), NetError> {
        let found = self.0.srv_lookup(name).await?;
        let mut valid_until = found.valid_until();
        let records = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(service) => Some(service),
                _ => None,
            });
        let records: Vec<_> = records.collect();
        let best = records.iter().map(|service| service.priority).min();
        let best = records
            .iter()
            .filter(|service| Some(service.priority) == best);
        let mut answers = Vec::new();
        for service in best.take(ANSWERS_MAX) {
            let addresses = self.0.lookup_ip(service.target.clone()).await?;
            valid_until = valid_until.min(addresses.valid_until());
            let host = service.target.to_utf8();
            let host = host.strip_suffix('.').unwrap_or(&host);
            answers.extend(addresses.iter().map(|ip| NameAnswer {
                ip,
                target: Some((host.into(), service.port)),
            }));
        }
        match answers.is_empty() {
            true => Err(NetError::from("no server offers the service")),
            false => Ok((answers, valid_until)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_a_hosts_file() {
        let hosts = "# 10.0.0.9 app\n127.0.0.1 localhost\n10.0.0.2\tApp app.internal # old\n10.0.0.1 app\nx app\n";
        let found = |name: &str| -> Vec<String> {
            let answers = answers_in(hosts, name);
            answers.iter().map(ToString::to_string).collect()
        };
        assert_eq!(found("app"), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(found("app.internal."), ["10.0.0.2"]);
        assert_eq!(found("old"), [""; 0]);
    }
}
