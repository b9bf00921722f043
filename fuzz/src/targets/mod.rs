//! What is tried with each input, by target.

pub mod answer;
pub mod body;
pub mod events;
pub mod identity;
pub mod journal;
pub mod lines;
pub mod matcher;
pub mod opening;
pub mod request;
pub mod tokens;
pub mod transcript;
