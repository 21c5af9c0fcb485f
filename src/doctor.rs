//! What this machine has, what is missing, and what that would be good for.
//!
//! Duty: looks, measures for a moment, and judges: every check ends in a verdict. What is missing
//! is never an error here. Prohibition: writes nothing, keeps nothing open.

use std::ffi::CStr;
use std::path::{Path, PathBuf};

use octet_actors::outside::LocalDisk;
use octet_actors::telemetry::resources::Resources;
use octet_actors::units::size;
use octet_kernels::cpu::isa::{Isa, Level};
use octet_kernels::cpu::measure_cpu;
use octet_kernels::dtype::Precision;
use serde::Serialize;

use crate::data::{BadLines, Corpus, TextSpec};
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
    pub gpus: usize,
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
    let corpus = Corpus::scan(&TextSpec::from("cargo").into(), BadLines::Error, &mut |_| Ok(()));
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
    let gpus = gpus();
    checks.push(check(
        ("GPU", Need::Gpu, "an NVIDIA GPU with its kernel driver"),
        if gpus > 0 { Verdict::Ok } else { Verdict::Missing },
        format!("{gpus} shown by the driver"),
    ));
    checks.extend(LIBRARIES.iter().map(|library| library.check()));
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

/// A library that GPUs need, under the names it may have.
struct Library {
    name: &'static str,
    files: &'static [&'static CStr],
    purpose: &'static str,
}

/// What a CUDA backend loads when it starts.
const LIBRARIES: [Library; 5] = [
    Library { name: "CUDA driver", files: &[c"libcuda.so.1"], purpose: "everything on a GPU" },
    Library {
        name: "NVRTC",
        files: &[c"libnvrtc.so.13", c"libnvrtc.so.12"],
        purpose: "compiles our kernels for the GPU that is there",
    },
    Library {
        name: "cuBLASLt",
        files: &[c"libcublasLt.so.13", c"libcublasLt.so.12"],
        purpose: "matrix products",
    },
    Library { name: "cuDNN", files: &[c"libcudnn.so.9"], purpose: "attention" },
    Library { name: "NCCL", files: &[c"libnccl.so.2"], purpose: "more than one GPU" },
];

impl Library {
    fn check(&self) -> Check {
        let name = |file: &CStr| file.to_string_lossy().into_owned();
        let there = self.files.iter().find(|file| loads(file));
        let about = (self.name, Need::Gpu, self.purpose);
        match there {
            Some(file) => check(about, Verdict::Ok, name(file)),
            None => {
                let names: Vec<String> = self.files.iter().map(|file| name(file)).collect();
                check(about, Verdict::Missing, format!("{} not found", names.join(" or ")))
            }
        }
    }
}

/// Whether the system's loader finds a library. It stays loaded: the drivers' own threads and exit
/// handlers do not survive that their code is taken away.
fn loads(file: &CStr) -> bool {
    // SAFETY: the name ends in a zero byte; nothing is called in the library, and it is not closed.
    let handle = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
    !handle.is_null()
}

fn gpus() -> usize {
    std::fs::read_dir("/proc/driver/nvidia/gpus").map_or(0, Iterator::count)
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
