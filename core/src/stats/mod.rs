//! Pure mathematics: totals in; estimates, intervals and a verdict out.
//!
//! Everything that drives a verdict holds however often one looks: results are looked at all day,
//! and a test that is sound only when looked at once would find winners where there are none.
//!
//! [`judge`] is the entry point: a [`Question`] in ([`input`]), a [`Judgement`] out ([`analysis`]).
//! On the way,
//! - [`srm`] tests whether the sizes of the groups match their weights;
//! - [`stratified`] makes two groups comparable over changing weights, from [`moments`];
//! - [`compare`] compares a group with control, by the evidence of [`exact_conversion`] (shares of
//!   users, by [`logistic`]) and [`normal_mixture`] (logarithms and differences of means), both
//!   tuned by [`prior`], or by [`quantile`]; [`covariate`] adjusts means before that; [`proportion_interval`] bounds one group's share;
//! - [`multiple_testing`] corrects for many groups and metrics, [`guardrail`] tests for harm;
//! - with a planned end, [`horizon`] spends the error over so many analyses;
//! - [`decision`] makes a [`verdict`] of it, at the times of [`timing`].
//!
//! Nothing here writes sentences: results are plain facts.
//!
//! Beside them, and never driving a verdict: [`bayes`] (chances and losses), [`fixed`] (tests with
//! a fixed horizon), [`mod@reference`] (other sequential tests, for comparison), [`planning`] (how many
//! users it takes). [`special`] and [`quadrature`] are what all of them calculate with.

pub mod analysis;
mod analyze;
pub mod bayes;
pub mod compare;
pub mod covariate;
mod decision;
pub mod exact_conversion;
pub mod fixed;
pub mod guardrail;
pub mod horizon;
pub mod input;
pub mod interval;
pub mod logistic;
pub mod moments;
pub mod multiple_testing;
pub mod normal_mixture;
pub mod planning;
pub mod prior;
pub mod proportion_interval;
pub mod quadrature;
pub mod quantile;
pub mod reference;
pub mod special;
pub mod srm;
pub mod stratified;
pub mod timing;
pub mod verdict;

pub use analysis::{GroupJudgement, Judgement, Lift, Method, MetricJudgement, Side};
pub use analyze::judge;
pub use covariate::Gain;
pub use guardrail::GuardrailJudgement;
pub use horizon::{ANALYSES, EndAfter, PlannedAnalysis, PlannedEnd};
pub use input::{
    Epoch, Goal, GroupInput, History, Kind, MetricInput, Question, Role, Samples, Shown, Totals,
};
pub use interval::Interval;
pub use srm::SampleRatioTest;
pub use verdict::{Finding, Given, State, Verdict};
