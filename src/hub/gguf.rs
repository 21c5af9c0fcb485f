//! A checkpoint as a GGUF file, which llama.cpp loads: names, keys, and tensors in blocks.
//!
//! llama.cpp pairs neighbours in rotary heads of its `llama` and halves in those of `qwen2` and
//! `qwen3`: only the first has its rows of queries and keys turned.

use octet_actors::outside::{Disk, DiskFile};
use octet_kernels::dtype::DType;

pub use blocks::GgmlType;
use header::{ALIGNMENT, Placed, Value, header};

use super::export::{Damage, Export, Exported, Source, check_space};
use super::families::{family_of, rows_of};
use super::reading::Reading;
use super::staging::Staging;
use super::table::{Line, Part, Row, Way, line};
use super::tensors::Tensors;
use super::{card, gpt2, llama};
use crate::failure::Failure;
use crate::models::dense::RopeScaling;
use crate::models::{DenseConfig, FamilyConfig};
use crate::run_data;

mod blocks;
mod header;
mod vocabulary;

/// The names of all architectures.
const LINES: [Line; 13] = [
    line("embedding", &["token_embd"], Way::Tokens),
    line("positions", &["position_embd"], Way::Same),
    line("blocks.{}.attention_norm", &["blk.{}.attn_norm"], Way::Same),
    line("blocks.{}.attention.qkv", &["blk.{}.attn_q", "blk.{}.attn_k", "blk.{}.attn_v"], Way::Qkv),
    line("blocks.{}.attention.q_norm", &["blk.{}.attn_q_norm"], Way::Same),
    line("blocks.{}.attention.k_norm", &["blk.{}.attn_k_norm"], Way::Same),
    line("blocks.{}.attention.output", &["blk.{}.attn_output"], Way::Same),
    line("blocks.{}.feed_forward_norm", &["blk.{}.ffn_norm"], Way::Same),
    line("blocks.{}.feed_forward.up", &["blk.{}.ffn_up"], Way::Same),
    line("blocks.{}.feed_forward.gate_up", &["blk.{}.ffn_gate", "blk.{}.ffn_up"], Way::Halves),
    line("blocks.{}.feed_forward.down", &["blk.{}.ffn_down"], Way::Same),
    line("final_norm", &["output_norm"], Way::Same),
    line("head", &["output"], Way::Tokens),
];

/// The names of an architecture.
fn lines(architecture: &str) -> Vec<Line> {
    let mut lines = LINES.to_vec();
    for line in lines.iter_mut().filter(|line| line.way == Way::Qkv) {
        match architecture {
            "gpt2" => (line.theirs, line.way) = (&["blk.{}.attn_qkv"], Way::Same),
            "llama" => line.way = Way::TurnedQkv,
            _ => {}
        }
    }
    lines
}

/// What llama.cpp calls the model, unless it computes another one.
fn architecture(model_type: &'static str, model: &DenseConfig) -> Result<&'static str, Failure> {
    let refuse = |what: &str| Err(Failure::user(format!("--to gguf: {what}")));
    if model.window.is_some() {
        return refuse("model.window: llama.cpp's models of these families see no windows");
    }
    match model.rope_scaling {
        Some(RopeScaling::Yarn { .. }) => {
            refuse("model.rope_scaling: llama.cpp stretches by YaRN in another way")
        }
        Some(RopeScaling::Llama3 { .. }) if model_type != llama::LLAMA.model_type => {
            refuse("model.rope_scaling: llama.cpp knows llama3's for its llama only")
        }
        _ => Ok(model_type),
    }
}

/// Exports one checkpoint.
///
/// # Errors
/// [`Damage`]; nothing is left then.
pub(super) fn export_one(
    disk: &dyn Disk,
    job: &Export,
    kind: GgmlType,
    source: &Source,
    stop: &dyn Fn() -> bool,
) -> Result<Exported, Damage> {
    let config = &source.run.config;
    let (family, _) = family_of(config)?;
    let FamilyConfig::Dense(model) = &config.model.family else {
        let family = family.model_type;
        let what = format!("--to gguf: {family}: llama.cpp goes on with texts, and it does not");
        return Err(Failure::user(what).into());
    };
    let architecture = architecture(family.model_type, model)?;
    let rows = rows_of(&lines(architecture), config)?;
    let vocabulary = config.model.vocabulary.unwrap_or(0);
    let tokenizer = run_data::tokenizer(&source.run.folder)?;
    let mut keys = keys(source, architecture, model, kind);
    let words = vocabulary::keys(&tokenizer, vocabulary)
        .map_err(|what| Failure::user(format!("--to gguf: the tokenizer: {what}")))?;
    keys.extend(words);
    let tensors = Tensors::of_checkpoint(&source.folder, &source.manifest)
        .map_err(|failure| Damage::Checkpoint(failure.what))?;
    let factors = rope_factors(model);
    let parts = || rows.iter().flat_map(|row| row.parts.iter());
    let mut placed: Vec<Placed> = parts().map(|part| place(part, kind)).collect();
    placed.extend(factors.as_ref().map(|factors| Placed {
        name: "rope_freqs.weight".to_owned(),
        shape: vec![factors.len()],
        kind: GgmlType::F32,
    }));
    let bytes = placed.iter().map(Placed::bytes).sum();
    let staging = Staging::begin(disk, &job.folder)?;
    check_space(disk, job, bytes)?;
    let name = format!("model-{}.gguf", kind.name());
    let file = disk.create(&staging.path(&name)).map_err(Failure::world)?;
    let mut writer = Writer { file, source, tensors: &tensors, stop };
    writer.write(&header(&keys, &placed))?;
    writer.write_rows(&rows, &placed)?;
    if let (Some(factors), Some(place)) = (&factors, placed.last()) {
        writer.write_values(factors, place)?;
    }
    writer.file.sync().map_err(Failure::world)?;
    let exported = Exported {
        step: source.manifest.step,
        digest: source.manifest.digest.clone(),
        architecture,
        parameters: parts().map(Part::elements).sum(),
        bytes,
        shards: 1,
        notes: Vec::new(),
    };
    let card = card::write(source, &exported, kind.name(), &job.command);
    staging.write("README.md", card.as_bytes())?;
    staging.publish()?;
    Ok(exported)
}

/// A matrix has the type that was asked for, where its rows are whole blocks; vectors are small,
/// and positions are added to what they must be as exact as.
fn place(part: &Part, kind: GgmlType) -> Placed {
    let matrix = part.shape.len() == 2 && !part.name.starts_with("position_embd");
    let kind = if matrix { kind.for_rows(part.shape[1]) } else { GgmlType::F32 };
    Placed { name: part.name.clone(), shape: part.shape.clone(), kind }
}

/// What Llama 3.1 divides the frequency of each pair by.
fn rope_factors(model: &DenseConfig) -> Option<Vec<f32>> {
    let Some(RopeScaling::Llama3 { factor, low_frequency, high_frequency, original_positions }) =
        model.rope_scaling
    else {
        return None;
    };
    let head_dim = model.head_dim();
    let of = |pair: usize| {
        let frequency = model.rope_theta.powf(-2.0 * pair as f64 / head_dim as f64);
        let turns = original_positions as f64 * frequency / std::f64::consts::TAU;
        let kept = ((turns - low_frequency) / (high_frequency - low_frequency)).clamp(0.0, 1.0);
        (1.0 / (kept + (1.0 - kept) / factor)) as f32
    };
    Some((0..head_dim / 2).map(of).collect())
}

fn keys(
    source: &Source,
    architecture: &str,
    model: &DenseConfig,
    kind: GgmlType,
) -> Vec<(String, Value)> {
    let config = &source.run.config;
    let folder = std::path::absolute(&source.run.folder);
    let folder = folder.unwrap_or_else(|_| source.run.folder.clone());
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let whole = |number: usize| Value::Whole(u32::try_from(number).unwrap_or(u32::MAX));
    let number = |number: f64| Value::Number(number as f32);
    let positions = model.max_positions.unwrap_or(config.batch.sequence_length);
    let mut keys = vec![
        ("general.architecture".to_owned(), Value::Text(architecture.to_owned())),
        ("general.name".to_owned(), Value::Text(name)),
        ("general.alignment".to_owned(), whole(ALIGNMENT)),
        ("general.file_type".to_owned(), Value::Whole(kind.file_type())),
        ("general.quantization_version".to_owned(), Value::Whole(2)),
    ];
    let mut own = vec![
        ("context_length", whole(positions)),
        ("embedding_length", whole(model.width)),
        ("block_count", whole(model.layers)),
        ("feed_forward_length", whole(model.feed_forward())),
        ("attention.head_count", whole(model.heads)),
        ("attention.head_count_kv", whole(model.kv_heads())),
        ("vocab_size", whole(config.model.vocabulary.unwrap_or(0))),
    ];
    if architecture == gpt2::GPT2.model_type {
        own.push(("attention.layer_norm_epsilon", number(model.norm_epsilon)));
    } else {
        own.extend([
            ("attention.layer_norm_rms_epsilon", number(model.norm_epsilon)),
            ("attention.key_length", whole(model.head_dim())),
            ("attention.value_length", whole(model.head_dim())),
            ("rope.dimension_count", whole(model.head_dim())),
            ("rope.freq_base", number(model.rope_theta)),
        ]);
    }
    if let Some(RopeScaling::Linear { factor }) = model.rope_scaling {
        own.push(("rope.scaling.type", Value::Text("linear".to_owned())));
        own.push(("rope.scaling.factor", number(factor)));
    }
    keys.extend(own.into_iter().map(|(key, value)| (format!("{architecture}.{key}"), value)));
    keys
}

/// Writes tensors.
struct Writer<'a> {
    file: Box<dyn DiskFile>,
    source: &'a Source,
    tensors: &'a Tensors,
    stop: &'a dyn Fn() -> bool,
}

impl Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(Failure::world)
    }

    fn write_values(&mut self, values: &[f32], place: &Placed) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        place.kind.encode(values, &mut bytes);
        bytes.resize(bytes.len() + place.padding(), 0);
        self.write(&bytes)
    }

    fn write_rows(&mut self, rows: &[Row], placed: &[Placed]) -> Result<(), Damage> {
        let mut placed = placed.iter();
        for row in rows {
            let mut reading = Reading::new(self.source, self.tensors, row)?;
            for (part, place) in row.parts.iter().zip(&mut placed) {
                // Values that are no whole block yet.
                let (mut left, mut bytes) = (Vec::new(), Vec::new());
                let block = place.kind.block_elements();
                let limit = if place.kind == GgmlType::F16 { DType::F16 } else { DType::F32 };
                let file = &mut self.file;
                reading.part(part, limit, self.stop, &mut |values| {
                    left.extend_from_slice(values);
                    let whole = left.len() / block * block;
                    bytes.clear();
                    place.kind.encode(&left[..whole], &mut bytes);
                    left.drain(..whole);
                    file.write_all(&bytes).map_err(Failure::world)
                })?;
                assert!(left.is_empty(), "{} is whole blocks", place.name);
                self.write(&vec![0; place.padding()])?;
            }
            reading.finish()?;
        }
        Ok(())
    }
}
