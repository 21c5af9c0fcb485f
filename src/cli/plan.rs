//! `octet plan`: prints what a configuration will take. Needs no GPU and no data.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use octet::config::Config;
use octet::data::{Tokenizer, TokenizerSpec};
use octet::failure::Failure;
use octet::plan::{Part, Peaks, Plan, plan};
use octet_actors::rank::threads_per_rank;

use crate::cli::units::{grouped, size};

/// What a verdict about a GPU is worth until its backend is there.
const CPU_ARENA: &str = " (by the CPU's arena, scratch for wider floats included)";

/// Distinct characters to plan with when the text is not there.
const CHARACTERS_ASSUMED: usize = 256;

/// What to plan for.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The configuration (TOML).
    config: PathBuf,
    /// Set any key of the configuration: section.key=value.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// The device that times and fit are computed for.
    #[arg(long, value_enum, default_value_t = Target::Auto)]
    target: Target,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    /// An H200 for bf16 models, this machine's CPU for others.
    Auto,
    /// This machine's CPU, measured.
    Cpu,
    /// NVIDIA H100 SXM.
    H100,
    /// NVIDIA H200 SXM.
    H200,
}

/// Prints the plan.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let config = Config::load(&arguments.config, &arguments.sets)?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let ranks = config.run.ranks;
    let threads = config.run.threads.unwrap_or_else(|| threads_per_rank(cores, ranks));
    let narrow = config.to_toml().contains("dtype = \"bf16\"");
    let peaks = match arguments.target {
        Target::H100 => Peaks::H100,
        Target::H200 => Peaks::H200,
        Target::Auto if narrow => Peaks::H200,
        Target::Auto | Target::Cpu => Peaks::measure_cpu(threads),
    };
    let (vocabulary, note) = vocabulary(&config)?;
    let plan = plan(&config, vocabulary, peaks, threads)?;
    if arguments.json {
        let json = serde_json::to_string_pretty(&plan).map_err(Failure::ours)?;
        println!("{json}");
    } else {
        print_plan(&plan, note);
    }
    Ok(ExitCode::SUCCESS)
}

/// Rows of the embedding, without preparing data, and what was assumed.
pub(crate) fn vocabulary(config: &Config) -> Result<(usize, Option<String>), Failure> {
    if let Some(given) = config.model.vocabulary {
        return Ok((given, None));
    }
    let (tokens, note) = match TokenizerSpec::parse(&config.data.tokenizer)? {
        TokenizerSpec::Bytes => (Tokenizer::bytes().vocabulary(), None),
        TokenizerSpec::Bpe(size) => (size, None),
        TokenizerSpec::File(path) => (Tokenizer::from_file(&path)?.vocabulary(), None),
        TokenizerSpec::Characters => match config.data.text.0.as_slice() {
            [path] if std::path::Path::new(path).is_file() => {
                let text = std::fs::read_to_string(path).map_err(Failure::user)?;
                (text.chars().collect::<BTreeSet<_>>().len(), None)
            }
            _ => {
                let note = format!(
                    "the text is not there: planned for {CHARACTERS_ASSUMED} characters; \
                     set data.text or model.vocabulary"
                );
                (CHARACTERS_ASSUMED, Some(note))
            }
        },
    };
    Ok((config.model.padded_vocabulary(tokens), note))
}

fn print_plan(plan: &Plan, note: Option<String>) {
    if let Some(note) = note {
        println!("note: {note}");
    }
    println!(
        "model      {} parameters ({} in matrix products), vocabulary {}",
        grouped(plan.parameters),
        grouped(plan.matrix_parameters),
        plan.vocabulary
    );
    println!(
        "step       {} tokens in {} micro-batches, {} lanes, {} ranks, {} gradient buffers at most",
        grouped(plan.tokens_per_step as usize),
        plan.micro_batches,
        plan.lanes,
        plan.ranks,
        plan.gradient_buffers
    );
    println!(
        "arena      {} bytes per rank ({})",
        grouped(plan.arena_bytes),
        size(plan.arena_bytes)
    );
    print_parts(&plan.arena);
    println!("host       {} ({})", grouped(plan.host_bytes()), size(plan.host_bytes()));
    print_parts(&plan.host);
    println!("outside    {} allowed", size(plan.outside_bytes));
    println!("compute    {:.3e} model FLOPs per step", plan.flops_per_step);
    println!(
        "roofline   {:.3} ms per step at {:.3e} FLOP/s and {:.3e} bytes/s per rank",
        plan.seconds_per_step * 1e3,
        plan.peaks.flops_per_s,
        plan.peaks.bytes_per_s
    );
    println!("           op of a micro-batch           times       GFLOP          MB          ms");
    for op in plan.ops.iter().take(12) {
        println!(
            "           {:<28} {:>6} {:>11.3} {:>11.3} {:>11.4}",
            op.op,
            op.count,
            op.flops / 1e9,
            op.bytes / 1e6,
            op.seconds * 1e3
        );
    }
    match (plan.fits, plan.peaks.memory_bytes) {
        (Some(true), Some(memory)) => println!("fits       yes, in {}{CPU_ARENA}", size(memory)),
        (Some(false), Some(memory)) => {
            println!("fits       no, not in {}{CPU_ARENA}", size(memory))
        }
        _ => {}
    }
}

fn print_parts(parts: &[Part]) {
    for part in parts {
        println!("           {:<20} {:>20}", part.name, grouped(part.bytes));
    }
}
