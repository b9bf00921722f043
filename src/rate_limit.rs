//! Rate limits per client, over all workers. They use no lock: two words of memory decide about a request.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The number of words in each of the two rows, which take half a megabyte each.
const WORDS: usize = 1 << 16;
const MINUTE_US: u64 = 60_000_000;
const TRY_US: u64 = MINUTE_US / 10;

/// The source of reported events.
#[derive(Clone, Copy, Debug)]
pub enum Reporter<'a> {
    /// The user of the events; the client chooses the ID.
    User(&'a [u8]),
    /// The client's address, or the /64 that it has in IPv6.
    Address(IpAddr),
}

/// When each client may send its next request (the generic cell rate algorithm), kept under two hashes of
/// its address. A client that shares one word with a busy client is not limited by it, only one that
/// shares both. The hashes are secret, so that nobody can cause that.
#[derive(Debug)]
pub struct RateLimiter {
    rows: [Box<[AtomicU64]>; 2],
    hasher: RandomState,
    since: Instant,
}

impl Default for RateLimiter {
    fn default() -> RateLimiter {
        let row = || (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        RateLimiter {
            rows: [row(), row()],
            hasher: RandomState::new(),
            since: Instant::now(),
        }
    }
}

impl RateLimiter {
    /// Admits `per_second` requests of a client in any second, and as many at once.
    pub fn admit(&self, client: IpAddr, now: Instant, per_second: f64) -> bool {
        let each_us = (1e6 / per_second).max(1.0) as u64;
        self.take(&network(client), now, each_us, each_us.max(1_000_000))
    }

    /// Admits `per_minute` events of a reporter in any minute, and as many at once. Otherwise returns after how
    /// many seconds to try again.
    pub fn admit_events(
        &self,
        reporter: Reporter<'_>,
        now: Instant,
        events: usize,
        per_minute: u32,
    ) -> Result<(), u64> {
        let each_us = MINUTE_US / u64::from(per_minute.max(1));
        let all_us = each_us.saturating_mul(events as u64);
        let who = match reporter {
            Reporter::User(user) => ("user", user, 0),
            Reporter::Address(address) => ("address", &[][..], network(address)),
        };
        if self.take(&who, now, all_us, MINUTE_US) {
            return Ok(());
        }
        let (words, now_us) = self.words(&who, now);
        let all_us = owed_us(&words, now_us).saturating_add(all_us);
        Err((all_us.saturating_sub(MINUTE_US) / 1_000_000 + 1).min(60))
    }

    /// Whether a client may try a token of the admin API: ten wrong ones in any minute.
    pub fn may_try(&self, client: IpAddr, now: Instant) -> bool {
        let (words, now_us) = self.words(&("door", network(client)), now);
        owed_us(&words, now_us) + TRY_US <= MINUTE_US
    }

    /// Records a wrong token of a client.
    pub fn failed(&self, client: IpAddr, now: Instant) {
        self.take(&("door", network(client)), now, TRY_US, MINUTE_US);
    }

    fn take(&self, who: &(impl Hash + ?Sized), now: Instant, each_us: u64, ahead_us: u64) -> bool {
        let (words, now_us) = self.words(who, now);
        if owed_us(&words, now_us) + each_us > ahead_us {
            return false;
        }
        for word in words {
            // Two workers may do this at the same time; no addition is lost.
            let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |until| {
                Some(until.max(now_us) + each_us)
            });
        }
        true
    }

    /// Returns the words of a key, and the later time in them.
    fn words(&self, who: &(impl Hash + ?Sized), now: Instant) -> ([&AtomicU64; 2], u64) {
        let hash = self.hasher.hash_one(who);
        let words = [
            &self.rows[0][hash as usize % WORDS],
            &self.rows[1][(hash >> 32) as usize % WORDS],
        ];
        (words, now.duration_since(self.since).as_micros() as u64)
    }
}

fn owed_us(words: &[&AtomicU64; 2], now_us: u64) -> u64 {
    let owed = words.map(|word| word.load(Ordering::Relaxed).saturating_sub(now_us));
    owed[0].min(owed[1])
}

/// One client: an address, or the /64 that one has in IPv6.
pub fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => u64::from(u32::from(address)),
        IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    fn at(rates: &RateLimiter, us: u64) -> Instant {
        rates.since + Duration::from_micros(us)
    }

    #[test]
    fn a_rate_is_kept_and_recovers() {
        let rates = RateLimiter::default();
        let client = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        let asked = |now_us: u64, times: usize| {
            (0..times)
                .filter(|_| rates.admit(client, at(&rates, now_us), 10.0))
                .count()
        };
        assert_eq!(asked(5_000_000, 100), 10);
        assert_eq!(asked(5_099_999, 100), 0);
        assert_eq!(asked(5_100_000, 100), 1);
        assert_eq!(asked(5_600_000, 100), 5);
        assert_eq!(asked(9_000_000, 100), 10);
        let other = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
        assert!(rates.admit(other, at(&rates, 5_000_000), 10.0));
    }

    #[test]
    fn slow_rates_admit_one_at_a_time() {
        let rates = RateLimiter::default();
        let client = IpAddr::V6(Ipv6Addr::new(1, 2, 3, 4, 5, 6, 7, 8));
        let neighbour = IpAddr::V6(Ipv6Addr::new(1, 2, 3, 4, 9, 9, 9, 9));
        assert!(rates.admit(client, at(&rates, 1_000_000), 0.1));
        assert!(!rates.admit(neighbour, at(&rates, 2_000_000), 0.1));
        assert!(rates.admit(client, at(&rates, 11_000_000), 0.1));
    }
}
