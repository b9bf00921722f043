//! What clients saw answered, and whether the store says the same.

use serde_json::Value;
use std::collections::BTreeMap;
use watershed::store::{Store, StoreError, UserMetric, UserRecord};

/// What one client knows of one user.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// The groups of the answers, in order, repeats left out.
    pub groups: Vec<String>,
    pub requests: u64,
    pub purchases: u64,
    pub cents: i64,
    /// Requests that were sent and not answered: each may have been counted, or not. What each
    /// would have counted for.
    pub unanswered: Vec<(u64, i64)>,
}

pub type Books = BTreeMap<String, Book>;

/// One experiment, as the store has it in the end.
pub struct StoredUsers {
    pub users: BTreeMap<String, UserRecord>,
}

impl StoredUsers {
    pub async fn read(store: &dyn Store, books: &Books) -> Result<StoredUsers, StoreError> {
        let mut users = BTreeMap::new();
        for name in books.keys() {
            if let Some(record) = store.user("shop", name.as_bytes()).await? {
                users.insert(name.clone(), record);
            }
        }
        Ok(StoredUsers { users })
    }

    /// Every user's record says what the user's client saw.
    pub fn agrees_with(&self, books: &Books) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, book) in books {
            let fault = match self.users.get(name) {
                Some(record) => disagreement(book, record),
                None if book.requests == 0 => None,
                None => Some("is not there".to_owned()),
            };
            faults.extend(fault.map(|fault| format!("{name}: {fault}; the client saw {book:?}")));
        }
        faults
    }

    /// The export says the same as the records: `assignments` and `values` as JSON lines.
    pub fn is_exported(&self, assignments: &str, values: &str) -> Vec<String> {
        let mut exported: BTreeMap<String, (String, bool)> = BTreeMap::new();
        let mut faults = Vec::new();
        let row = |line: &str| serde_json::from_str::<Value>(line).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        for row in assignments.lines().map(row) {
            let group = (
                text(&row["variation_id"]),
                row["crossed_over"].as_bool().unwrap(),
            );
            if exported.insert(text(&row["user_id"]), group).is_some() {
                faults.push(format!("{} is exported twice", row["user_id"]));
            }
        }
        let record = |record: &UserRecord| (record.group.clone(), record.crossed_over);
        let kept: BTreeMap<_, _> = self
            .users
            .iter()
            .map(|(user, of)| (user.clone(), record(of)))
            .collect();
        if exported != kept {
            faults.push(format!(
                "{} users are exported of {}",
                exported.len(),
                kept.len()
            ));
        }
        let mut sums: BTreeMap<(String, String), (i64, i64)> = BTreeMap::new();
        for row in values.lines().map(row) {
            let cents = (row["sum"].as_f64().unwrap() * 100.0).round() as i64;
            let values = (row["count"].as_i64().unwrap(), cents);
            sums.insert((text(&row["user_id"]), text(&row["metric"])), values);
        }
        let mut own = BTreeMap::new();
        for (user, record) in &self.users {
            for (metric, of) in &record.metrics {
                own.insert((user.clone(), metric.clone()), (of.count as i64, of.sum));
            }
        }
        if sums != own {
            faults.push(format!(
                "{} values are exported of {}",
                sums.len(),
                own.len()
            ));
        }
        faults
    }

    /// The results are the sums of the users' records, and as many requests as were answered.
    pub fn add_up_to(&self, results: &Value, books: &Books) -> Vec<String> {
        let mut faults = Vec::new();
        let mut same = |what: String, told: &Value, least: i128, most: i128| {
            let number = told.as_i64().map(i128::from);
            if number.is_none_or(|number| number < least || number > most) {
                faults.push(format!(
                    "{what}: results say {told}, and it is {least} to {most}"
                ));
            }
        };
        let experiment = &results["experiments"][0];
        for (place, group) in ["control", "b"].into_iter().enumerate() {
            let shown = &experiment["groups"][place];
            let own: Vec<&UserRecord> = self
                .users
                .values()
                .filter(|user| user.group == group)
                .collect();
            let users = own.len() as i128;
            same(format!("{group} users"), &shown["users"], users, users);
            for (index, metric) in ["purchase", "revenue"].into_iter().enumerate() {
                let shown = &experiment["metrics"][index]["groups"][place];
                let of = |of: fn(&UserMetric) -> i128| -> i128 {
                    own.iter()
                        .filter_map(|user| user.metrics.get(metric))
                        .map(of)
                        .sum()
                };
                let (converted, count) = (of(|_| 1), of(|values| values.count.into()));
                same(
                    format!("{group} {metric} converted"),
                    &shown["converted"],
                    converted,
                    converted,
                );
                same(
                    format!("{group} {metric} count"),
                    &shown["count"],
                    count,
                    count,
                );
                let cents = of(|values| values.sum.into());
                let told = shown["sum"]
                    .as_f64()
                    .map(|sum| (sum * 100.0).round() as i128);
                let told = told.map_or(serde_json::Value::Null, |cents| Value::from(cents as i64));
                same(format!("{group} {metric} cents"), &told, cents, cents);
            }
        }
        let shown: u64 = [0, 1]
            .map(|place| {
                experiment["groups"][place]["requests"]
                    .as_u64()
                    .unwrap_or(0)
            })
            .iter()
            .sum();
        let answered: u64 = books.values().map(|book| book.requests).sum();
        let unanswered: usize = books.values().map(|book| book.unanswered.len()).sum();
        let (answered, shown) = (i128::from(answered), Value::from(shown));
        same(
            "requests".to_owned(),
            &shown,
            answered,
            answered + unanswered as i128,
        );
        let crossed = self.users.values().filter(|user| user.crossed_over).count() as i128;
        same(
            "crossed over".to_owned(),
            &experiment["crossed_over"],
            crossed,
            crossed,
        );
        faults
    }
}

fn disagreement(book: &Book, record: &UserRecord) -> Option<String> {
    let certain = book.unanswered.is_empty();
    let seen_first = book.groups.first();
    if certain && Some(&record.group) != seen_first {
        return Some(format!("stands in {}", record.group));
    }
    if certain && record.crossed_over != (book.groups.iter().any(|group| Some(group) != seen_first))
    {
        return Some(format!("crossed over: {}", record.crossed_over));
    }
    let of = |metric| record.metrics.get(metric).copied().unwrap_or_default();
    let (purchases, revenue): (UserMetric, UserMetric) = (of("purchase"), of("revenue"));
    let (count, times, cents) = (purchases.count, revenue.count, revenue.sum);
    let possible = possible(book);
    if count != times || !possible.contains(&(count, cents)) {
        return Some(format!(
            "has {count} purchases and {times} of {cents} cents"
        ));
    }
    None
}

/// Everything that the store may say: what was answered, with any of what was not.
fn possible(book: &Book) -> Vec<(u64, i64)> {
    let mut sums = vec![(book.purchases, book.cents)];
    for &(purchases, cents) in &book.unanswered {
        if purchases > 0 {
            let with: Vec<_> = sums
                .iter()
                .map(|sum| (sum.0 + purchases, sum.1 + cents))
                .collect();
            sums.extend(with);
            sums.sort_unstable();
            sums.dedup();
        }
    }
    sums
}
