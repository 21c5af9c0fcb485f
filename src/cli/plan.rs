//! `octet plan`: prints what a configuration will take. Needs no GPU and no data.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use octet::backend;
use octet::config::bytes::Bytes;
use octet::config::{Config, Device};
use octet::failure::Failure;
use octet::plan::machine::Machine;
use octet::plan::search::{Row, search};
use octet::plan::{DISK_BYTES_PER_S, Part, Plan, plan, vocabulary};
use octet_actors::rank::threads_per_rank;
use octet_kernels::graph;
use octet_kernels::graph::target::{self, Gpu};

use crate::cli::numbers::whole;
use crate::cli::output::{self, out};
use crate::cli::units::{duration, grouped, size};

/// Ops that are listed.
const OPS_SHOWN: usize = 12;

/// What to plan for.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  octet plan configs/llama_8b_8xh200.toml
  octet plan configs/gpt2_124m_1xh200.toml --target h100 --search
  octet plan configs/quickstart.toml --set batch.micro=8 --json")]
pub(crate) struct Arguments {
    /// The configuration (TOML).
    config: PathBuf,
    /// Set any key of the configuration: section.key=value.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// The device that memory and times are planned for.
    #[arg(long, value_enum, default_value_t = Target::Auto)]
    target: Target,
    /// Table what fits: micro-batch, lanes, recompute, ZeRO and ranks, the fastest first.
    #[arg(long)]
    search: bool,
    /// Rows of that table; 0 for all.
    #[arg(long, default_value_t = 24, value_name = "N", requires = "search")]
    #[arg(value_parser = whole::<usize>, allow_negative_numbers = true)]
    rows: usize,
    /// What the disk of checkpoints takes per second.
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    #[arg(default_value_t = format!("{} GB", DISK_BYTES_PER_S / 1e9))]
    disk: String,
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
    /// NVIDIA A100 SXM, 80 GB.
    A100,
    /// NVIDIA H100 SXM, 80 GB.
    H100,
    /// NVIDIA H200 SXM, 141 GB.
    H200,
    /// NVIDIA B200 SXM, 180 GB.
    B200,
    /// NVIDIA GeForce RTX 4090, 24 GB.
    Rtx4090,
}

impl Target {
    /// The GPU, if it is one.
    fn gpu(self, narrow: bool) -> Option<&'static Gpu> {
        match self {
            Self::Auto if !narrow => None,
            Self::Cpu => None,
            Self::A100 => Some(&target::A100),
            Self::H100 => Some(&target::H100),
            Self::Auto | Self::H200 => Some(&target::H200),
            Self::B200 => Some(&target::B200),
            Self::Rtx4090 => Some(&target::RTX_4090),
        }
    }
}

/// Prints the plan, or the table.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (config, origins) = Config::load_located(&arguments.config, &arguments.sets)?;
    answer(arguments, &config).map_err(|failure| origins.locate(failure))
}

fn answer(arguments: &Arguments, config: &Config) -> Result<ExitCode, Failure> {
    let disk: Bytes =
        arguments.disk.parse().map_err(|problem| Failure::user(format!("--disk: {problem}")))?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let ranks = config.run.ranks;
    let threads = config.run.threads.unwrap_or_else(|| threads_per_rank(cores, ranks));
    let stored: toml::Table = config.to_toml().parse().map_err(Failure::ours)?;
    let dtype = stored.get("model").and_then(|model| model.get("dtype"));
    let narrow = dtype.and_then(toml::Value::as_str) == Some("bf16");
    let machine = match arguments.target.gpu(narrow) {
        Some(gpu) => Machine::gpus(graph::Target::Gpu(gpu)),
        None => Machine::this_cpu(config.model.matmul.into()),
    };
    let elsewhere = arguments.target == Target::Auto
        && machine.target != graph::Target::Cpu
        && config.run.device != Device::Cuda;
    if elsewhere {
        let (target, key) = (machine.target.name(), "run.device = \"auto\"");
        output::complain(format_args!(
            "octet: planned for an {target} since model.dtype is bf16; without a GPU, train with \
             {key} takes the CPU: --target cpu plans that"
        ));
    }
    let (vocabulary, note) = vocabulary(config)?;
    if arguments.search {
        let rows = search(config, vocabulary, &machine, threads)?;
        return print_rows(arguments, &machine, &rows);
    }
    let plan = plan(config, vocabulary, &machine, threads, disk.0 as f64)?;
    if config.run.device == Device::Cuda && !plan.without_kernels.is_empty() {
        let ops: Vec<&str> = plan.without_kernels.keys().map(String::as_str).collect();
        return Err(backend::no_gpu_form(&ops));
    }
    if arguments.json {
        out!("{}", serde_json::to_string_pretty(&plan).map_err(Failure::ours)?);
        return Ok(ExitCode::SUCCESS);
    }
    for note in note.into_iter().chain(config.schedule.caution(config.run.steps)) {
        out!("note: {note}");
    }
    print_memory(&plan);
    print_time(&plan);
    print_missing(&plan);
    out!("schedule   {}", config.schedule.describe(config.run.steps));
    Ok(ExitCode::SUCCESS)
}

fn print_memory(plan: &Plan) {
    out!(
        "model      {} parameters ({} in matrix products), vocabulary {}",
        grouped(plan.parameters),
        grouped(plan.matrix_parameters),
        plan.vocabulary
    );
    out!(
        "step       {} tokens in {} micro-batches, {} lanes, {} ranks, {} gradient buffers at most",
        grouped(plan.tokens_per_step as usize),
        plan.micro_batches,
        plan.lanes,
        plan.ranks,
        plan.gradient_buffers
    );
    out!("recompute  {}", plan.recompute);
    out!(
        "arena      {} bytes per rank ({}) on {}",
        grouped(plan.arena_bytes),
        size(plan.arena_bytes),
        plan.target
    );
    print_parts(&plan.arena);
    for library in &plan.libraries {
        out!("             of these {:<9} {:>20}", library.name, grouped(library.bytes));
    }
    out!("host       {} ({})", grouped(plan.host_bytes()), size(plan.host_bytes()));
    print_parts(&plan.host);
    out!("outside    {} allowed for", size(plan.outside_bytes));
    print_parts(&plan.outside);
    let fits = match plan.fits {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    };
    out!("fits       {fits}: {}", plan.room());
    if let Some(blocks) = plan.blocks {
        out!(
            "           {} of {} blocks would; of {} for the arenas of all ranks {} are not there",
            blocks.fit,
            blocks.of,
            size(blocks.wanted_bytes),
            size(blocks.wanted_bytes.saturating_sub(blocks.there_bytes))
        );
    }
}

fn print_time(plan: &Plan) {
    out!("compute    {:.3e} model FLOPs per step", plan.flops_per_step);
    out!(
        "roofline   {:.3} ms per step at least, {} tokens/s and {:.1} % MFU at most",
        plan.seconds_per_step * 1e3,
        grouped(plan.tokens_per_s as usize),
        plan.mfu * 100.0
    );
    let links = match (plan.speeds.link_bytes_per_s, plan.speeds.host_bytes_per_s) {
        (Some(link), Some(host)) => {
            format!(", {:.0} GB/s to other ranks, {:.0} GB/s from the host", link / 1e9, host / 1e9)
        }
        _ => String::new(),
    };
    out!(
        "           at {:.4e} FLOP/s and {:.3e} bytes/s per rank{links}",
        plan.speeds.flops_per_s,
        plan.speeds.bytes_per_s
    );
    out!("           of a step                                        MB          ms  exposed ms");
    for part in &plan.step {
        out!(
            "           {:<35} {:>15.3} {:>11.4} {:>11.4}",
            part.name,
            part.bytes / 1e6,
            part.seconds * 1e3,
            part.exposed_seconds * 1e3
        );
    }
    if plan.tracks.len() > 1 {
        out!("           micro-batch of a track                   MB          ms    of ops %");
        for track in &plan.tracks {
            out!(
                "           {:<35} {:>7.3} {:>11.4} {:>11.1}",
                track.name,
                track.activation_bytes as f64 / 1e6,
                track.seconds * 1e3,
                track.share * 100.0
            );
        }
    }
    out!("           op of a micro-batch           times       GFLOP          MB          ms");
    for op in plan.ops.iter().take(OPS_SHOWN) {
        out!(
            "           {:<28} {:>6} {:>11.3} {:>11.3} {:>11.4}",
            op.op,
            op.count,
            op.flops / 1e9,
            op.bytes / 1e6,
            op.seconds * 1e3
        );
    }
    let saved = &plan.checkpoint;
    out!(
        "checkpoint {} in {} at {}/s, {:.3} s to the host{}",
        size(saved.bytes),
        duration(saved.disk_seconds),
        size(plan.speeds.disk_bytes_per_s as usize),
        saved.copy_seconds,
        if saved.every == 0 { String::new() } else { format!(", every {} steps", saved.every) }
    );
    out!("run        {} at least", duration(plan.run_seconds));
}

/// What stands between this plan and a run on its target.
fn print_missing(plan: &Plan) {
    if plan.without_kernels.is_empty() {
        return;
    }
    let ops: Vec<String> =
        plan.without_kernels.iter().map(|(op, count)| format!("{op} ({count})")).collect();
    out!("no kernels yet on {} for {}", plan.target, ops.join(", "));
}

fn print_rows(arguments: &Arguments, machine: &Machine, rows: &[Row]) -> Result<ExitCode, Failure> {
    if rows.is_empty() {
        return Err(Failure::user(format!(
            "{}: nothing fits on {}, not even the smallest micro-batch with \"block\" recompute; \
             expected a smaller model, shorter sequences or more ranks",
            arguments.config.display(),
            machine.target.name()
        )));
    }
    if arguments.json {
        out!("{}", serde_json::to_string_pretty(rows).map_err(Failure::ours)?);
        return Ok(ExitCode::SUCCESS);
    }
    let shown = if arguments.rows == 0 { rows.len() } else { arguments.rows.min(rows.len()) };
    out!("on {}, {shown} of {} that fit, times are rooflines", machine.target.name(), rows.len());
    out!("ms/step     tokens/s   arena       micro lanes ranks zero  recompute");
    for row in &rows[..shown] {
        out!(
            "{:<11.3} {:<10} {:<11} {:<5} {:<5} {:<5} {:<4} {} {}",
            row.seconds_per_step * 1e3,
            row.tokens_per_s as u64,
            size(row.arena_bytes),
            row.micro,
            row.lanes,
            row.ranks,
            row.zero,
            if row.same_run { ' ' } else { '*' },
            row.recompute
        );
        let sets: Vec<String> = row.sets.iter().map(|set| format!("--set {set}")).collect();
        out!(
            "            {}",
            if sets.is_empty() { "as configured".into() } else { sets.join(" ") }
        );
    }
    out!("* another micro-batch or number of lanes: other numbers, so another run");
    Ok(ExitCode::SUCCESS)
}

fn print_parts(parts: &[Part]) {
    for part in parts {
        out!("           {:<20} {:>20}", part.name, grouped(part.bytes));
    }
}
