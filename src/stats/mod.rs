//! Pure mathematics: totals in; estimates, intervals and a verdict out.
//!
//! Everything that drives a verdict holds however often one looks: results are looked at all day,
//! and a test that is sound only when looked at once would find winners where there are none.
//!
//! [`judge`] is the front door: a [`Question`] in, a [`Judgement`] out. On the way,
//! - [`balance`] says whether the groups have the sizes they should;
//! - [`periods`] makes two groups comparable over changing weights, from [`moments`];
//! - [`compare`] sets a group against control, by the evidence of [`conversion`] (exact, for shares
//!   of users, by [`logistic`]) and [`sequential`] (logarithms and differences of means), both
//!   tuned by [`prior`]; [`rate`] bounds one group's share;
//! - [`several`] corrects for many groups and metrics, [`guardrail`] watches for harm;
//! - [`verdict`] says it in one word, at the times of [`timing`], and [`narrative`] in one sentence.
//!
//! Beside them, and never driving a verdict: [`bayes`] (chances and losses), [`fixed`] (tests for
//! a single look), [`clock`] and [`grid`]
//! (other sequential tests, for comparison), [`planning`] (how many users it takes).
//! [`special`] and [`quadrature`] are what all of them calculate with.

pub mod balance;
pub mod bayes;
pub mod clock;
pub mod compare;
pub mod conversion;
pub mod fixed;
pub mod grid;
pub mod guardrail;
pub mod interval;
mod judge;
pub mod judgement;
pub mod logistic;
pub mod moments;
pub mod narrative;
pub mod periods;
pub mod planning;
pub mod prior;
pub mod quadrature;
pub mod question;
pub mod rate;
pub mod sequential;
pub mod several;
pub mod special;
pub mod timing;
pub mod verdict;

pub use balance::SampleRatio;
pub use guardrail::Guardrail;
pub use interval::Interval;
pub use judge::{control_of, judge, primary_of};
pub use judgement::{GroupJudgement, Judgement, Lift, MetricJudgement};
pub use question::{
    Epoch, Given, Goal, Group, History, Kind, Metric, Question, Role, Shown, Totals,
};
pub use verdict::{State, Verdict};
