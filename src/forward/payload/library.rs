//! What messages of all formats carry. PURE.

/// The name that messages carry.
pub(super) const LIBRARY: &str = "watershed";
/// The version that messages carry.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Returns Unix milliseconds as RFC 3339, with milliseconds.
pub(super) fn rfc3339(ms: u64) -> String {
    let time = i64::try_from(ms).ok();
    let time = time.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(String::new, |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_milliseconds() {
        assert_eq!(rfc3339(1_700_000_000_120), "2023-11-14T22:13:20.120Z");
        assert_eq!(rfc3339(1_700_000_000_000), "2023-11-14T22:13:20.000Z");
        assert_eq!(rfc3339(u64::MAX), "");
    }
}
