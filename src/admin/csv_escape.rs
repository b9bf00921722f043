//! Cells of CSV files that people open in spreadsheets. PURE.

use std::borrow::Cow;

/// Characters at which a spreadsheet begins a formula (OWASP, CSV injection). The last four are the
/// full-width forms of the first four.
const FORMULA: [char; 11] = [
    '=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}',
];

/// Returns the text, with a `'` before it if a spreadsheet would read it as a formula. Plain numbers
/// such as `-1.5` are unchanged.
pub(super) fn neutral(text: &str) -> Cow<'_, str> {
    match text.starts_with(FORMULA) && !is_number(text) {
        true => Cow::Owned(format!("'{text}")),
        false => Cow::Borrowed(text),
    }
}

fn is_number(text: &str) -> bool {
    let digits = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    text.bytes().all(digits) && text.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_formulas_get_a_leading_apostrophe() {
        for formula in [
            "=1+1",
            "=cmd|' /C calc'!A0",
            "+1+1",
            "-1+1",
            "-a",
            "-",
            "--1",
            "-1-1",
            "+e5",
            "-inf",
            "-1,5",
            "-1.5%",
            "@SUM(A1)",
            "\t=1",
            "\r=1",
            "\n=1",
            "\u{ff1d}1+1",
            "\u{ff20}x",
        ] {
            assert_eq!(neutral(formula), format!("'{formula}"));
        }
        for plain in [
            "", "a", "a=1", "1+1", "-1.5", "+49", "-1e-7", "-.5", "'=1", "u-42", "\u{fc}",
        ] {
            assert_eq!(neutral(plain), plain);
        }
    }
}
