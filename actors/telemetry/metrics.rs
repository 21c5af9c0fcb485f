//! The registry of metrics, and its text for Prometheus.
//!
//! Each run owns its own: no global recorder, so several runs in one process do not meet. Names
//! begin with `octet_`, units are base units (seconds, bytes), labels come from bounded sets. A
//! counter counts over the whole life of the run, through kills and rewinds.

use std::fmt;
use std::sync::Arc;

use metrics::{Counter, Gauge, Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

use super::resources::Resources;
use super::totals::{LastCheckpoint, Totals};
use crate::report::{Counts, EvaluationReport, StepReport};

/// Upper edges of the histogram of step times, in seconds.
const STEP_SECONDS: [f64; 15] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0];

const METADATA: Metadata<'static> = Metadata::new("octet", Level::INFO, None);

const GAUGES: [(&str, &str); 24] = [
    ("octet_step", "Optimizer steps done."),
    ("octet_tokens", "Tokens that the state of the run has seen."),
    ("octet_loss", "Mean training loss per target of the last step, in nats."),
    (
        "octet_track_loss",
        "Mean loss per target of the last step where there are several, by track.",
    ),
    ("octet_learning_rate", "Learning rate of the last step."),
    ("octet_grad_norm", "Global gradient norm of the last step, before clipping."),
    ("octet_tokens_per_second", "Tokens per second of the last step, all ranks."),
    ("octet_flops_per_second", "Model FLOP/s of the last step, all ranks; recompute never counts."),
    ("octet_mfu", "Model FLOP/s of the last step over the known peak, as a ratio."),
    ("octet_wait_seconds", "Seconds that the last step waited, by cause."),
    ("octet_evaluation_step", "Optimizer steps done at the last evaluation, by task."),
    ("octet_evaluation_loss", "Mean held-out loss per target, in nats, by task."),
    ("octet_evaluation_perplexity", "exp(octet_evaluation_loss), by task."),
    ("octet_evaluation_measure", "What else an evaluation measures, by task and measure."),
    ("octet_evaluation_bpb", "Held-out loss in bits per byte of text, by task."),
    ("octet_checkpoint_step", "Optimizer steps in the last checkpoint on disk."),
    ("octet_checkpoint_seconds", "Seconds from the request to the last sync of that checkpoint."),
    ("octet_checkpoint_timestamp_seconds", "Unix time at which that checkpoint was on disk."),
    ("octet_resident_memory_bytes", "Resident memory of the engine, in bytes."),
    ("octet_available_memory_bytes", "Host memory that the engine can still take, in bytes."),
    ("octet_free_disk_bytes", "Free space on the disk of the run folder, in bytes."),
    ("octet_log_backlog_lines", "Log lines that wait because the disk takes none."),
    ("octet_goodput_ratio", "Time in accepted steps over wall time, as a ratio."),
    ("octet_wall_time_seconds", "Seconds that the processes of this run have lived."),
];

const COUNTERS: [(&str, &str); 6] = [
    ("octet_tokens_total", "Tokens that steps have processed, those done again included."),
    ("octet_skipped_updates_total", "Updates skipped for a non-finite norm or an overflow."),
    ("octet_bad_updates_total", "Updates that were not finite or had a spike."),
    ("octet_rollbacks_total", "Returns to an earlier state after bad updates."),
    ("octet_engine_restarts_total", "Engines started again by the parent that took up work."),
    ("octet_restarts_total", "Restarts inside an engine, by actor."),
];

/// The registry. Clones are the same registry.
#[derive(Clone)]
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// An empty registry. A metric appears once it has a value.
    #[must_use]
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full("octet_step_seconds".to_owned()), &STEP_SECONDS)
            .expect("there are buckets")
            .build_recorder();
        for (name, help) in GAUGES {
            recorder.describe_gauge(KeyName::from_const_str(name), None, help.into());
        }
        for (name, help) in COUNTERS {
            recorder.describe_counter(KeyName::from_const_str(name), None, help.into());
        }
        let help = "Wall time of a step, in seconds.";
        recorder.describe_histogram("octet_step_seconds".into(), None, help.into());
        Self { recorder: Arc::new(recorder) }
    }

    /// Every metric in the text format of Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        self.recorder.handle().render()
    }

    /// Folds samples away that would otherwise pile up; to be called every few seconds.
    pub fn upkeep(&self) {
        self.recorder.handle().run_upkeep();
    }

    /// Shows where the log says that the run stands: at a start, and after a rewind.
    pub fn resume(&self, totals: &Totals) {
        self.gauge("octet_step", totals.step() as f64);
        self.gauge("octet_tokens", totals.tokens() as f64);
        let none = LastCheckpoint { step: 0, ms: 0.0, unix_ms: Some(0) };
        self.checkpoint(totals.checkpoint().unwrap_or(none));
        self.counts(totals.counts());
    }

    /// What has been counted.
    pub fn counts(&self, counts: &Counts) {
        // Whoever asks for a counter's rate needs its 0 as well.
        self.counter("octet_tokens_total").absolute(counts.tokens);
        self.counter("octet_skipped_updates_total").absolute(counts.skipped_updates);
        self.counter("octet_bad_updates_total").absolute(counts.bad_updates);
        self.counter("octet_rollbacks_total").absolute(counts.rollbacks);
        self.counter("octet_engine_restarts_total").absolute(counts.engine_restarts);
        for (actor, count) in &counts.actor_restarts {
            let labels = vec![Label::new("actor", actor.clone())];
            let key = Key::from_parts("octet_restarts_total", labels);
            self.recorder.register_counter(&key, &METADATA).absolute(*count);
        }
    }

    /// A step is done.
    pub fn step(&self, report: &StepReport) {
        self.gauge("octet_step", report.step as f64);
        self.gauge("octet_tokens", report.tokens as f64);
        self.gauge("octet_loss", report.loss);
        self.gauge("octet_learning_rate", report.learning_rate);
        self.gauge("octet_grad_norm", report.grad_norm);
        self.gauge("octet_tokens_per_second", report.tokens_per_s);
        self.gauge("octet_flops_per_second", report.flops_per_s);
        for (name, loss) in &report.losses {
            self.labelled("octet_track_loss", "track", name).set(*loss);
        }
        if let Some(mfu) = report.mfu {
            self.gauge("octet_mfu", mfu);
        }
        let wait = &report.wait_ms;
        let causes =
            [("loader", wait.loader), ("reduce", wait.reduce), ("checkpoint", wait.checkpoint)];
        for (cause, ms) in causes {
            self.labelled("octet_wait_seconds", "cause", cause).set(ms / 1e3);
        }
        let key = Key::from_static_name("octet_step_seconds");
        self.recorder.register_histogram(&key, &METADATA).record(report.step_ms / 1e3);
    }

    /// An evaluation is done.
    pub fn evaluation(&self, report: &EvaluationReport) {
        let gauge = |name, value| self.labelled(name, "task", &report.task).set(value);
        gauge("octet_evaluation_step", report.step as f64);
        gauge("octet_evaluation_loss", report.loss);
        gauge("octet_evaluation_perplexity", report.perplexity);
        if let Some(bits) = report.bits_per_byte {
            gauge("octet_evaluation_bpb", bits);
        }
        for (measure, value) in &report.measures {
            let labels = [("task", &report.task), ("measure", measure)];
            let labels = labels.map(|(key, value)| Label::new(key, value.clone())).to_vec();
            let key = Key::from_parts("octet_evaluation_measure", labels);
            self.recorder.register_gauge(&key, &METADATA).set(*value);
        }
    }

    /// A checkpoint is on disk.
    pub fn checkpoint(&self, checkpoint: LastCheckpoint) {
        self.gauge("octet_checkpoint_step", checkpoint.step as f64);
        self.gauge("octet_checkpoint_seconds", checkpoint.ms / 1e3);
        if let Some(unix_ms) = checkpoint.unix_ms {
            self.gauge("octet_checkpoint_timestamp_seconds", unix_ms as f64 / 1e3);
        }
    }

    /// Memory and disk, as far as they are known.
    pub fn resources(&self, resources: &Resources) {
        let known = [
            ("octet_resident_memory_bytes", resources.resident_bytes),
            ("octet_available_memory_bytes", resources.available_bytes),
            ("octet_free_disk_bytes", resources.free_disk_bytes),
        ];
        for (name, bytes) in known {
            if let Some(bytes) = bytes {
                self.gauge(name, bytes as f64);
            }
        }
    }

    /// How many log lines wait.
    pub fn log_backlog(&self, lines: usize) {
        self.gauge("octet_log_backlog_lines", lines as f64);
    }

    /// Wall time so far, in seconds, and the share of it spent in accepted steps.
    pub fn goodput(&self, wall_time_s: f64, ratio: f64) {
        self.gauge("octet_wall_time_seconds", wall_time_s);
        self.gauge("octet_goodput_ratio", ratio);
    }

    fn gauge(&self, name: &'static str, value: f64) {
        self.recorder.register_gauge(&Key::from_static_name(name), &METADATA).set(value);
    }

    fn counter(&self, name: &'static str) -> Counter {
        self.recorder.register_counter(&Key::from_static_name(name), &METADATA)
    }

    fn labelled(&self, name: &'static str, label: &'static str, value: &str) -> Gauge {
        let key = Key::from_parts(name, vec![Label::new(label, value.to_owned())]);
        self.recorder.register_gauge(&key, &METADATA)
    }
}
