//! New tokens for a model that is imported: names in its `tokenizer.json`, rows in its embedding.

use serde_json::{Value, json};

/// Adds special tokens to a `tokenizer.json`, numbered from `first` on.
///
/// # Errors
/// One sentence: a token is there already, or the file is none.
pub(super) fn extend(json: &[u8], first: usize, tokens: &[String]) -> Result<Vec<u8>, String> {
    let mut whole: Value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let is_word = |name: &str| whole["model"]["vocab"].get(name).is_some();
    if let Some(token) = tokens.iter().find(|token| is_word(token)) {
        return Err(format!("it has a token {token} already"));
    }
    if whole["added_tokens"].is_null() {
        whole["added_tokens"] = json!([]);
    }
    let Some(added) = whole["added_tokens"].as_array_mut() else {
        return Err("added_tokens: expected a list".to_owned());
    };
    for (id, token) in (first..).zip(tokens) {
        if token.is_empty() || added.iter().any(|one| one["content"] == **token) {
            let what = if token.is_empty() { "an empty one cannot be added" } else { "" };
            return Err(match what {
                "" => format!("it has a token {token} already"),
                what => what.to_owned(),
            });
        }
        added.push(json!({
            "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true
        }));
    }
    serde_json::to_vec_pretty(&whole).map_err(|error| error.to_string())
}

/// Gives rows the mean of the first `known`: a new token begins as the average of all others.
/// Panics if the matrix has fewer rows.
pub(super) fn fill_with_mean(
    matrix: &mut [f32],
    width: usize,
    known: usize,
    rows: impl Iterator<Item = usize>,
) {
    let mut sum = vec![0.0f64; width];
    for row in matrix[..known * width].chunks_exact(width) {
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    let mean: Vec<f32> = sum.iter().map(|sum| (sum / known.max(1) as f64) as f32).collect();
    for row in rows {
        matrix[row * width..][..width].copy_from_slice(&mean);
    }
}
