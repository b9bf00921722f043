//! The results as CSV. PURE.

use crate::admin::csv_escape::neutral;
use crate::admin::results::schema::Results;

/// The results as CSV: one line for each group and metric. Names that a spreadsheet would take for
/// formulas are neutralised, unless they are wanted `raw`.
pub(crate) fn csv(results: &Results, raw: bool) -> String {
    let name = |name: &str| match raw {
        true => name.to_owned(),
        false => neutral(name).into_owned(),
    };
    let mut text = String::from(
        "experiment,status,group,role,weight,users,requests,metric,kind,converted,count,sum,rate,interval_low,interval_high,lift,lift_low,lift_high,p_value\n",
    );
    for experiment in &results.experiments {
        for (place, group) in experiment.groups.iter().enumerate() {
            // Names are letters, digits and `_.-`: nothing needs quoting.
            let common = [
                name(&experiment.name),
                experiment.status.to_owned(),
                name(&group.name),
                group.role.to_owned(),
                number(group.weight),
                group.users.to_string(),
                group.requests.to_string(),
            ]
            .join(",");
            for metric in &experiment.metrics {
                let of = &metric.groups[place];
                let lift = of.lift.as_ref();
                let (low, high) = of.interval.unzip();
                let (lift_low, lift_high) =
                    lift.map_or((None, None), |lift| lift.relative_interval);
                let numbers = [
                    of.rate,
                    low,
                    high,
                    lift.and_then(|lift| lift.relative),
                    lift_low,
                    lift_high,
                    of.p_value,
                ];
                let numbers = numbers.map(number).join(",");
                text.push_str(&format!(
                    "{common},{},{},{},{},{},{numbers}\n",
                    name(&metric.name),
                    metric.kind,
                    of.converted,
                    of.count,
                    of.sum
                ));
            }
            if experiment.metrics.is_empty() {
                text.push_str(&format!("{common}{}\n", ",".repeat(12)));
            }
        }
    }
    text
}

fn number(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| value.to_string())
}
