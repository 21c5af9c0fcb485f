//! `octet doctor`: what this machine has, and what is missing.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use octet::data::{Corpus, TextSpec};
use octet::failure::Failure;
use octet_actors::outside::LocalDisk;
use octet_actors::telemetry::resources::Resources;
use octet_kernels::cpu::isa::{Isa, Level};
use serde::Serialize;

use crate::cli::units::size;

/// What a small run takes, with its checkpoints.
const DISK_BYTES: u64 = 2 << 30;
/// What a small run takes.
const MEMORY_BYTES: u64 = 1 << 30;

/// How to say it.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Machine {
    version: &'static str,
    cores: usize,
    instruction_set: String,
    memory_bytes: Option<u64>,
    disk: PathBuf,
    disk_bytes: Option<u64>,
    /// This build has no CUDA backend.
    gpus: usize,
    /// Bytes of the text that `data.text = "cargo"` finds.
    corpus_bytes: Option<u64>,
    missing: Vec<String>,
}

/// Prints it; what is missing is not an error.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let machine = examine()?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&machine).map_err(Failure::ours)?);
        return Ok(ExitCode::SUCCESS);
    }
    let bytes = |bytes: Option<u64>| bytes.map_or("unknown".to_string(), |b| size(b as usize));
    println!("octet        {}", machine.version);
    println!("cores        {}", machine.cores);
    println!("instructions {}", machine.instruction_set);
    println!("memory       {} available", bytes(machine.memory_bytes));
    println!("disk         {} free at {}", bytes(machine.disk_bytes), machine.disk.display());
    println!("gpu          none: this build computes on the CPU");
    println!("corpus       {} of package sources for quickstart", bytes(machine.corpus_bytes));
    for missing in &machine.missing {
        println!("missing      {missing}");
    }
    if machine.missing.is_empty() {
        println!("nothing is missing for a run on the CPU");
    }
    Ok(ExitCode::SUCCESS)
}

fn examine() -> Result<Machine, Failure> {
    let disk = existing(&std::path::absolute("runs").map_err(Failure::world)?);
    let resources = Resources::read(&LocalDisk, &disk);
    let corpus = Corpus::scan(&TextSpec::from("cargo"), &mut |_| {});
    let isa = Isa::detect();
    let mut missing = Vec::new();
    if isa.level() == Level::Plain {
        missing.push("AVX2 and FMA: without them the CPU is slow".to_string());
    }
    if resources.available_bytes.is_some_and(|bytes| bytes < MEMORY_BYTES) {
        missing.push(format!("memory: a small run takes {}", size(MEMORY_BYTES as usize)));
    }
    if resources.free_disk_bytes.is_some_and(|bytes| bytes < DISK_BYTES) {
        missing.push(format!("disk: a small run takes {}", size(DISK_BYTES as usize)));
    }
    if let Err(error) = &corpus {
        missing.push(format!("text for configs/quickstart.toml: {error}"));
    }
    Ok(Machine {
        version: env!("CARGO_PKG_VERSION"),
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        instruction_set: isa.to_string(),
        memory_bytes: resources.available_bytes,
        disk_bytes: resources.free_disk_bytes,
        disk,
        gpus: 0,
        corpus_bytes: corpus.ok().map(|corpus| corpus.bytes),
        missing,
    })
}

/// The nearest folder above a path that exists.
fn existing(path: &Path) -> PathBuf {
    let found = path.ancestors().find(|folder| folder.is_dir());
    found.unwrap_or(Path::new("/")).to_owned()
}
