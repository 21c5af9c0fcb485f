//! The sections that belong to the run as a whole.
//!
//! Duty: keys, defaults, and the checks of one section. Sections of models, objectives, data, the
//! optimizer and the learning rate stand with their owners.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use octet_actors::outcome::DEPTH_MAX;
use octet_actors::rank_memory::Zero;
use octet_actors::recovery::{Policy, ROLLBACKS_MAX, WINDOW_MAX};
use octet_actors::snapshot::SLOTS;
use octet_kernels::graph::layout::{BLOCK_ELEMENTS, BUCKET_ELEMENTS};
use octet_kernels::graph::{Granularity, Variables};
use serde::{Deserialize, Serialize};

use super::bytes::Bytes;
use super::error::{Invalid, require};

/// `[run]`: how long, on what, and with which numbers.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// Optimizer steps. At least 1.
    pub steps: u64,
    /// Seed of everything random.
    pub seed: u64,
    /// Devices, or simulated devices on the CPU. At most `batch.lanes`. At least 1.
    pub ranks: usize,
    /// `"cuda"` takes a GPU for every rank; `"auto"` does where there are so many that will do, and
    /// else the CPU, with a word if there are any.
    pub device: Device,
    /// What multiplies matrices on GPUs: `"auto"` is cuBLASLt where it is found, `"own"` kernels of
    /// our own. Part of a run's identity there, with cuBLASLt's version.
    pub products: ProductsConfig,
    /// The same bits for any number of ranks. `false`, which will allow the fastest routes, is
    /// refused until there are any.
    pub deterministic: bool,
    /// ZeRO stage: 0 keeps the optimizer state on every rank, 1 shards it.
    pub zero: u8,
    /// Gradients of a bucket, which ranks sum and update at once: so many bytes of them in fp32,
    /// rounded up to a multiple of 256 KiB. By default 16 MiB for models below 2^30 parameters, and
    /// 64 MiB above. From "256 KiB" to "2 GiB".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<Bytes>,
    /// Threads of a rank on the CPU; by default the cores shared among the ranks. From 1 to 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Steps that devices are given before the first of them has said how it went, from 1 to 2.
    /// With 2 a GPU does not wait between steps for whoever reads how one went; one that overflows
    /// costs the work of the one behind it.
    pub depth: usize,
    /// States that host memory keeps, from 0 to 2: from the newest a run goes on when its engine
    /// dies. With 0 a state passes through a file of the run folder on its way to a checkpoint, at
    /// the disk's pace, and only checkpoints are gone on from. By default as many as the host has
    /// memory for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<usize>,
    /// Seconds for which a rank, or whoever else works, may show no sign of life; then it is named,
    /// and another engine goes on from the newest state. 600 by default. From 1 to 1000000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<u64>,
}

/// The kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// CUDA where there is a GPU, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// CUDA.
    Cuda,
}

/// `run.products`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProductsConfig {
    /// cuBLASLt, where it is found.
    #[default]
    Auto,
    /// Kernels of our own.
    Own,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            steps: 1000,
            seed: 1337,
            ranks: 1,
            device: Device::Auto,
            products: ProductsConfig::Auto,
            deterministic: true,
            zero: 1,
            bucket: None,
            threads: None,
            depth: 1,
            snapshots: None,
            patience: None,
        }
    }
}

/// Trainable parameters from which buckets are larger by default.
const LARGE_MODEL: usize = 1 << 30;

/// Their buckets' size, in elements.
const LARGE_BUCKET: usize = 4 * BUCKET_ELEMENTS;

/// Smallest and largest bucket: a block, and what a message can be.
const BUCKET_BYTES: RangeInclusive<u64> = 4 * BLOCK_ELEMENTS as u64..=2 << 30;

/// Most threads of a rank.
const THREADS_MAX: usize = 1024;

/// Longest patience, in seconds.
const PATIENCE_MAX: u64 = 1_000_000;

impl RunConfig {
    /// Where the optimizer state lies.
    pub fn placement(&self) -> Zero {
        if self.zero == 0 { Zero::Zero0 } else { Zero::Zero1 }
    }

    /// How finely the parameters are cut.
    pub fn granularity(&self, variables: &Variables) -> Granularity {
        let trained = variables.parameters().iter().filter(|p| p.trainable);
        let trained: usize = trained.map(|p| p.elements()).sum();
        let default = if trained < LARGE_MODEL { BUCKET_ELEMENTS } else { LARGE_BUCKET };
        let elements = |bytes: Bytes| (bytes.0 as usize / 4).next_multiple_of(BLOCK_ELEMENTS);
        Granularity { block: BLOCK_ELEMENTS, bucket: self.bucket.map_or(default, elements) }
    }

    pub(super) fn validate(&self) -> Result<(), Invalid> {
        if let Some(Bytes(bytes)) = self.bucket {
            let wanted = "a size from \"256 KiB\" to \"2 GiB\"";
            require(BUCKET_BYTES.contains(&bytes), "run.bucket", || expected(wanted, bytes))?;
        }
        require(self.steps > 0, "run.steps", || expected("at least 1", self.steps))?;
        require(self.ranks > 0, "run.ranks", || expected("at least 1", self.ranks))?;
        let faster = || expected("true, since no route of this build is faster without it", false);
        require(self.deterministic, "run.deterministic", faster)?;
        require(self.zero <= 1, "run.zero", || expected("0 or 1", self.zero))?;
        let depths = 1..=DEPTH_MAX;
        require(depths.contains(&self.depth), "run.depth", || expected("1 or 2", self.depth))?;
        let snapshots = self.snapshots.unwrap_or(SLOTS);
        require(snapshots <= SLOTS, "run.snapshots", || expected("0, 1 or 2", snapshots))?;
        let threads = self.threads.unwrap_or(1);
        let wanted = format!("a number from 1 to {THREADS_MAX}");
        let usable = (1..=THREADS_MAX).contains(&threads);
        require(usable, "run.threads", || expected(&wanted, threads))?;
        let patience = self.patience.unwrap_or(1);
        let wanted = format!("a number from 1 to {PATIENCE_MAX}");
        let usable = (1..=PATIENCE_MAX).contains(&patience);
        require(usable, "run.patience", || expected(&wanted, patience))
    }
}

/// `[checkpoint]`: what is kept on disk.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Steps between checkpoints; 0 for the last one only.
    pub every: u64,
    /// How many are kept. At least 1.
    pub keep: usize,
    /// Those whose step is a multiple of this stay for ever; 0 for none.
    pub keep_every: u64,
    /// So many of those with the smallest held-out loss, that of the first task, stay too.
    pub keep_best: usize,
    /// Steps between snapshots that stay in memory, from which the run goes on when its engine
    /// dies or when it rolls back; 0 for none but those that go to disk.
    pub memory_every: u64,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every: 500, keep: 3, keep_every: 0, keep_best: 0, memory_every: 0 }
    }
}

impl CheckpointConfig {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        require(self.keep > 0, "checkpoint.keep", || expected("at least 1", self.keep))
    }
}

/// `[recovery]`: what is done about bad updates, those whose loss or gradient is not finite (they
/// are skipped) or stands out among recent good ones.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecoveryConfig {
    /// Bad updates in a row that roll the run back to its last snapshot before them. At least 1.
    pub bad_updates: u32,
    /// Roll-backs of a run before it stops, saved; 0 stops at the first. At most 64.
    pub rollbacks: u32,
    /// Pass over the data from that snapshot on, instead of learning from it again.
    pub skip_data: bool,
    /// Good updates that the next one is compared with. At least 2, at most 256.
    pub window: usize,
    /// Standard deviations above the window's mean that make a loss a spike; 0 for never.
    pub loss_z: f64,
    /// The same for the gradient norm.
    pub norm_z: f64,
}

impl Default for RecoveryConfig {
    fn default() -> Self {
        let (bad_updates, rollbacks, skip_data) = (5, 3, true);
        Self { bad_updates, rollbacks, skip_data, window: 128, loss_z: 8.0, norm_z: 20.0 }
    }
}

impl RecoveryConfig {
    /// In the words of the runtime.
    pub fn policy(&self) -> Policy {
        let Self { bad_updates, rollbacks, skip_data, window, loss_z, norm_z } = *self;
        Policy { bad_updates, rollbacks, skip_data, window, loss_z, norm_z }
    }

    pub(super) fn validate(&self) -> Result<(), Invalid> {
        let updates = || expected("at least 1", self.bad_updates);
        require(self.bad_updates > 0, "recovery.bad_updates", updates)?;
        let most = format!("at most {ROLLBACKS_MAX}");
        let rollbacks = || expected(&most, self.rollbacks);
        require(self.rollbacks <= ROLLBACKS_MAX, "recovery.rollbacks", rollbacks)?;
        let span = format!("2 to {WINDOW_MAX} updates");
        let window = || expected(&span, self.window);
        require((2..=WINDOW_MAX).contains(&self.window), "recovery.window", window)?;
        for (key, z) in [("recovery.loss_z", self.loss_z), ("recovery.norm_z", self.norm_z)] {
            let usable = (0.0..f64::INFINITY).contains(&z);
            require(usable, key, || expected("a number of at least 0, and 0 for never", z))?;
        }
        Ok(())
    }
}

/// `[evaluate]`: the loss on held-out data.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluateConfig {
    /// Steps between evaluations, with one more at the end; 0 for none.
    pub every: u64,
    /// At most so many micro-batches of `batch.micro` windows, evenly spread over the held-out
    /// split; by default all of it. At least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batches: Option<u64>,
}

impl Default for EvaluateConfig {
    fn default() -> Self {
        Self { every: 500, batches: None }
    }
}

impl EvaluateConfig {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        require(self.batches != Some(0), "evaluate.batches", || expected("at least 1", 0))
    }
}

/// `[sample]`: text that the model writes while it is trained.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SampleConfig {
    /// Steps between samples, with one more at the end; 0 for none.
    pub every: u64,
    /// What the text begins with.
    pub prompt: String,
    /// Tokens to write. At least 1.
    pub tokens: usize,
    /// 0 takes the most likely token; 1 draws from the model's distribution.
    pub temperature: f64,
    /// Draws among the most likely tokens only; 0 for all.
    pub top_k: usize,
    /// Draws among the fewest tokens that have so much probability together; 1 for all. Above 0, at
    /// most 1.
    pub top_p: f64,
    /// Seed of the draws; by default `run.seed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Texts at once: no key of a file, but set where a run is made to write.
    #[serde(skip)]
    pub sequences: usize,
}

impl Default for SampleConfig {
    fn default() -> Self {
        Self {
            every: 0,
            prompt: "\n".to_owned(),
            tokens: 128,
            temperature: 0.8,
            top_k: 50,
            top_p: 1.0,
            seed: None,
            sequences: 1,
        }
    }
}

impl SampleConfig {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        require(self.tokens > 0, "sample.tokens", || expected("at least 1", self.tokens))?;
        let usable = (0.0..f64::INFINITY).contains(&self.temperature);
        let temperature = || expected("a number of at least 0", self.temperature);
        require(usable, "sample.temperature", temperature)?;
        let top_p = || expected("a number above 0 and at most 1", self.top_p);
        require(self.top_p > 0.0 && self.top_p <= 1.0, "sample.top_p", top_p)
    }
}

/// `[log]`: what is written beside the log of the steps.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Steps between two records of the fingerprint of every bucket, by which `octet diff` tells
    /// where two runs part; 0 for checkpoints of the schedule only, which always have one.
    pub fingerprints: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { fingerprints: 100 }
    }
}

/// `[web]`: metrics, dashboard and control over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebConfig {
    /// `"127.0.0.1:0"` picks a free port and writes it to `web.json`. No server by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

impl WebConfig {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        let Some(address) = &self.address else { return Ok(()) };
        let problem = || format!("expected ADDRESS:PORT like 127.0.0.1:0, got \"{address}\"");
        require(address.parse::<SocketAddr>().is_ok(), "web.address", problem)
    }
}

/// `expected …, got …`.
pub(crate) fn expected(what: &str, got: impl std::fmt::Display) -> String {
    format!("expected {what}, got {got}")
}
