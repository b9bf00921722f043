//! What decisions make of the plan of a file, from that plan and from what the store knows.

use super::file_decisions::{self, FileDecision};
use super::promotions::{
    KeptPromotion, LossReason, LostPromotion, is_same_version, left_after_decision, promoted,
    restored, without_group,
};
use crate::config::plan::Plan;
use crate::config::{Diagnostic, InvalidConfig};
use crate::experiment::assign::Weight;
use crate::experiment::lifecycle::Ramp;
use crate::experiment::match_index::Experiments;
use crate::experiment::{Experiment, Group, Lifecycle};
use crate::store::decisions::{
    DecidedState, RampPosition, StandingDecision, StandingDecisions, StoredDefinition,
    StoredDefinitions,
};
use crate::store::{Store, StoreError};
use std::cmp::Reverse;
use std::path::Path;

/// What the store knows of experiments besides their counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KnownDecisions {
    /// The decisions.
    pub decisions: StandingDecisions,
    /// What files said last of experiments.
    pub definitions: StoredDefinitions,
}

/// The plan of a file with decisions applied.
#[derive(Debug)]
pub struct DecidedPlan {
    /// The plan.
    pub plan: Plan,
    /// Promotions that stay in effect although their experiments have left the file.
    pub kept: Vec<KeptPromotion>,
    /// Promotions that would stay in effect, but for their upstream.
    pub lost: Vec<LostPromotion>,
}

impl KnownDecisions {
    /// Reads them from the store.
    pub async fn read(store: &dyn Store) -> Result<KnownDecisions, StoreError> {
        Ok(KnownDecisions {
            decisions: store.decisions().await?,
            definitions: store.definitions().await?,
        })
    }

    /// What a store has lost that was known before: it never forgets a decision by itself, and each is later than the
    /// one before.
    pub fn lost_in(&self, store: &KnownDecisions) -> KnownDecisions {
        let decisions = self.decisions.iter().filter(|(name, own)| {
            let stored = store.decisions.get(*name);
            stored.is_none_or(|stored| stored.at_ms < own.at_ms)
        });
        let definitions = self.definitions.iter();
        let definitions = definitions.filter(|(name, _)| !store.definitions.contains_key(*name));
        let owned = |(name, it): (&String, &StoredDefinition)| (name.clone(), it.clone());
        KnownDecisions {
            decisions: decisions
                .map(|(name, it)| (name.clone(), it.clone()))
                .collect(),
            definitions: definitions.map(owned).collect(),
        }
    }

    /// Adds what a store has lost.
    pub fn add(&mut self, lost: KnownDecisions) {
        self.decisions.extend(lost.decisions);
        self.definitions.extend(lost.definitions);
    }

    /// Stores what the store has lost.
    pub async fn restore(
        &self,
        store: &dyn Store,
        stored: &KnownDecisions,
    ) -> Result<(), StoreError> {
        if !self.definitions.is_empty() {
            store.define(&self.definitions).await?;
        }
        for (name, decision) in &self.decisions {
            let before = stored.decisions.get(name);
            FileDecision::restored(name, before, decision)
                .record(store)
                .await?;
        }
        Ok(())
    }

    /// What is to be stored once this plan of a file is served: changed definitions, and decisions that no
    /// longer hold under it.
    pub fn changes(&self, plan: &Plan, now_ms: u64) -> (StoredDefinitions, Vec<FileDecision>) {
        let mut changed = StoredDefinitions::new();
        let mut decisions = Vec::new();
        for (name, text) in &plan.definitions {
            let before = self.definitions.get(name);
            let next = StoredDefinition {
                text: text.clone(),
                at_ms: match before {
                    Some(before) if before.text == *text => before.at_ms,
                    _ => now_ms,
                },
                left_ms: None,
                retired: false,
                has_ramp: Some(ramp_of(plan, name).is_some()),
            };
            if before != Some(&next) {
                changed.insert(name.clone(), next);
            }
            let Some(decision) = self.decisions.get(name) else {
                continue;
            };
            if self.has_superseded(name, text) {
                decisions.push(FileDecision::end_of_promotion(name, decision, now_ms));
            } else if let Some(position) = &decision.ramp
                && self.has_left_ramp(plan, name)
            {
                decisions.push(FileDecision::end_of_ramp(name, decision, position, now_ms));
            }
        }
        for (name, before) in &self.definitions {
            if plan.definitions.contains_key(name) {
                continue;
            }
            let next = StoredDefinition {
                left_ms: before.left_ms.or(Some(now_ms)),
                retired: before.retired || is_retired(plan, name),
                ..before.clone()
            };
            if *before != next {
                changed.insert(name.clone(), next);
            }
        }
        (changed, decisions)
    }

    /// What the store knows once it has the changes of a plan.
    pub fn after(&self, plan: &Plan, now_ms: u64) -> KnownDecisions {
        let (changed, decisions) = self.changes(plan, now_ms);
        let mut after = self.clone();
        after.definitions.extend(changed);
        for decision in decisions {
            let (name, next) = decision.into_standing();
            after.decisions.insert(name, next);
        }
        after
    }

    /// Whether a file has an experiment again whose promotion stayed in effect without it, as another one:
    /// the promotion was of other versions.
    fn has_superseded(&self, name: &str, text: &str) -> bool {
        let decision = self.decisions.get(name);
        let is_promoted = decision.is_some_and(|it| it.state == DecidedState::Promoted);
        let before = self.definitions.get(name);
        is_promoted
            && before.is_some_and(|before| {
                let is_same = || is_same_version(&before.text, text);
                before.left_ms.is_some() && (before.retired || !is_same())
            })
    }

    /// Whether the ramp that the position of an experiment belongs to has ended: the file has none, or the file before had
    /// none, or the experiment had left it. A ramp that is written later begins with its first step, also where
    /// a replica that still had the earlier file has stored a position since.
    fn has_left_ramp(&self, plan: &Plan, name: &str) -> bool {
        let before = self.definitions.get(name);
        let decision = self.decisions.get(name);
        let is_running = decision.is_some_and(|it| it.state == DecidedState::Running);
        // Whom a promotion gave one version while the experiment was away, a ramp can go on with.
        let has_left = before.is_some_and(|before| before.left_ms.is_some());
        let is_new = before.is_some_and(|before| before.has_ramp == Some(false));
        ramp_of(plan, name).is_none() || is_new || (has_left && is_running)
    }

    /// Planned times that have passed and are not stored yet.
    pub fn passed_times(&self, plan: &Plan, now_ms: u64) -> Vec<FileDecision> {
        file_decisions::passed_times(plan, (&self.decisions, &self.definitions), now_ms)
    }

    /// Applies schedules and decisions to the plan of a file that is not served yet. Says, too, whom it affects by
    /// what it makes of promotions that are in effect: it ends one, gives its users another version, or holds for
    /// other requests.
    pub fn preview(&self, plan: &Plan, now_ms: u64) -> (DecidedPlan, Vec<String>) {
        let decided = self.apply(plan, now_ms);
        let effects = self.effects_on_promotions(plan, &decided);
        (decided, effects)
    }

    fn effects_on_promotions(&self, plan: &Plan, decided: &DecidedPlan) -> Vec<String> {
        let before = self.definitions.iter();
        let effects = before.filter_map(|(name, before)| {
            let decision = self.decisions.get(name);
            let in_effect = before.left_ms.is_none() || !before.retired;
            if before.left_ms.is_none() && plan.experiment_named(name).is_none() {
                let ended = left_after_decision(plan, name, before, decision);
                if ended.is_some() {
                    return ended;
                }
            }
            let promoted = promoted(plan, name, before, decision).filter(|_| in_effect);
            let (kept, old, _) = promoted?.ok()?;
            let is_kept = |it: &KeptPromotion| it.experiment == *name;
            let is_lost = |it: &LostPromotion| it.promotion.experiment == *name;
            if decided.kept.iter().any(is_kept) || decided.lost.iter().any(is_lost) {
                return None;
            }
            self.effect_on(&kept, (before, &old), plan, decided)
        });
        let retired = plan.retired.iter();
        let unknown = retired.filter(|name| !self.definitions.contains_key(&***name));
        let unknown =
            unknown.map(|name| format!("`retired` names {name}, of which the store knows nothing"));
        effects.chain(unknown).collect()
    }

    /// Says what a file makes of a promotion that does not stay in effect without its experiment.
    fn effect_on(
        &self,
        promotion: &KeptPromotion,
        (before, old): (&StoredDefinition, &Plan),
        plan: &Plan,
        decided: &DecidedPlan,
    ) -> Option<String> {
        let KeptPromotion {
            experiment: name,
            by,
            default,
            ..
        } = promotion;
        let ends = |why: &str| {
            Some(format!(
                "the file ends the promotion of {name} by {by}: {why}"
            ))
        };
        let Some(index) = plan.experiment_named(name) else {
            return ends(&format!(
                "its users get what the file says (default: {default})"
            ));
        };
        let own = decided.plan.experiment(index);
        let Some(winner) = own.winner.map(|winner| &own.groups[winner.0]) else {
            let why = match old
                .experiments
                .first()
                .is_some_and(|it| it.salt != own.salt)
            {
                true => "another `salt` makes another experiment, which divides its users anew",
                false if before.left_ms.is_some() => {
                    "the file has another experiment of this name, which divides its users"
                }
                false => "the file names no `winner`, so it divides its users",
            };
            return ends(why);
        };
        let version = |group: &Group| {
            let upstream = group.upstream.map(|it| &decided.plan.upstream(it).name);
            upstream.map_or(group.name.to_string(), |it| {
                format!("{} (upstream {it})", group.name)
            })
        };
        let (was, is) = (promotion.version(), version(winner));
        let old = old.experiments.first()?;
        let [from, to] = [old, own].map(|it| it.matcher.condition().to_string());
        let mut changes = Vec::new();
        changes.extend((was != is).then(|| format!("matching users get {is} instead of {was}")));
        changes.extend((from != to).then(|| {
            format!("it holds for {to} instead of {from}; other requests get what the file says otherwise (default: {default})")
        }));
        let changes = (!changes.is_empty()).then(|| changes.join("; "));
        changes
            .map(|changes| format!("the file changes the promotion of {name} by {by}: {changes}"))
    }

    /// Applies schedules and decisions to the plan of a file.
    pub fn apply(&self, plan: &Plan, now_ms: u64) -> DecidedPlan {
        let of_file = plan;
        let mut plan = of_file.clone();
        let mut lost = Vec::new();
        plan.keep_schedules(now_ms);
        for experiment in plan.experiments.iter_mut() {
            let name = &*experiment.name;
            let text = plan.definitions.get(name).map_or("", String::as_str);
            let decision = self.decisions.get(name);
            let decision = decision.filter(|it| it.salt == *experiment.salt);
            let Some(decision) = decision.filter(|_| !self.has_superseded(name, text)) else {
                continue;
            };
            // A winner in the file takes precedence.
            if !experiment.ended_by_file {
                let has_left_ramp = decision.ramp.is_some() && self.has_left_ramp(of_file, name);
                let position = decision.ramp.as_ref().filter(|_| !has_left_ramp);
                decide(experiment, decision, position);
                lost.extend(without_group(of_file, experiment, decision));
            }
        }
        let mut decided = DecidedPlan {
            plan,
            kept: Vec::new(),
            lost,
        };
        decided.keep_promotions(self);
        decided
    }
}

impl DecidedPlan {
    /// The plan, unless a promotion cannot stay in effect under it.
    pub fn sound(self, file: Option<&Path>) -> Result<Plan, InvalidConfig> {
        match self.problems(file) {
            Some(invalid) => Err(invalid),
            None => Ok(self.plan),
        }
    }

    /// What is wrong with the file, if there is anything.
    pub fn problems(&self, file: Option<&Path>) -> Option<InvalidConfig> {
        let diagnostics = self.lost.iter().map(|lost| lost.diagnostic(file));
        let diagnostics: Vec<Diagnostic> = diagnostics.collect();
        let files = file.map(Path::to_owned).into_iter().collect();
        (!diagnostics.is_empty()).then_some(InvalidConfig { diagnostics, files })
    }

    /// Adds the experiments that have left the file after a promotion, behind those of the file: the latest
    /// promotion first, because it was made among users of the earlier ones.
    fn keep_promotions(&mut self, known: &KnownDecisions) {
        let gone = known.definitions.iter().filter(|(name, before)| {
            let is_in_file = self.plan.experiment_named(name).is_some();
            !is_in_file && !before.retired && !is_retired(&self.plan, name)
        });
        let promoted = gone.filter_map(|(name, before)| {
            let decision = known.decisions.get(name);
            promoted(&self.plan, name, before, decision)
        });
        let mut promoted: Vec<_> = promoted
            .filter_map(|it| it.map_err(|lost| self.lost.push(lost)).ok())
            .collect();
        promoted.sort_by_key(|(kept, ..)| Reverse(kept.at_ms));
        let mut added = Vec::new();
        for (kept, before, group) in promoted {
            match restored(&mut self.plan, &before, group) {
                Some(experiment) => {
                    added.push(experiment);
                    self.kept.push(kept);
                }
                None => self.lost.push(LostPromotion {
                    promotion: kept,
                    why: LossReason::NoUpstream,
                }),
            }
        }
        if !added.is_empty() {
            let of_file = self.plan.experiments.to_vec();
            let all: Vec<Experiment> = of_file.into_iter().chain(added).collect();
            self.plan.experiments = Experiments::from(all);
        }
        for kept in &mut self.kept {
            if let Some(index) = self.plan.experiment_named(&kept.experiment) {
                kept.except = self.plan.winner_is_not_for(index);
            }
        }
    }
}

fn is_retired(plan: &Plan, name: &str) -> bool {
    plan.retired.iter().any(|retired| **retired == *name)
}

fn ramp_of<'a>(plan: &'a Plan, experiment: &str) -> Option<&'a Ramp> {
    let index = plan.experiment_named(experiment)?;
    plan.experiment(index).ramp.as_ref()
}

fn decide(
    experiment: &mut Experiment,
    decision: &StandingDecision,
    position: Option<&RampPosition>,
) {
    let named = |name: &String| experiment.group_named(name);
    let group = decision.group.as_ref().and_then(named);
    let weights = weights(experiment, decision);
    (experiment.lifecycle, experiment.winner) = match decision.state {
        DecidedState::Running => (experiment.lifecycle, None),
        DecidedState::Paused => (Lifecycle::Paused, Some(experiment.control)),
        // A group that no longer exists cannot be served.
        DecidedState::Promoted => (
            Lifecycle::Promoted,
            Some(group.unwrap_or(experiment.control)),
        ),
        DecidedState::RolledBack => (Lifecycle::RolledBack, Some(experiment.control)),
    };
    if let Some(weights) = weights {
        experiment.reweigh(&weights);
    }
    if let (Some(position), Some(ramp)) = (position, &experiment.ramp) {
        let step = ramp.steps[ramp.step_of(position.share)].clone();
        experiment.admit(&step);
    }
}

/// The weights of a decision, where the file leaves them to it, and the groups are still the same.
fn weights(experiment: &Experiment, decision: &StandingDecision) -> Option<Vec<Weight>> {
    experiment.allocation.as_ref()?;
    let weight = |group: &Group| Weight::new(*decision.weights.get(&*group.name)?);
    let weights: Option<Vec<Weight>> = experiment.groups.iter().map(weight).collect();
    weights.filter(|weights| weights.len() == decision.weights.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn position_that_was_stored_after_its_ramp_had_left_the_file_does_not_hold_for_a_new_one() {
        let plan = |experiment: &str| {
            let text = format!(
                "upstreams: {{ a: http://127.0.0.1:1, b: http://127.0.0.1:2 }}\n\
                 experiments: {{ site: {{ control: a, experiment: b, {experiment} }} }}\n"
            );
            config::parse(&text, Path::new("routes.yaml"), &|_| None).unwrap()
        };
        let ramp = plan("ramp: [1% for 1h, 100%]");
        let others = [plan("percent: 50"), plan("min_duration: 0s")];
        let wider = plan("ramp: [1% for 1h, 20% for 1h, 100%], min_duration: 0s");
        let salt = &ramp.experiments[0].salt;
        let mut decision = StandingDecision::running(salt, None, 5, "watershed (ramp)");
        decision.ramp = Some(RampPosition::begin(0.01, 5));
        // What the store has after this file, with a position that came late.
        let known = |file: &Plan| {
            let known = KnownDecisions::default().after(file, 1);
            let decisions = [("site".to_owned(), decision.clone())].into();
            KnownDecisions { decisions, ..known }
        };
        let ends = |before: &Plan, next: &Plan| {
            let (_, decisions) = known(before).changes(next, 9);
            let after = known(before).after(next, 9);
            assert_eq!(
                after.decisions["site"].ramp.is_none(),
                !decisions.is_empty()
            );
            !decisions.is_empty()
        };
        for without in others {
            assert!(ends(&ramp, &without) && ends(&without, &ramp));
        }
        assert!(!ends(&ramp, &ramp) && !ends(&ramp, &wider));
    }
}
