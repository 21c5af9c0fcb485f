//! A folder with a text and a configuration, and the program run in it.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use assert_cmd::Command;
use tempfile::TempDir;

const CONFIG: &str = r#"
[run]
steps = 6
threads = 1

[data]
text = "text.txt"
tokenizer = "bytes"
cache = "cache"

[batch]
micro = 2
global = 4
sequence_length = 32

[model]
layers = 2
heads = 2
width = 32

[schedule]
learning_rate = 1e-3
warmup = 2

[checkpoint]
every = 2
keep = 9

[evaluate]
every = 3

[sample]
every = 3
prompt = "The "
tokens = 16
"#;

/// A folder of its own.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let line = |i: usize| format!("The {i}th line of a text says {}.\n", i * i);
        let text: String = (0..150).map(line).collect();
        fs::write(folder.path().join("text.txt"), text).unwrap();
        fs::write(folder.path().join("tiny.toml"), CONFIG).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::cargo_bin("octet").unwrap();
        command.current_dir(self.folder.path()).args(arguments).output().unwrap()
    }

    /// What a command prints that has to succeed.
    pub(crate) fn prints(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Trains into `run`.
    pub(crate) fn train(&self, run: &str, sets: &[&str]) -> String {
        let mut arguments = vec!["train", "tiny.toml", "--run", run];
        for set in sets {
            arguments.extend(["--set", set]);
        }
        self.prints(&arguments)
    }

    /// The one sentence of a command that is refused as bad input.
    pub(crate) fn refusal(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
        errors
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.prints(arguments)).unwrap()
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The lines of one kind in a run's log.
    pub(crate) fn log(&self, run: &str, kind: &str) -> Vec<serde_json::Value> {
        let lines = self.read(&format!("{run}/log.jsonl"));
        let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.filter(|line: &serde_json::Value| line["kind"] == kind).collect()
    }

    /// The digest at the end of a run.
    pub(crate) fn digest(&self, run: &str) -> String {
        let summary = self.read(&format!("{run}/summary.json"));
        let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
        summary["digest"].as_str().unwrap().to_string()
    }
}
