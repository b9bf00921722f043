//! Shapes that several families share, and the checks that keep them sound.

use crate::stats::Interval;
use crate::stats::fixed::{Sample, SingleLook};
use crate::stats::interval::finite;
use crate::stats::moments::Sums;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// Reads a family's inputs. Unknown ones are passed over.
pub(super) fn read<T: DeserializeOwned>(inputs: &str) -> Result<T, String> {
    serde_json::from_str(inputs).map_err(|error| error.to_string())
}

/// An error unless it holds.
pub(super) fn need(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

/// Strictly between 0 and 1.
pub(super) fn need_share(name: &str, value: f64) -> Result<(), String> {
    need(
        value > 0.0 && value < 1.0,
        &format!("`{name}` must be above 0 and below 1, not {value}"),
    )
}

/// Above 0 and finite.
pub(super) fn need_positive(name: &str, value: f64) -> Result<(), String> {
    need(
        value > 0.0 && value.is_finite(),
        &format!("`{name}` must be above 0, not {value}"),
    )
}

/// min(1, 1/E). `None` where there is no E.
pub(super) fn p_of(ln_e: Option<f64>) -> Option<f64> {
    finite((-ln_e?).exp().min(1.0))
}

/// The usual error where inputs name none.
pub(super) fn usual_alpha() -> f64 {
    0.05
}

/// Converted users and users of two groups.
#[derive(Deserialize)]
#[expect(non_snake_case, reason = "the names of the questions")]
pub(super) struct Counts {
    pub xA: u64,
    pub nA: u64,
    pub xB: u64,
    pub nB: u64,
}

impl Counts {
    /// No more converted users than users.
    pub(super) fn check(&self) -> Result<(), String> {
        need(
            self.xA <= self.nA && self.xB <= self.nB,
            "more converted users than users",
        )
    }

    /// Control and the group as samples; both need users.
    pub(super) fn samples(&self) -> Result<(Sample, Sample), String> {
        self.check()?;
        Sample::of_share(self.nA, self.xA)
            .zip(Sample::of_share(self.nB, self.xB))
            .ok_or_else(|| "a group has no users".to_owned())
    }
}

/// Sums of values and of their squares in two groups.
#[derive(Deserialize)]
#[expect(non_snake_case, reason = "the names of the questions")]
pub(super) struct ValueSums {
    nA: u64,
    sumA: ExactDecimal,
    sumsqA: ExactDecimal,
    nB: u64,
    sumB: ExactDecimal,
    sumsqB: ExactDecimal,
}

impl ValueSums {
    /// Control and the group; both need two users.
    pub(super) fn samples(&self) -> Result<(Sample, Sample), String> {
        let control = sample(self.nA, &self.sumA, &self.sumsqA)?;
        Ok((control, sample(self.nB, &self.sumB, &self.sumsqB)?))
    }
}

/// A sample from exact sums: both are brought to whole numbers of one unit.
fn sample(users: u64, sum: &ExactDecimal, square: &ExactDecimal) -> Result<Sample, String> {
    let places = sum.places.max(square.places.div_ceil(2));
    let (whole, whole_square) = sum
        .at(places)
        .zip(square.at(2 * places))
        .ok_or("a sum has too many digits")?;
    let unit = 10f64.powi(-(places as i32));
    let sums = Sums {
        users,
        sum: whole,
        sum_sq: whole_square,
        ..Sums::default()
    };
    let found = Sample::of(&sums).ok_or("a group needs two users")?;
    Ok(Sample {
        mean: found.mean * unit,
        rest: found.rest * unit,
        variance: found.variance * unit * unit,
        ..found
    })
}

/// A number with all of its digits: `digits` × 10^−`places`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ExactDecimal {
    digits: i128,
    places: u32,
}

impl ExactDecimal {
    /// As a whole number of 10^−`places`, which are no fewer than its own.
    fn at(&self, places: u32) -> Option<i128> {
        let factor = 10i128.checked_pow(places.checked_sub(self.places)?)?;
        self.digits.checked_mul(factor)
    }

    fn parse(text: &str) -> Option<ExactDecimal> {
        if text.contains(['e', 'E']) {
            // Written out by f64's own rules.
            return ExactDecimal::parse(&format!("{}", text.parse::<f64>().ok()?));
        }
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let part = part.trim_end_matches('0');
        Some(ExactDecimal {
            digits: format!("{whole}{part}").parse().ok()?,
            places: part.len() as u32,
        })
    }
}

impl<'de> Deserialize<'de> for ExactDecimal {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<ExactDecimal, D::Error> {
        let text = Box::<RawValue>::deserialize(from)?;
        ExactDecimal::parse(text.get())
            .ok_or_else(|| D::Error::custom(format!("`{}` is no number", text.get())))
    }
}

/// An estimate with p-value, as `{estimate, lo, hi, p, se}`.
pub(super) fn single_look(look: &SingleLook) -> Value {
    json!({
        "estimate": look.estimate,
        "lo": look.interval.low,
        "hi": look.interval.high,
        "p": look.p_value,
        "se": look.error,
    })
}

/// Adds the ends of an interval as `<name>lo` and `<name>hi`.
pub(super) fn put_interval(object: &mut Value, name: &str, interval: Interval) {
    object[format!("{name}lo")] = json!(interval.low);
    object[format!("{name}hi")] = json!(interval.high);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits() {
        let parse =
            |text: &str| ExactDecimal::parse(text).map(|found| (found.digits, found.places));
        assert_eq!(
            parse("5000000009842000055757"),
            Some((5000000009842000055757, 0))
        );
        assert_eq!(parse("52377.9767"), Some((523779767, 4)));
        assert_eq!(parse("-1.50"), Some((-15, 1)));
        assert_eq!(parse("1e3"), Some((1000, 0)));
        assert_eq!(parse("x"), None);
    }
}
