//! `watershed stats`: the statistics as a tool. Questions as lines of JSON in, answers as lines
//! of JSON out: `{"id": …, "family": …, "inputs": {…}}` is answered by `{"id": …, "got": {…}}`,
//! or by `{"id": …, "error": "…"}` where the family is unknown or the inputs do not fit it.
//! docs/stats-command.md lists the families. What is undefined or unbounded is `null`.

mod conversions;
mod fixed;
mod other;
mod planning;
mod sequential;
mod shape;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::io::{BufRead, Write};

/// Answers every line until the input ends; empty lines are passed over. Fails only where the
/// input cannot be read or the output not written.
pub fn run(input: impl BufRead, mut output: impl Write) -> std::io::Result<()> {
    for line in input.lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        serde_json::to_writer(&mut output, &answer(&line))?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
    Ok(())
}

/// Answers every line, and returns all answers in a list.
pub fn all(input: impl BufRead) -> std::io::Result<Value> {
    let mut answers = Vec::new();
    for line in input.lines() {
        let line = line?;
        if !line.trim().is_empty() {
            answers.push(serde_json::to_value(answer(&line))?);
        }
    }
    Ok(Value::Array(answers))
}

/// One line in.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(default)]
    id: Value,
    family: String,
    // Kept as text: sums of squares have more digits than a `Value` keeps.
    #[serde(borrow)]
    inputs: &'a RawValue,
}

/// One line out.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Got { id: Value, got: Value },
    Error { id: Value, error: String },
}

/// The answer to one family's inputs, or what is wrong with them.
type Family = fn(&str) -> Result<Value, String>;

const FAMILIES: &[(&str, Family)] = &[
    ("beta_binomial", other::beta_binomial),
    ("contract_edges", other::contract_edges),
    ("conversions_only_e", conversions::conversions_only_e),
    (
        "conversions_only_epochs",
        conversions::conversions_only_epochs,
    ),
    ("conversions_only_grid", conversions::conversions_only_grid),
    ("cuped", fixed::cuped),
    ("e_bh", other::e_bh),
    ("gb_fixed_proportion", fixed::gb_fixed_proportion),
    ("gb_gaussian_bayes", other::gb_gaussian_bayes),
    ("infoclock_lift_mean", sequential::infoclock_lift_mean),
    (
        "infoclock_lift_proportion",
        sequential::infoclock_lift_proportion,
    ),
    ("msprt_absolute", sequential::msprt_absolute),
    ("multiplicity", other::multiplicity),
    ("nclock_cs_mean", sequential::nclock_cs_mean),
    ("nclock_cs_proportion", sequential::nclock_cs_proportion),
    ("normal_mixture", sequential::normal_mixture),
    ("prob_best", other::prob_best),
    ("published_bernoulli_cs", sequential::published_bernoulli_cs),
    (
        "published_beta_binomial_mixture",
        sequential::published_beta_binomial_mixture,
    ),
    ("published_gb_proportion", fixed::published_gb_proportion),
    (
        "published_gb_sequential_mean",
        sequential::published_gb_sequential_mean,
    ),
    (
        "published_gb_sequential_proportion",
        sequential::published_gb_sequential_proportion,
    ),
    ("published_gb_welch", fixed::published_gb_welch),
    ("published_multiplicity", other::published_multiplicity),
    ("published_newcombe", fixed::two_proportions),
    ("published_normal_mixture", sequential::normal_mixture),
    ("published_proportions_ztest", fixed::two_proportions),
    (
        "published_sample_size_evan_miller",
        planning::published_sample_size_evan_miller,
    ),
    ("published_srm_chi2", other::srm_chi2),
    ("published_srm_sequential", other::published_srm_sequential),
    ("published_student_t_scipy_doc", fixed::published_student_t),
    ("ratio_delta", fixed::ratio_delta),
    ("sample_size", planning::sample_size),
    ("sample_size_std_effect", planning::sample_size_std_effect),
    ("sequential_t", sequential::sequential_t),
    ("srm_chi2", other::srm_chi2),
    ("srm_sequential", other::srm_sequential),
    ("two_proportions", fixed::two_proportions),
    ("welch_from_sums", fixed::welch_from_sums),
];

fn answer(line: &str) -> Answer {
    let parsed: Line<'_> = match serde_json::from_str(line) {
        Ok(parsed) => parsed,
        Err(error) => {
            return Answer::Error {
                id: id_of(line),
                error: format!("not a question: {error}"),
            };
        }
    };
    let id = parsed.id;
    let known = FAMILIES.iter().find(|(name, _)| *name == parsed.family);
    let Some((_, family)) = known else {
        return Answer::Error {
            id,
            error: format!("unknown family `{}`", parsed.family),
        };
    };
    match family(parsed.inputs.get()) {
        Ok(got) => Answer::Got { id, got },
        Err(error) => Answer::Error { id, error },
    }
}

/// The id of a line that is JSON but no question.
fn id_of(line: &str) -> Value {
    let value: Value = serde_json::from_str(line).unwrap_or_default();
    value.get("id").cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &str, expected: &str) {
        let mut output = Vec::new();
        run(input.as_bytes(), &mut output).unwrap();
        assert_eq!(String::from_utf8(output).unwrap().trim_end(), expected);
    }

    #[test]
    fn what_is_asked_wrongly_is_answered_and_the_next_line_too() {
        check(
            "{\"id\": 1, \"family\": \"astrology\", \"inputs\": {}}\n\nnonsense\n{\"id\": 2, \"family\": \"e_bh\", \"inputs\": {\"e\": [30], \"alpha\": 0.05}}",
            "{\"id\":1,\"error\":\"unknown family `astrology`\"}\n{\"id\":null,\"error\":\"not a question: expected ident at line 1 column 2\"}\n{\"id\":2,\"got\":{\"k\":1,\"reject\":[true]}}",
        );
        check(
            "{\"id\": \"a\", \"family\": \"e_bh\", \"inputs\": {\"alpha\": 0.05}}",
            "{\"id\":\"a\",\"error\":\"missing field `e` at line 1 column 15\"}",
        );
        check(
            "{\"id\": \"b\", \"family\": \"srm_chi2\", \"inputs\": {\"users\": [1, -1], \"weights\": [1, 1]}}",
            "{\"id\":\"b\",\"error\":\"invalid value: integer `-1`, expected u64 at line 1 column 16\"}",
        );
        check(
            "{\"id\": \"c\", \"inputs\": {}}",
            "{\"id\":\"c\",\"error\":\"not a question: missing field `family` at line 1 column 25\"}",
        );
    }

    #[test]
    fn the_page_names_every_family_and_its_examples_are_true() {
        let page = include_str!("../../docs/stats-command.md");
        for (name, _) in FAMILIES {
            assert!(
                page.contains(&format!("`{name}`")),
                "{name} is not described"
            );
        }
        let lines = |word: &str| -> Vec<&str> {
            let lines = page.lines().filter(|line| line.starts_with("{\"id\":"));
            lines
                .filter(|line| line.contains("\"family\"") == (word == "asked"))
                .collect()
        };
        assert_eq!(lines("asked").len(), 3);
        check(&lines("asked").join("\n"), &lines("answered").join("\n"));
    }
}
