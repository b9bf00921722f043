//! One look at one experiment.

use crate::admin::decisions::ramp::{self, Alarm, DataHealth, RampEvidence};
use crate::admin::results::recent_traffic::Recent;
use crate::experiment::{Confirmer, Experiment};
use crate::stats::{Judgement, Question, State};
use crate::store::phases::Placement;
use crate::store::{ExperimentTotals, HourTotals};
use std::sync::Arc;

/// One look at one experiment.
#[derive(Debug)]
pub struct Evaluation {
    /// What was counted.
    pub totals: ExperimentTotals,
    /// What was asked.
    pub question: Question,
    /// What was answered.
    pub judgement: Judgement,
    /// What a person should know of the file, each a sentence.
    pub warnings: Vec<String>,
    /// What happened lately.
    pub recent: Recent,
    /// What was counted, by hour.
    pub hours: Arc<Vec<HourTotals>>,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// Where the counts stand.
    pub placement: Placement,
    /// The experiment, with what decides as it was when the phase began.
    pub experiment: Experiment,
}

impl Evaluation {
    /// What holds a ramp. `down` says of each group why its upstream is down.
    pub fn alarm(&self, health: DataHealth, down: &[Option<String>]) -> Option<Alarm> {
        let evidence = RampEvidence {
            experiment: &self.experiment,
            totals: &self.totals,
            question: &self.question,
            judgement: &self.judgement,
            recent: &self.recent,
            down,
        };
        ramp::alarm(&evidence, health)
    }

    /// Who must confirm the winner before it is promoted, if it waits for that.
    pub fn waits_for(&self) -> Option<&'static str> {
        let (verdict, experiment) = (&self.judgement.verdict, &self.experiment);
        let is_due = verdict.state == State::Winner
            && verdict.harms.is_empty()
            && experiment.act_on.winner
            && experiment.is_running();
        experiment.confirm.filter(|_| is_due).map(Confirmer::word)
    }
}
