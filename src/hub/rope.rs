//! `rope_scaling` of a `config.json`, and `rope_parameters`, as newer versions call it.

use serde_json::{Value, json};

use super::keys::Keys;
use crate::failure::Failure;
use crate::models::dense::RopeScaling;

/// The value of `rope_scaling`.
pub(super) fn write(scaling: Option<RopeScaling>) -> Value {
    match scaling {
        None => Value::Null,
        Some(RopeScaling::Linear { factor }) => json!({ "rope_type": "linear", "factor": factor }),
        Some(RopeScaling::Dynamic { factor }) => {
            json!({ "rope_type": "dynamic", "factor": factor })
        }
        Some(RopeScaling::Llama3 { factor, low_frequency, high_frequency, original_positions }) => {
            json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low_frequency,
                "high_freq_factor": high_frequency,
                "original_max_position_embeddings": original_positions,
            })
        }
        Some(RopeScaling::Yarn {
            factor,
            original_positions,
            beta_fast,
            beta_slow,
            attention_factor,
            truncate,
        }) => {
            let mut value = json!({
                "rope_type": "yarn",
                "factor": factor,
                "original_max_position_embeddings": original_positions,
                "beta_fast": beta_fast,
                "beta_slow": beta_slow,
                "truncate": truncate,
            });
            if let Some(factor) = attention_factor {
                value["attention_factor"] = factor.into();
            }
            value
        }
    }
}

/// The base of the frequencies, and how they are stretched.
///
/// # Errors
/// Bad input: a kind that Octet does not know, or one without its numbers.
pub(super) fn read(
    keys: &Keys<'_>,
    max_positions: usize,
) -> Result<(f64, Option<RopeScaling>), Failure> {
    let newer = keys.object("rope_parameters")?;
    let theta = match newer {
        Some(newer) => newer.number("rope_theta", None)?,
        None => keys.number("rope_theta", Some(10_000.0))?,
    };
    let Some(scaling) = newer.map_or_else(|| keys.object("rope_scaling"), |keys| Ok(Some(keys)))?
    else {
        return Ok((theta, None));
    };
    let key = if scaling.get("rope_type").is_some() { "rope_type" } else { "type" };
    let kind = scaling.word(key, Some("default"))?;
    if kind == "default" {
        return Ok((theta, None));
    }
    let factor = scaling.number("factor", None)?;
    let original = scaling.whole("original_max_position_embeddings", Some(max_positions))?;
    let read = match kind {
        "linear" => RopeScaling::Linear { factor },
        "dynamic" => RopeScaling::Dynamic { factor },
        "llama3" => RopeScaling::Llama3 {
            factor,
            low_frequency: scaling.number("low_freq_factor", None)?,
            high_frequency: scaling.number("high_freq_factor", None)?,
            original_positions: original,
        },
        "yarn" => RopeScaling::Yarn {
            factor,
            original_positions: original,
            beta_fast: scaling.number("beta_fast", Some(32.0))?,
            beta_slow: scaling.number("beta_slow", Some(1.0))?,
            attention_factor: attention_factor(&scaling, factor)?,
            truncate: scaling.flag("truncate", true)?,
        },
        other => {
            let what = format!(
                "expected \"linear\", \"dynamic\", \"llama3\" or \"yarn\", got \"{other}\""
            );
            return Err(scaling.refuse(key, &what));
        }
    };
    Ok((theta, Some(read)))
}

/// What YaRN multiplies cosines and sines with, if that does not follow from the factor alone.
fn attention_factor(scaling: &Keys<'_>, factor: f64) -> Result<Option<f64>, Failure> {
    if scaling.get("attention_factor").is_some() {
        return scaling.number("attention_factor", None).map(Some);
    }
    let [scale, all] = ["mscale", "mscale_all_dim"].map(|key| scaling.number(key, Some(0.0)));
    let (scale, all) = (scale?, all?);
    let of = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    Ok((scale != 0.0 && all != 0.0).then(|| of(scale) / of(all)))
}
