//! Families of how many users are needed.

use super::shape::{need, need_positive, need_share, read, usual_alpha};
use crate::stats::planning::{self, SampleSizePlan};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct SampleSize {
    p_control: f64,
    lift: f64,
    #[serde(default = "usual_alpha")]
    alpha: f64,
    power: f64,
    #[serde(rename = "ratio_B_over_A")]
    ratio: f64,
}

pub(super) fn sample_size(inputs: &str) -> Result<Value, String> {
    let asked: SampleSize = read(inputs)?;
    need_share("p_control", asked.p_control)?;
    need_share(
        "p_control × (1 + lift)",
        asked.p_control * (1.0 + asked.lift),
    )?;
    need_share("alpha", asked.alpha)?;
    need_share("power", asked.power)?;
    need_positive("ratio_B_over_A", asked.ratio)?;
    need(asked.lift != 0.0, "`lift` must not be 0")?;
    let size = planning::sample_size(&SampleSizePlan {
        share: asked.p_control,
        lift: asked.lift,
        alpha: asked.alpha,
        power: asked.power,
        ratio: asked.ratio,
    });
    Ok(json!({
        "nA_unpooled": size.unpooled,
        "nA_pooled_null": size.pooled_null,
        "total_unpooled": size.unpooled * (1.0 + asked.ratio),
    }))
}

#[derive(Deserialize)]
struct EffectSize {
    effect_over_sd: f64,
    #[serde(default = "usual_alpha")]
    alpha: f64,
    power: f64,
    ratio: f64,
}

pub(super) fn sample_size_std_effect(inputs: &str) -> Result<Value, String> {
    let asked: EffectSize = read(inputs)?;
    need(
        asked.effect_over_sd != 0.0,
        "`effect_over_sd` must not be 0",
    )?;
    need_share("alpha", asked.alpha)?;
    need_share("power", asked.power)?;
    need_positive("ratio", asked.ratio)?;
    let n1 = planning::sample_size_of_effect(
        asked.effect_over_sd,
        asked.alpha,
        asked.power,
        asked.ratio,
    );
    Ok(json!({"n1": n1}))
}

#[derive(Deserialize)]
struct AbsoluteSize {
    p_control: f64,
    absolute_mde: f64,
    #[serde(default = "usual_alpha")]
    alpha: f64,
    power: f64,
}

pub(super) fn published_sample_size_evan_miller(inputs: &str) -> Result<Value, String> {
    let asked: AbsoluteSize = read(inputs)?;
    need_share("p_control", asked.p_control)?;
    need_share(
        "p_control + absolute_mde",
        asked.p_control + asked.absolute_mde,
    )?;
    need_share("alpha", asked.alpha)?;
    need_share("power", asked.power)?;
    need(asked.absolute_mde != 0.0, "`absolute_mde` must not be 0")?;
    let size = planning::sample_size_of_difference(
        asked.p_control,
        asked.absolute_mde,
        asked.alpha,
        asked.power,
    );
    Ok(json!({"per_arm": size}))
}
