//! Results that cannot be written: a sentence and an exit code, never a panic and never silence.

use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use crate::harness::Place;

/// Every command that gives a result, with and without `--json`.
const COMMANDS: [&str; 17] = [
    "plan tiny.toml --target h200",
    "plan tiny.toml --target h200 --json",
    "plan tiny.toml --target h200 --search",
    "inspect run",
    "inspect run --json",
    "inspect run/checkpoints/step-00000006",
    "inspect cache/train-00000.oct",
    "verify run",
    "diff run run",
    "diff run run --json",
    "evaluate run",
    "evaluate run --json",
    "generate run --tokens 8",
    "prepare tiny.toml",
    "prepare tiny.toml --json",
    "doctor --json",
    "bench step tiny.toml --steps 1 --json",
];

fn command(place: &Place, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_octet"));
    command.current_dir(place.path("")).args(line.split(' '));
    command
}

#[test]
fn a_result_that_no_disk_takes_is_a_failure_in_a_sentence() {
    let place = Place::new();
    place.train("run", &[]);
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    for line in COMMANDS {
        let output = command(&place, line).stdout(full()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(75), "{line}: {said}");
        assert_eq!(said.lines().count(), 1, "{line}: {said}");
        assert!(said.starts_with("octet: cannot write to standard output: No space"), "{said}");
        // What would be said of it has nowhere to go either.
        let output = command(&place, line).stdout(full()).stderr(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(75), "{line}");
    }
    let output = command(&place, "plan nothing.toml").stderr(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_reader_who_has_gone_ends_a_command_as_it_ends_others() {
    let place = Place::new();
    place.train("run", &[]);
    for line in COMMANDS {
        let mut command = command(&place, line);
        let (reader, writer) = std::io::pipe().unwrap();
        // Gone before the command writes anything.
        drop(reader);
        let child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGPIPE), "{line}: {:?}", output.status);
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{line}");
    }
}
