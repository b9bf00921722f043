//! Values that are kept beside the counts of an experiment: running minima of p-values, and the plan of
//! its start. PURE.
//!
//! Several replicas write at the same time, so values are merged: the smallest number and the first text
//! stay.

use std::collections::BTreeMap;

/// The fields of an experiment. A field name has no spaces.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunningMinima {
    /// The smallest number of each field; never NaN.
    pub lowest: BTreeMap<String, f64>,
    /// When that number was found, in Unix milliseconds. Older versions did not keep it.
    pub lowest_at: BTreeMap<String, u64>,
    /// The first text of each field.
    pub first: BTreeMap<String, String>,
}

impl RunningMinima {
    /// Whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.lowest.is_empty() && self.first.is_empty()
    }

    /// Returns what would change `known`: all that a store with `known` needs.
    pub fn beyond(&self, known: &RunningMinima) -> RunningMinima {
        let lower = |(field, value): &(&String, &f64)| match known.lowest.get(*field) {
            Some(known) => value < &known,
            None => !value.is_nan(),
        };
        let new = |(field, _): &(&String, &String)| !known.first.contains_key(*field);
        let owned = |(field, text): (&String, &String)| (field.clone(), text.clone());
        let lowest: BTreeMap<String, f64> = self
            .lowest
            .iter()
            .filter(lower)
            .map(|(field, value)| (field.clone(), *value))
            .collect();
        let at = |field: &String| Some((field.clone(), *self.lowest_at.get(field)?));
        RunningMinima {
            lowest_at: lowest.keys().filter_map(at).collect(),
            lowest,
            first: self.first.iter().filter(new).map(owned).collect(),
        }
    }

    /// Merges later values.
    pub fn merge(&mut self, later: &RunningMinima) {
        let news = later.beyond(self);
        for field in news.lowest.keys() {
            self.lowest_at.remove(field);
        }
        self.lowest_at.extend(news.lowest_at);
        self.lowest.extend(news.lowest);
        self.first.extend(news.first);
    }
}

/// Returns the name of the field with the time of another field.
pub fn time_field(field: &str) -> String {
    format!("{TIME}{field}")
}

/// Returns the field whose time this field holds.
pub fn timed(field: &str) -> Option<&str> {
    field.strip_prefix(TIME)
}

const TIME: &str = "at|";

/// Encodes a number for both stores: the shortest text that decodes to the same number.
pub fn write(value: f64) -> String {
    format!("{value:e}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(lowest: &[(&str, f64)], first: &[(&str, &str)]) -> RunningMinima {
        RunningMinima {
            lowest: lowest
                .iter()
                .map(|(field, value)| ((*field).to_owned(), *value))
                .collect(),
            lowest_at: BTreeMap::new(),
            first: first
                .iter()
                .map(|(field, text)| ((*field).to_owned(), (*text).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn time_follows_its_number() {
        let at = |value: f64, at_ms: Option<u64>| RunningMinima {
            lowest_at: at_ms
                .map(|at_ms| ("a".to_owned(), at_ms))
                .into_iter()
                .collect(),
            ..kept(&[("a", value)], &[])
        };
        let mut all = at(0.5, Some(1));
        all.merge(&at(0.75, Some(2)));
        assert_eq!(all, at(0.5, Some(1)));
        all.merge(&at(0.25, Some(3)));
        assert_eq!(all, at(0.25, Some(3)));
        all.merge(&at(0.125, None));
        assert_eq!(all, at(0.125, None));
    }

    #[test]
    fn the_smallest_number_and_the_first_text_stay() {
        let mut all = kept(&[("a", 0.5), ("b", 0.5)], &[("x", "10")]);
        let later = kept(
            &[("a", 0.25), ("b", 0.75), ("c", 1.0), ("d", f64::NAN)],
            &[("x", "20"), ("y", "5")],
        );
        assert_eq!(
            later.beyond(&all),
            kept(&[("a", 0.25), ("c", 1.0)], &[("y", "5")])
        );
        all.merge(&later);
        assert_eq!(
            all,
            kept(
                &[("a", 0.25), ("b", 0.5), ("c", 1.0)],
                &[("x", "10"), ("y", "5")]
            )
        );
        assert!(all.beyond(&all).is_empty());
    }

    #[test]
    fn numbers_read_back_the_same() {
        for value in [0.0, 1.0, 0.1, 1.0 / 3.0, 5e-324, 1e-300] {
            assert_eq!(write(value).parse::<f64>().unwrap(), value);
        }
    }
}
