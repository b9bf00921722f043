//! Formats numbers and times for people. PURE.

/// Formats a share (0 to 1) as a percentage with at most one decimal place.
pub fn share(share: f64) -> String {
    format!("{} %", (share * 1000.0).round() / 10.0)
}

/// Formats a relative change as a percentage with its sign.
pub fn change(change: f64) -> String {
    let percent = (change * 1000.0).round() / 10.0;
    match percent == 0.0 {
        true => "0.0 %".to_owned(),
        false => format!("{percent:+.1} %"),
    }
}

/// Formats a count and its percentage of `all`.
pub fn part(count: u64, all: u64) -> String {
    match all {
        0 => thousands(count),
        all => format!(
            "{} ({:.2} %)",
            thousands(count),
            100.0 * count as f64 / all as f64
        ),
    }
}

/// Formats a p-value or another small number, never as zero.
pub fn p_value(p: f64) -> String {
    if p >= 0.001 {
        format!("{p:.3}")
    } else {
        format!("{p:.1e}")
    }
}

/// Formats a sum of values with no decimal place if it is whole, or else with two.
pub fn sum(sum: f64) -> String {
    let cents = (sum.abs() * 100.0).round();
    let whole = thousands((cents / 100.0).floor() as u64);
    let sign = if sum < 0.0 && cents > 0.0 { "-" } else { "" };
    match (cents % 100.0) as u64 {
        0 => format!("{sign}{whole}"),
        cents => format!("{sign}{whole}.{cents:02}"),
    }
}

/// Formats a latency in ms, or in seconds from 1 s on.
pub fn latency(ms: Option<f64>) -> String {
    match ms {
        None => "–".to_owned(),
        Some(ms) if ms >= 9_950.0 => format!("{:.0} s", ms / 1000.0),
        Some(ms) if ms >= 995.0 => format!("{:.1} s", ms / 1000.0),
        Some(ms) if ms >= 99.5 => format!("{ms:.0} ms"),
        Some(ms) => format!("{ms:.1} ms"),
    }
}

/// Formats an RFC 3339 time to the minute, in UTC; `?` if it cannot be parsed.
pub fn minute(at: &str) -> String {
    time(at, "%-d %b %Y, %H:%M UTC")
}

/// Formats an RFC 3339 time to the second, in UTC; `?` if it cannot be parsed.
pub fn second(at: &str) -> String {
    time(at, "%-d %b %Y, %H:%M:%S UTC")
}

fn time(at: &str, format: &str) -> String {
    let at: Result<jiff::Timestamp, _> = at.parse();
    at.map_or("?".to_owned(), |at| at.strftime(format).to_string())
}

/// Returns the seconds from one RFC 3339 time to another; 0 if `to` is the earlier one.
pub fn seconds_between(from: &str, to: &str) -> Option<f64> {
    let (from, to): (jiff::Timestamp, jiff::Timestamp) = (from.parse().ok()?, to.parse().ok()?);
    Some(to.duration_since(from).as_secs_f64().max(0.0))
}

/// Returns Unix milliseconds as RFC 3339; `None` beyond its range.
pub fn rfc3339(ms: u64) -> Option<String> {
    let time = jiff::Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()?;
    Some(time.to_string())
}

/// Returns a duration in its largest fitting unit, rounded up, such as `6 days`.
pub fn duration(seconds: f64) -> String {
    in_units(seconds, f64::ceil)
}

/// Returns a duration in its largest fitting unit, rounded to the nearest whole number.
pub fn rounded_duration(seconds: f64) -> String {
    in_units(seconds, f64::round)
}

fn in_units(seconds: f64, whole: fn(f64) -> f64) -> String {
    let units = [
        (86_400.0 * 365.0, "year"),
        (86_400.0, "day"),
        (3_600.0, "hour"),
        (60.0, "minute"),
    ];
    let fits = units.iter().find(|(unit, _)| seconds >= 1.5 * unit);
    let (unit, word) = fits.copied().unwrap_or((1.0, "second"));
    let count = whole(seconds / unit);
    let plural = if count == 1.0 { "" } else { "s" };
    format!("{count} {word}{plural}")
}

/// 40112 as `40,112`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// 124718 as 130000: a forecast has no more digits than that. Always rounded up.
pub fn two_digits(number: u64) -> u64 {
    let mut unit = 1;
    while number / unit >= 100 {
        unit *= 10;
    }
    number.div_ceil(unit).saturating_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_with_units_and_separators() {
        assert_eq!(
            [0.2, 0.125, 9.788].map(share),
            ["20 %", "12.5 %", "978.8 %"]
        );
        assert_eq!(
            [0.28, -0.0004, 0.0, -0.305].map(change),
            ["+28.0 %", "0.0 %", "0.0 %", "-30.5 %"]
        );
        assert_eq!(part(87, 497), "87 (17.51 %)");
        assert_eq!(part(1200, 0), "1,200");
        assert_eq!(
            [0.0, 795.0, 7525.93, 1784.2, -3.5, -0.001, 0.999].map(sum),
            ["0", "795", "7,525.93", "1,784.20", "-3.50", "0", "1"]
        );
        let times = [
            Some(0.5),
            Some(99.9),
            Some(341.4),
            Some(1234.0),
            Some(60_000.0),
        ];
        assert_eq!(
            times.map(latency),
            ["0.5 ms", "100 ms", "341 ms", "1.2 s", "60 s"]
        );
        assert_eq!(latency(None), "–");
    }

    #[test]
    fn times_are_formatted_to_the_minute() {
        assert_eq!(minute("2026-11-03T07:05:59.123Z"), "3 Nov 2026, 07:05 UTC");
        assert_eq!(minute("soon"), "?");
        let day = seconds_between("2026-11-03T07:00:00Z", "2026-11-04T07:00:00Z");
        assert_eq!(day, Some(86_400.0));
        assert_eq!(
            seconds_between("2026-11-04T07:00:00Z", "2026-11-03T07:00:00Z"),
            Some(0.0)
        );
    }

    #[test]
    fn duration_is_shown_in_its_largest_fitting_unit() {
        for (seconds, expected) in [
            (0.4, "1 second"),
            (89.0, "89 seconds"),
            (90.0, "2 minutes"),
            (7200.0, "2 hours"),
            (100_000.0, "28 hours"),
            (12.0 * 86_400.0, "12 days"),
            (3e8, "10 years"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
    }

    #[test]
    fn large_numbers_read_well() {
        assert_eq!([0, 999, 40_112].map(thousands), ["0", "999", "40,112"]);
        assert_eq!([7, 99, 124_718].map(two_digits), [7, 99, 130_000]);
    }
}
