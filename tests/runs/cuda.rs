//! Training on pretended GPUs by the program itself: the ordinary loader opens a stand-in for the
//! driver (`kernels/cuda/stand_in/`) by its setting. Streams run late, in random legal orders; what
//! is asked of a GPU, the host computes. Its bits are the CPU's, whatever happens on the way.

use std::path::PathBuf;

use octet_kernels::cuda::testing::Pretended;

use crate::harness::{End, Home, RunResult, Running, checkpoints, notes};

/// Two layers are enough to wait for each other.
const SHORT: [&str; 4] =
    ["model.layers=2", "run.steps=12", "checkpoint.every=4", "checkpoint.memory_every=1"];

/// About the middle of a run, in pieces of work of all streams.
const MIDDLE: u64 = 9000;

/// Exit code of a run that stops for the world's sake, saved.
const WORLD: i32 = 75;

/// Runs with a stand-in for the driver.
struct Gpus {
    home: Home,
    driver: Pretended,
}

impl Gpus {
    fn new() -> Option<Self> {
        let driver = Pretended::new("runs::cuda", "")?;
        Some(Self { home: Home::new(), driver })
    }

    fn path(&self, run: &str) -> PathBuf {
        self.home.path(run)
    }

    /// What the CPU makes of the same run.
    fn of_the_cpu(&self) -> RunResult {
        self.home.train("runs/cpu", &[&SHORT[..], &["run.device=cpu"]].concat())
    }

    /// Starts a run on so many GPUs, with more settings of the stand-in.
    fn start(&self, run: &str, gpus: usize, sets: &[&str], settings: &str) -> Running {
        let ranks = format!("run.ranks={gpus}");
        let cuda = ["run.device=cuda", &ranks];
        let mut command = self.home.command("train", &[&SHORT[..], &cuda, sets].concat());
        command.env("OCTET_CUDA_LIBRARIES", &self.driver.folder);
        command.env("OCTET_STAND_IN", format!("devices={gpus},{settings}"));
        command.arg("--run").arg(run);
        Running::start(command, self.path(run))
    }

    fn train(&self, run: &str, gpus: usize, settings: &str) -> RunResult {
        let end = self.start(run, gpus, &[], settings).wait();
        assert!(end.success(), "{run} on {gpus}: {end:?}");
        RunResult::of(&self.path(run))
    }

    /// Faults of the first engine alone.
    fn once(&self, name: &str) -> String {
        format!("once={}", self.path(name).display())
    }
}

#[test]
fn pretended_gpus_end_with_the_cpus_bits() {
    let Some(gpus) = Gpus::new() else { return };
    let cpu = gpus.of_the_cpu();
    for ranks in [1, 2, 8] {
        let run = format!("runs/{ranks}");
        assert_eq!(gpus.train(&run, ranks, &format!("seed={ranks}")), cpu, "{ranks} ranks");
    }
}

#[test]
fn a_killed_run_goes_on_with_other_gpus() {
    let Some(gpus) = Gpus::new() else { return };
    let mut run = gpus.start("runs/killed", 2, &[], "seed=5");
    assert!(run.until(|_| !checkpoints(&gpus.path("runs/killed")).is_empty()));
    run.kill();
    assert_eq!(gpus.train("runs/killed", 8, "seed=6"), gpus.of_the_cpu());
}

/// A run that has stopped by itself, with words of why and a state to go on from.
fn has_stopped(gpus: &Gpus, run: &str, end: &End, words: &[&str]) {
    assert_eq!(end.code(), Some(WORLD), "{end:?}");
    for word in words {
        assert!(end.stderr.contains(word), "no {word:?} in {}", end.stderr);
    }
    assert!(!checkpoints(&gpus.path(run)).is_empty(), "nothing is saved");
    assert_eq!(gpus.train(run, 2, "seed=9"), gpus.of_the_cpu());
}

#[test]
fn a_gpu_without_the_memory_is_named_and_what_was_saved_stays() {
    let Some(gpus) = Gpus::new() else { return };
    let mut run = gpus.start("runs/small", 2, &[], "seed=7");
    assert!(run.until(|_| !checkpoints(&gpus.path("runs/small")).is_empty()));
    run.kill();
    // Who else uses a GPU may leave it: a start is tried again before it is given up.
    let end = gpus.start("runs/small", 2, &[], "fail=cuMemAlloc_v2:2:2").wait();
    let words = ["rank ", "cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY", "bytes asked of stand-in"];
    has_stopped(&gpus, "runs/small", &end, &words);
}

#[test]
fn a_lost_gpu_is_named_and_the_run_stops_saved() {
    let Some(gpus) = Gpus::new() else { return };
    let end = gpus.start("runs/lost", 2, &[], &format!("fail=work:{MIDDLE}:46")).wait();
    has_stopped(&gpus, "runs/lost", &end, &["rank ", "CUDA_ERROR_DEVICE_UNAVAILABLE"]);
    assert!(!end.stderr.contains("starting it again"), "{}", end.stderr);
}

/// The run came to its end with another engine, for a reason that is noted.
fn came_through(gpus: &Gpus, run: &str, end: &End, why: &str) {
    assert!(end.success(), "{end:?}");
    let notes = notes(&gpus.path(run));
    let told = |note: &String| note.contains("started again") && note.contains(why);
    assert!(notes.iter().any(told), "no {why:?} in {notes:?}");
    assert_eq!(RunResult::of(&gpus.path(run)), gpus.of_the_cpu());
}

#[test]
fn a_broken_context_is_named_and_another_engine_goes_on() {
    let Some(gpus) = Gpus::new() else { return };
    let settings = format!("fail=work:{MIDDLE}:719,{}", gpus.once("broken"));
    let end = gpus.start("runs/broken", 2, &[], &settings).wait();
    came_through(&gpus, "runs/broken", &end, "CUDA_ERROR_LAUNCH_FAILED");
}

#[test]
fn a_gpu_that_hangs_is_named_and_another_engine_goes_on() {
    let Some(gpus) = Gpus::new() else { return };
    let settings = format!("hang={MIDDLE},{}", gpus.once("hung"));
    let end = gpus.start("runs/hung", 2, &["run.patience=8"], &settings).wait();
    came_through(&gpus, "runs/hung", &end, "without moving");
}
