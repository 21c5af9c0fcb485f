//! What this machine has, what is missing, and what that would be good for.
//!
//! Duty: looks, measures for a moment, and judges: every check ends in a verdict. What is missing
//! is never an error here. Prohibition: writes nothing, keeps nothing open.

use std::path::{Path, PathBuf};

use octet_actors::outside::LocalDisk;
use octet_actors::telemetry::resources::Resources;
use octet_actors::units::size;
use octet_kernels::cpu::isa::{Isa, Level};
use octet_kernels::cpu::measure_cpu;
use octet_kernels::cuda::driver::{Card, Driver};
use octet_kernels::cuda::find::{self, Candidate, Kind, Search, Version};
use octet_kernels::dtype::Precision;
use serde::Serialize;

use crate::data::{Corpus, TextSpec};
use crate::plan::machine::total_memory;

#[cfg(test)]
mod tests;

/// What a small run takes, with its checkpoints.
const DISK_BYTES: u64 = 2 << 30;
/// What a small run takes.
const MEMORY_BYTES: u64 = 1 << 30;
/// Shards, checkpoints, logs, mailboxes and the pages of a web server.
const OPEN_FILES: u64 = 1024;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// There, and enough.
    Ok,
    /// There, but less than a run may want.
    Low,
    /// Not there.
    Missing,
}

/// What a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// Any run.
    Run,
    /// The first run, `configs/quickstart.toml`.
    Quickstart,
    /// Runs on GPUs.
    Gpu,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// Who needs it.
    pub need: Need,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What it is good for, and what would help.
    pub purpose: &'static str,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Machine {
    /// Of this program.
    pub version: &'static str,
    /// Processor cores that this process may use.
    pub cores: usize,
    /// The widest vector instructions that kernels will use.
    pub instruction_set: String,
    /// Of the machine, or of the container.
    pub memory_bytes: Option<u64>,
    /// What this process can still take of it.
    pub available_bytes: Option<u64>,
    /// Where `disk_bytes` are free.
    pub disk: PathBuf,
    /// Free there.
    pub disk_bytes: Option<u64>,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Files that this process may have open; `None` for no limit.
    pub open_files: Option<u64>,
    /// Bytes that it may lock in memory; `None` for no limit.
    pub locked_bytes: Option<u64>,
    /// GPUs that the driver shows.
    pub gpus: Vec<String>,
    /// FLOP/s of an fp32 product on all cores, measured.
    pub gemm_flops_per_s: f64,
    /// Bytes/s read and written by copying on all cores, measured.
    pub copy_bytes_per_s: f64,
    /// Bytes of the text that `data.text = "cargo"` finds.
    pub corpus_bytes: Option<u64>,
    /// Every check.
    pub checks: Vec<Check>,
}

impl Machine {
    /// What is not as it should be for `need`.
    pub fn short_of(&self, need: Need) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(move |check| check.need == need && check.verdict != Verdict::Ok)
    }

    /// Whether a run on the CPU can begin.
    pub fn can_train(&self) -> bool {
        self.short_of(Need::Run).all(|check| check.verdict != Verdict::Missing)
    }
}

/// Looks at everything; `folder` is where runs would lie.
pub fn examine(folder: &Path) -> Machine {
    let disk = existing(folder);
    let resources = Resources::read(&LocalDisk, &disk);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let isa = Isa::detect();
    let peaks = measure_cpu(cores, Precision::F32);
    let corpus = Corpus::scan(&TextSpec::from("cargo").into(), &mut |_| Ok(()));
    let (open_files, locked_bytes) = (limit(libc::RLIMIT_NOFILE), limit(libc::RLIMIT_MEMLOCK));
    let mut checks = vec![
        check(
            ("instructions", Need::Run, "without AVX2 and FMA products are many times slower"),
            if isa.level() == Level::Plain { Verdict::Low } else { Verdict::Ok },
            isa.to_string(),
        ),
        amount(
            ("memory", Need::Run, "a small run takes 1 GiB; octet plan says what yours takes"),
            resources.available_bytes,
            MEMORY_BYTES,
        ),
        amount(
            ("disk", Need::Run, "a small run takes 2 GiB with its checkpoints"),
            resources.free_disk_bytes,
            DISK_BYTES,
        ),
        check(
            ("open files", Need::Run, "shards and checkpoints; raise it with ulimit -n"),
            if open_files.is_none_or(|files| files >= OPEN_FILES) {
                Verdict::Ok
            } else {
                Verdict::Low
            },
            open_files.map_or("no limit".to_string(), |files| files.to_string()),
        ),
        check(
            ("memfd", Need::Run, "memory for snapshots that outlives the engine"),
            if has_memfd() { Verdict::Ok } else { Verdict::Missing },
            if has_memfd() { "works".into() } else { "memfd_create is refused".into() },
        ),
        match &corpus {
            Ok(corpus) => check(CORPUS, Verdict::Ok, size(corpus.bytes)),
            Err(error) => check(CORPUS, Verdict::Missing, error.to_string()),
        },
    ];
    let (gpus, gpu_checks) = gpus();
    checks.extend(gpu_checks);
    Machine {
        version: env!("CARGO_PKG_VERSION"),
        cores,
        instruction_set: isa.to_string(),
        memory_bytes: total_memory(),
        available_bytes: resources.available_bytes,
        disk,
        disk_bytes: resources.free_disk_bytes,
        page_bytes: page_bytes(),
        open_files,
        locked_bytes,
        gpus,
        gemm_flops_per_s: peaks.flops_per_s,
        copy_bytes_per_s: peaks.bytes_per_s,
        corpus_bytes: corpus.ok().map(|corpus| corpus.bytes),
        checks,
    }
}

type About = (&'static str, Need, &'static str);

const CORPUS: About =
    ("corpus", Need::Quickstart, "package sources; any folder works: --set data.text=PATH");

fn check((name, need, purpose): About, verdict: Verdict, found: String) -> Check {
    Check { name, need, verdict, found, purpose }
}

fn amount(about: About, found: Option<u64>, wanted: u64) -> Check {
    let verdict =
        if found.is_none_or(|bytes| bytes >= wanted) { Verdict::Ok } else { Verdict::Low };
    let said = found.map_or("unknown".to_string(), |bytes| format!("{} free", size(bytes)));
    check(about, verdict, said)
}

/// The GPUs that the driver shows, and checks of them and of NVIDIA's libraries.
fn gpus() -> (Vec<String>, Vec<Check>) {
    let search = Search::here();
    let version = search.newest(Kind::Driver, None).ok().map(|driver| driver.version);
    let cards = Driver::open(&search).and_then(|driver| driver.cards());
    let about = ("GPU", Need::Gpu, "an NVIDIA GPU with its driver");
    let (cards, gpu) = match cards {
        Ok(cards) if cards.is_empty() => {
            (Vec::new(), check(about, Verdict::Missing, "the driver shows none".to_string()))
        }
        Ok(cards) => {
            let cards: Vec<String> = cards.iter().map(Card::to_string).collect();
            let found = cards.join("; ");
            (cards, check(about, Verdict::Ok, found))
        }
        Err(_) if version.is_none() => {
            (Vec::new(), check(about, Verdict::Missing, "no driver that shows any".to_string()))
        }
        Err(error) => (Vec::new(), check(about, Verdict::Missing, error.to_string())),
    };
    let libraries = Kind::ALL.map(|kind| library(&search, kind, version));
    (cards, std::iter::once(gpu).chain(libraries).collect())
}

/// One of NVIDIA's libraries: the candidate that is taken, and all others.
fn library(search: &Search, kind: Kind, driver: Option<Version>) -> Check {
    let about = (kind.name(), Need::Gpu, kind.purpose());
    let candidates = search.candidates(kind, driver);
    if candidates.first().is_none_or(|candidate| candidate.version.is_err()) {
        return check(about, Verdict::Missing, find::missing(kind, &candidates));
    }
    let candidates: Vec<String> = candidates.iter().map(Candidate::to_string).collect();
    check(about, Verdict::Ok, candidates.join("; not "))
}

fn has_memfd() -> bool {
    // SAFETY: the name ends in a zero byte; the descriptor is ours and closed once.
    unsafe {
        let file = libc::memfd_create(c"octet-doctor".as_ptr(), libc::MFD_CLOEXEC);
        file >= 0 && libc::close(file) == 0
    }
}

/// A limit of this process; `None` if there is none.
fn limit(which: libc::__rlimit_resource_t) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: writes one struct that lives longer than the call.
    let done = unsafe { libc::getrlimit(which, &raw mut limit) };
    (done == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

fn page_bytes() -> u64 {
    // SAFETY: reads a constant of the system.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(0)
}

/// The nearest folder above a path that exists.
fn existing(path: &Path) -> PathBuf {
    let found = path.ancestors().find(|folder| folder.is_dir());
    found.unwrap_or(Path::new("/")).to_owned()
}
