//! `octet bench`: how fast a configuration's training step and data are on this machine, and why.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use octet::bench::{Profile, StepBench};
use octet::config::Config;
use octet::failure::Failure;
use octet_actors::rank::threads_per_rank;

use crate::cli::plan::vocabulary;

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
struct StepArguments {
    /// The configuration (TOML).
    config: PathBuf,
    /// Set any key of the configuration: section.key=value.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Steps to time.
    #[arg(long, default_value_t = 20)]
    steps: usize,
    /// Also run steps node by node and print the time by op, each op's fastest step.
    #[arg(long)]
    profile: bool,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let step = match &arguments.what {
        What::Step(step) => step,
        What::Data(arguments) => return data::run(arguments),
    };
    let config = Config::load(&step.config, &step.sets)?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = config.run.threads.unwrap_or_else(|| threads_per_rank(cores, 1));
    let (vocabulary, _) = vocabulary(&config)?;
    let mut bench = StepBench::new(&config, vocabulary, threads)?;
    let steps = step.steps.max(1);
    for _ in 0..steps.div_ceil(10) {
        bench.step(None)?;
    }
    let mut seconds = Vec::with_capacity(steps);
    for _ in 0..steps {
        seconds.push(bench.step(None)?);
    }
    seconds.sort_by(f64::total_cmp);
    let (median, best) = (seconds[steps / 2], seconds[0]);
    let (tokens, peak) = (bench.tokens() as f64, bench.peak());
    println!(
        "tokens/s   {:.0} (median of {steps} steps), {:.0} (best)",
        tokens / median,
        tokens / best
    );
    println!("step       {:.3} ms, {tokens} tokens, {threads} threads", median * 1e3);
    println!(
        "GFLOP/s    {:.1} of model FLOPs, {:.0} % of the {:.1} of a large product",
        bench.flops() / median / 1e9,
        100.0 * bench.flops() / median / peak,
        peak / 1e9
    );
    if step.profile {
        let mut fastest = Profile::new();
        for _ in 0..steps {
            let mut profile = Profile::new();
            bench.step(Some(&mut profile))?;
            for (op, share) in profile {
                let best = fastest.entry(op).or_insert(share);
                best.seconds = best.seconds.min(share.seconds);
            }
        }
        print_profile(&fastest);
    }
    Ok(ExitCode::SUCCESS)
}

fn print_profile(profile: &Profile) {
    let total: f64 = profile.values().map(|share| share.seconds).sum();
    let mut rows: Vec<_> = profile.iter().collect();
    rows.sort_by(|a, b| b.1.seconds.total_cmp(&a.1.seconds));
    println!("op                               times a step   ms a step   share   GFLOP/s");
    for (op, share) in rows {
        println!(
            "{op:<32} {:>12} {:>11.3} {:>5.1} % {:>9.1}",
            share.count,
            share.seconds * 1e3,
            100.0 * share.seconds / total,
            share.flops / share.seconds / 1e9
        );
    }
}
