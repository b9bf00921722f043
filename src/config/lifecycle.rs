//! What ends an experiment: a winner in the file, or a verdict that takes effect by itself.

use super::reader::Node;
use crate::experiment::{ActOn, Group, GroupIndex};

/// Reads `winner:`, the group whose version everybody gets.
pub fn winner(experiment: &Node<'_>, groups: &[Group]) -> Option<GroupIndex> {
    let winner = experiment.get("winner")?;
    let text = winner.text("the name of a group")?;
    let place = groups.iter().position(|group| &*group.name == text);
    if place.is_none() {
        winner.unknown("group", text, groups.iter().map(|group| &*group.name));
    }
    place.map(GroupIndex)
}

/// Reads `act_on:`, the verdicts that take effect by themselves.
pub fn act_on(experiment: &Node<'_>) -> ActOn {
    let items = experiment.get("act_on").map(|node| node.items());
    let mut act_on = ActOn::default();
    for item in items.unwrap_or_default() {
        match item.word(&[("winner", true), ("loser", false)]) {
            Some(true) => act_on.winner = true,
            Some(false) => act_on.loser = true,
            None => {}
        }
    }
    act_on
}
