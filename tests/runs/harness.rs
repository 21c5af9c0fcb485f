//! A home for runs, the program as a child process, and what a run leaves behind.
//!
//! Every home has its own text, cache and run folders in a temporary folder. A child that is still
//! there when its handle is dropped is killed, and its engine dies with it.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Steps of every run that has a reference.
pub(crate) const STEPS: u64 = 30;

/// Nothing here takes as long, even on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Deep enough that 30 steps outlast a moment in which a test gets no processor.
const CONFIG: &str = r#"
[run]
steps = 30
threads = 1

[data]
tokenizer = "bytes"

[batch]
micro = 2
global = 16
sequence_length = 32

[model]
family = "dense"
layers = 8
heads = 4
kv_heads = 2
width = 32
feed_forward = 96
norm = "rms_norm"
positions = "rope"
activation = "swiglu"
dtype = "f32"

[schedule]
shape = "cosine"
learning_rate = 3e-3
minimum = 3e-4
warmup = 5

[checkpoint]
every = 5
keep = 3

[evaluate]
every = 7
batches = 3
"#;

/// A folder with a text, a configuration and run folders.
pub(crate) struct Home {
    folder: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        let home = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(home.path("text.txt"), text(20_000)).unwrap();
        fs::write(home.path("run.toml"), CONFIG).unwrap();
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `octet COMMAND run.toml` on this home's text and cache, with more `--set` arguments.
    pub(crate) fn command(&self, command: &str, sets: &[&str]) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_octet"));
        program.current_dir(self.folder.path()).arg(command).arg("run.toml");
        for set in ["data.text=text.txt", "data.cache=cache"].iter().chain(sets) {
            program.arg("--set").arg(set);
        }
        program
    }

    /// Starts a training in the run folder `name`.
    pub(crate) fn start(&self, name: &str, sets: &[&str]) -> Running {
        let mut command = self.command("train", sets);
        command.arg("--run").arg(name);
        Running::start(command, self.path(name))
    }

    /// Trains to the end, which must be a good one.
    pub(crate) fn train(&self, name: &str, sets: &[&str]) -> RunResult {
        let end = self.start(name, sets).wait();
        assert!(end.success(), "{name} with {sets:?}: {end:?}");
        RunResult::of(&self.path(name))
    }

    /// Every file below the home, with its length.
    pub(crate) fn files(&self) -> Vec<(PathBuf, u64)> {
        let mut files = Vec::new();
        let mut folders = vec![self.folder.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let about = entry.metadata().unwrap();
                files.push((entry.path(), if about.is_dir() { 0 } else { about.len() }));
                if about.is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        files.sort();
        files
    }
}

/// The run that nobody disturbed: one rank, one thread.
pub(crate) fn reference() -> &'static RunResult {
    static REFERENCE: OnceLock<RunResult> = OnceLock::new();
    REFERENCE.get_or_init(|| Home::new().train("runs/reference", &[]))
}

/// Lines of words, the same in every home.
pub(crate) fn text(bytes: usize) -> String {
    const WORDS: [&str; 12] = [
        "the ",
        "lane ",
        "of ",
        "a ",
        "step ",
        "holds ",
        "every ",
        "sum ",
        "in ",
        "order ",
        "again,\n",
        "and so on.\n\n",
    ];
    let mut random = Random(7);
    let mut text = String::new();
    while text.len() < bytes {
        text.push_str(WORDS[random.below(WORDS.len() as u64) as usize]);
    }
    text
}

/// A small generator (splitmix64): the same seed, the same moments.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// How a child ended, and what it said.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl End {
    pub(crate) fn success(&self) -> bool {
        self.status.success()
    }

    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

/// A child and its run folder.
pub(crate) struct Running {
    child: Child,
    folder: PathBuf,
    said: TempDir,
}

impl Running {
    pub(crate) fn start(command: Command, folder: PathBuf) -> Self {
        let said = tempfile::tempdir().unwrap();
        let [out, err] = ["stdout", "stderr"].map(|name| said.path().join(name));
        let [out, err] = [out, err].map(|path| Stdio::from(File::create(path).unwrap()));
        Self::start_in(said, command, folder, (out, err))
    }

    /// As [`Self::start`], with another stdout and stderr.
    pub(crate) fn start_with(command: Command, folder: PathBuf, outputs: (Stdio, Stdio)) -> Self {
        let said = tempfile::tempdir().unwrap();
        for name in ["stdout", "stderr"] {
            File::create(said.path().join(name)).unwrap();
        }
        Self::start_in(said, command, folder, outputs)
    }

    fn start_in(
        said: TempDir,
        mut command: Command,
        folder: PathBuf,
        (out, err): (Stdio, Stdio),
    ) -> Self {
        command.stdout(out).stderr(err);
        Self { child: command.spawn().unwrap(), folder, said }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn parent(&self) -> i32 {
        self.child.id() as i32
    }

    /// The engine's process number, which stands first in the lock.
    pub(crate) fn engine(&self) -> Option<i32> {
        let text = fs::read_to_string(self.folder.join("lock")).ok()?;
        let engine: i32 = text.lines().next()?.parse().ok()?;
        // The lock of an engine that is gone keeps its number until the next one has it.
        let about = fs::read_to_string(format!("/proc/{engine}/status")).ok()?;
        about.lines().any(|l| l == format!("PPid:\t{}", self.parent())).then_some(engine)
    }

    /// Waits until `ready`, while the child lives. False: it ended before.
    pub(crate) fn until(&mut self, mut ready: impl FnMut(&Self) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if ready(self) {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(Instant::now() < deadline, "it never came: {:?}", self.said());
            sleep(Duration::from_millis(1));
        }
    }

    /// Waits until the log holds `step`. False: the child ended before.
    pub(crate) fn until_step(&mut self, step: u64) -> bool {
        self.until(|run| last_step(&run.folder) >= step)
    }

    pub(crate) fn signal(&self, signal: i32) {
        send(self.parent(), signal);
    }

    /// Waits for the end.
    pub(crate) fn wait(mut self) -> End {
        self.until(|_| false);
        let status = self.child.wait().unwrap();
        let (stdout, stderr) = self.said();
        End { status, stdout, stderr }
    }

    /// SIGKILL, at once. The engine follows.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        let killed = status.signal() == Some(libc::SIGKILL);
        assert!(killed || status.success(), "{status:?}: {:?}", self.said());
    }

    pub(crate) fn said(&self) -> (String, String) {
        let read = |name| fs::read_to_string(self.said.path().join(name)).unwrap();
        (read("stdout"), read("stderr"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After `wait` there is nobody left to kill.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

pub(crate) fn send(process: i32, signal: i32) {
    // SAFETY: sends a signal; touches no memory.
    unsafe { libc::kill(process, signal) };
}

/// Whole lines of a run's log.
pub(crate) fn log_lines(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("log.jsonl")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn notes(folder: &Path) -> Vec<String> {
    let lines = log_lines(folder);
    let notes = lines.iter().filter(|line| line["kind"] == "note");
    notes.map(|line| line["what"].as_str().unwrap().to_owned()).collect()
}

fn last_step(folder: &Path) -> u64 {
    log_lines(folder).iter().rev().find_map(step_of).unwrap_or(0)
}

fn step_of(line: &Value) -> Option<u64> {
    (line["kind"] == "step").then(|| line["step"].as_u64().unwrap())
}

/// What must be the same however a run was run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RunResult {
    pub(crate) digest: String,
    /// By step: loss, norm and fingerprints; by evaluation: loss and targets.
    pub(crate) lines: Vec<Value>,
}

impl RunResult {
    pub(crate) fn of(folder: &Path) -> Self {
        let summary: Value =
            serde_json::from_slice(&fs::read(folder.join("summary.json")).unwrap()).unwrap();
        let digest = summary["digest"].as_str().expect("a digest").to_owned();
        let kept = ["kind", "step", "task", "loss", "grad_norm", "fingerprint", "targets"];
        let lines = log_lines(folder)
            .into_iter()
            .filter(|line| line["kind"] == "step" || line["kind"] == "evaluate");
        let pick = |line: Value| kept.iter().map(|&k| line[k].clone()).collect();
        Self { digest, lines: lines.map(pick).collect() }
    }
}

/// Names of the checkpoints of a run, oldest first.
pub(crate) fn checkpoints(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder.join("checkpoints")) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|p| p.file_name().unwrap().to_str().unwrap().starts_with("step-"));
    paths.sort();
    paths
}

/// Turns one bit in the middle of a file.
pub(crate) fn flip_bit(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(path, bytes).unwrap();
}
