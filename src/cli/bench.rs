//! `octet bench`: how fast a configuration's training step and data are on this machine, and why.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use octet::backend::Chosen;
use octet::bench::{Profile, Share, StepBench};
use octet::config::Config;
use octet::failure::Failure;
use octet::plan::vocabulary;
use octet_kernels::device::Backend;
use serde_json::{Value, json};

use crate::cli::numbers::at_least_1;
use crate::cli::output::{complain, out};

mod data;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Training steps of one rank on random tokens.
    Step(StepArguments),
    /// The preparation of data by stage, and filling rows.
    Data(data::DataArguments),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  octet bench step configs/llama_10m.toml --json
  octet bench step configs/quickstart.toml --set batch.micro=8 --steps 10")]
struct StepArguments {
    /// The configuration (TOML).
    config: PathBuf,
    /// Set any key of the configuration: section.key=value.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Steps to time.
    #[arg(long, default_value_t = 20, value_parser = at_least_1, allow_negative_numbers = true)]
    steps: usize,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What was measured.
struct Figures {
    /// Of every timed step, ascending.
    seconds: Vec<f64>,
    tokens: f64,
    /// Model FLOPs of a step.
    flops: f64,
    /// FLOP/s of [`StepBench::peak`].
    peak: f64,
    backend: Backend,
    /// Of steps that were run node by node, each op's fastest.
    profile: Profile,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let step = match &arguments.what {
        What::Step(step) => step,
        What::Data(arguments) => return data::run(arguments),
    };
    let (config, origins) = Config::load_located(&step.config, &step.sets)?;
    bench_step(step, &config).map_err(|failure| origins.locate(failure))
}

fn bench_step(step: &StepArguments, config: &Config) -> Result<ExitCode, Failure> {
    // One rank, whatever the configuration says of a run's.
    let mut config = config.clone();
    config.run.ranks = 1;
    let chosen = Chosen::by(&config)?;
    if let Some(note) = &chosen.note {
        complain(format_args!("octet: {note}"));
    }
    let (vocabulary, _) = vocabulary(&config)?;
    let backend = chosen.backend;
    let bench = StepBench::new(&config, vocabulary, chosen)?;
    let figures = measure(bench, backend, step.steps)?;
    if step.json {
        out!("{}", figures.json());
    } else {
        figures.print();
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(mut bench: StepBench, backend: Backend, steps: usize) -> Result<Figures, Failure> {
    for _ in 0..steps.div_ceil(10) {
        bench.step(None)?;
    }
    // Before and after, since a disturbed machine shows less than it has.
    let peak = bench.peak();
    let mut seconds = Vec::with_capacity(steps);
    for _ in 0..steps {
        seconds.push(bench.step(None)?);
    }
    seconds.sort_by(f64::total_cmp);
    let peak = peak.max(bench.peak());
    let mut fastest = Profile::new();
    for _ in 0..steps {
        let mut profile = Profile::new();
        bench.step(Some(&mut profile))?;
        for (op, share) in profile {
            let best = fastest.entry(op).or_insert(share);
            best.seconds = best.seconds.min(share.seconds);
        }
    }
    let (tokens, flops) = (bench.tokens() as f64, bench.flops());
    Ok(Figures { seconds, tokens, flops, peak, backend, profile: fastest })
}

impl Figures {
    fn median(&self) -> f64 {
        self.seconds[self.seconds.len() / 2]
    }

    /// Ops by time, the longest first.
    fn ops(&self) -> Vec<(&'static str, Share)> {
        let mut ops: Vec<_> = self.profile.iter().map(|(op, share)| (*op, *share)).collect();
        ops.sort_by(|a, b| b.1.seconds.total_cmp(&a.1.seconds));
        ops
    }

    /// Threads of a CPU.
    fn threads(&self) -> Option<usize> {
        match self.backend {
            Backend::Cpu { threads } => Some(threads),
            Backend::Cuda { .. } => None,
        }
    }

    fn json(&self) -> Value {
        let op = |(name, share): (&str, Share)| {
            json!({
                "op": name,
                "times": share.count,
                "ms": share.seconds * 1e3,
                "gflops_per_s": share.flops / share.seconds / 1e9,
                "gb_per_s": share.bytes / share.seconds / 1e9,
            })
        };
        json!({
            "tokens_per_s": self.tokens / self.median(),
            "tokens_per_s_best": self.tokens / self.seconds[0],
            "steps": self.seconds.len(),
            "step_ms": self.median() * 1e3,
            "tokens": self.tokens,
            "device": self.backend.name(),
            "threads": self.threads(),
            "gflops_per_s": self.flops / self.median() / 1e9,
            "peak_gflops_per_s": self.peak / 1e9,
            "peak_share": self.flops / self.median() / self.peak,
            "ops": self.ops().into_iter().map(op).collect::<Vec<_>>(),
        })
    }

    fn print(&self) {
        let Self { tokens, flops, peak, backend, .. } = *self;
        let (median, steps) = (self.median(), self.seconds.len());
        let best = tokens / self.seconds[0];
        out!("tokens/s   {:.0} (median of {steps} steps), {best:.0} (best)", tokens / median);
        out!("step       {:.3} ms, {tokens} tokens, {backend}", median * 1e3);
        out!(
            "GFLOP/s    {:.1} of model FLOPs, {:.0} % of the {:.1} of large products",
            flops / median / 1e9,
            100.0 * flops / median / peak,
            peak / 1e9
        );
        let total: f64 = self.profile.values().map(|share| share.seconds).sum();
        out!(
            "op                               times a step   ms a step   share   GFLOP/s      GB/s"
        );
        for (op, share) in self.ops() {
            out!(
                "{op:<32} {:>12} {:>11.3} {:>5.1} % {:>9.1} {:>9.1}",
                share.count,
                share.seconds * 1e3,
                100.0 * share.seconds / total,
                share.flops / share.seconds / 1e9,
                share.bytes / share.seconds / 1e9
            );
        }
    }
}
