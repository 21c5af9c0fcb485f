//! `octet doctor`: what this machine has, and what is missing.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use octet::doctor::{Check, Machine, Need, Verdict, examine};
use octet::failure::Failure;

use crate::cli::output::out;
use crate::cli::units::size;

/// How to say it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  octet doctor
  octet doctor --json")]
pub(crate) struct Arguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prints it; what is missing is not an error.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let machine = examine(&std::path::absolute(Path::new("runs")).map_err(Failure::world)?);
    if arguments.json {
        out!("{}", serde_json::to_string_pretty(&machine).map_err(Failure::ours)?);
        return Ok(ExitCode::SUCCESS);
    }
    print_machine(&machine);
    for check in &machine.checks {
        print_check(check);
    }
    print_verdict(&machine);
    Ok(ExitCode::SUCCESS)
}

fn print_machine(machine: &Machine) {
    let bytes = |bytes: Option<u64>| bytes.map_or("unknown".to_string(), |b| size(b as usize));
    let limit = |limit: Option<u64>| limit.map_or("no limit".to_string(), |b| size(b as usize));
    out!("octet        {}", machine.version);
    out!("cores        {}, {}", machine.cores, machine.instruction_set);
    out!(
        "memory       {} of {} available, pages of {}, {} may be locked",
        bytes(machine.available_bytes),
        bytes(machine.memory_bytes),
        size(machine.page_bytes as usize),
        limit(machine.locked_bytes)
    );
    out!("disk         {} free at {}", bytes(machine.disk_bytes), machine.disk.display());
    out!(
        "measured     {:.1} GFLOP/s in fp32 products, {}/s in copies (read and write)",
        machine.gemm_flops_per_s / 1e9,
        size(machine.copy_bytes_per_s as usize)
    );
}

fn print_check(check: &Check) {
    let verdict = match check.verdict {
        Verdict::Ok => "ok",
        Verdict::Low => "low",
        Verdict::Missing => "missing",
    };
    match check.verdict {
        Verdict::Ok => out!("{verdict:<12} {}: {}", check.name, check.found),
        _ => out!("{verdict:<12} {}: {} ({})", check.name, check.found, check.purpose),
    }
}

fn print_verdict(machine: &Machine) {
    let names = |need| {
        let names: Vec<&str> = machine.short_of(need).map(|check| check.name).collect();
        names.join(", ")
    };
    let cpu = names(Need::Run);
    match (machine.can_train(), cpu.is_empty()) {
        (true, true) => out!("verdict      runs on the CPU: ready"),
        (true, false) => out!("verdict      runs on the CPU: ready, but low on {cpu}"),
        (false, _) => out!("verdict      runs on the CPU: not possible without {cpu}"),
    }
    if machine.short_of(Need::Quickstart).next().is_some() {
        out!("verdict      configs/quickstart.toml: needs --set data.text=PATH here");
    } else {
        out!("verdict      configs/quickstart.toml: ready");
    }
    let gpu = names(Need::Gpu);
    match gpu.is_empty() {
        true => out!("verdict      runs on GPUs: ready"),
        false => out!("verdict      runs on GPUs: this machine lacks {gpu}"),
    }
}
