//! Decimal numbers as programs write them, read and rounded digit by digit: no binary fraction
//! comes in between, so 1.005 with two decimal places is 1.01.

/// How many significant digits are kept. Further ones are cut off: the digit that decides about
/// rounding is always among the first sixteen of a value that is small enough to be counted.
const DIGITS_MAX: u32 = 30;

/// A finite number: `digits` × 10^`exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    negative: bool,
    digits: u128,
    exponent: i32,
}

impl Decimal {
    /// Reads a number: an optional sign, digits with at most one point, an optional exponent.
    /// `19.9999`, `1e3`, `+5`, `.5` are numbers; `1_000`, `1,5`, `0x10`, `NaN` are not. Spaces
    /// around it are ignored.
    pub fn read(text: &[u8]) -> Option<Decimal> {
        let text = text.trim_ascii();
        let (negative, text) = match text.split_first()? {
            (b'-', rest) => (true, rest),
            (b'+', rest) => (false, rest),
            _ => (false, text),
        };
        let end = text.iter().position(|byte| matches!(byte, b'e' | b'E'));
        let (mantissa, exponent) = match end {
            Some(end) => (&text[..end], read_exponent(&text[end + 1..])?),
            None => (text, 0),
        };
        let point = mantissa.iter().position(|&byte| byte == b'.');
        let (whole, fraction) = match point {
            Some(point) => (&mantissa[..point], &mantissa[point + 1..]),
            None => (mantissa, &[][..]),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let mut number = Decimal {
            negative,
            digits: 0,
            exponent,
        };
        for &digit in whole {
            if !number.push(digit)? {
                number.exponent = number.exponent.saturating_add(1);
            }
        }
        for &digit in fraction {
            if number.push(digit)? {
                number.exponent = number.exponent.saturating_sub(1);
            }
        }
        Some(number)
    }

    /// Whether a digit was kept; `None` when it is none.
    fn push(&mut self, digit: u8) -> Option<bool> {
        let digit = digit.is_ascii_digit().then(|| u128::from(digit - b'0'))?;
        let fits = self.digits < 10u128.pow(DIGITS_MAX - 1);
        if fits {
            self.digits = self.digits * 10 + digit;
        }
        Some(fits)
    }

    /// The number in units of 10^-`scale`, rounded half away from zero. `None` when that is more
    /// than 64 bits hold.
    pub fn units(self, scale: u8) -> Option<i64> {
        i64::try_from(self.wide_units(scale)?).ok()
    }

    /// The same with 128 bits, for sums of squares.
    pub fn wide_units(self, scale: u8) -> Option<i128> {
        let shift = self.exponent.saturating_add(i32::from(scale));
        let power = 10u128.checked_pow(shift.unsigned_abs());
        let size = match (shift < 0, power) {
            _ if self.digits == 0 => 0,
            (false, power) => self.digits.checked_mul(power?)?,
            // Less than half a unit: all digits together are less than a hundred-millionth.
            (true, None) => 0,
            (true, Some(power)) => {
                let up = self.digits % power >= power - power / 2;
                self.digits / power + u128::from(up)
            }
        };
        let size = i128::try_from(size).ok()?;
        Some(if self.negative { -size } else { size })
    }
}

/// An exponent; beyond a million it makes no difference.
fn read_exponent(text: &[u8]) -> Option<i32> {
    const MOST: i32 = 1_000_000;
    let (negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let exponent = digits.iter().fold(0, |sum: i32, digit| {
        (sum * 10 + i32::from(digit - b'0')).min(MOST)
    });
    Some(if negative { -exponent } else { exponent })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, scale: u8, units: Option<i64>) {
        let read = Decimal::read(text.as_bytes());
        let read = read.unwrap_or_else(|| panic!("{text:?} is not read"));
        assert_eq!(read.units(scale), units, "{text:?} with scale {scale}");
    }

    #[test]
    fn values_are_rounded_half_away_from_zero() {
        check("19.90", 2, Some(1990));
        check("1.005", 2, Some(101));
        check("1.0049999999999999999999999999999999999999", 2, Some(100));
        check("-0.005", 2, Some(-1));
        check("-0.0049", 2, Some(0));
        check("2.5", 0, Some(3));
        check("-2.5", 0, Some(-3));
        check("0.5", 0, Some(1));
        check("8.125", 2, Some(813));
        check("1.15", 1, Some(12));
        check("19.9999", 2, Some(2000));
        check("0.0000005", 6, Some(1));
    }

    #[test]
    fn numbers_are_read_as_programs_write_them() {
        check("1e3", 0, Some(1000));
        check("1E+3", 2, Some(100_000));
        check("1.5e-1", 2, Some(15));
        check("+5", 0, Some(5));
        check(" 5 ", 0, Some(5));
        check(".5", 1, Some(5));
        check("5.", 1, Some(50));
        check("-0", 2, Some(0));
        check("007", 0, Some(7));
        check("123456789012345678", 0, Some(123_456_789_012_345_678));
        check("0e999999999999", 6, Some(0));
        check("1e-999999999999", 6, Some(0));
        check("0.00000000000000000000000000000000000000001e41", 0, Some(1));
        check(&format!("0.{}", "9".repeat(500)), 2, Some(100));
        check(&format!("{}e-500", "9".repeat(500)), 2, Some(100));
    }

    #[test]
    fn what_is_too_large_has_no_units() {
        for text in ["1e308", "-1e308", "1e99999999999", "9999999999999999999"] {
            check(text, 2, None);
        }
        check(&"9".repeat(500), 0, None);
    }

    #[test]
    fn other_text_is_no_number() {
        for text in [
            "", " ", "+", "-", ".", "e3", "1e", "1e+", "abc", "NaN", "Infinity", "-inf", "1_000",
            "1,5", "0x10", "1.2.3", "1e2.5", "--1", "1 2", "٣", "\u{a0}1",
        ] {
            assert_eq!(Decimal::read(text.as_bytes()), None, "{text:?}");
        }
    }
}
