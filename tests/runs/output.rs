//! Whoever does not read what a run says holds it up neither in a step nor at a signal, and whoever
//! reads no more ends nothing.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Home, RunResult, Running, checkpoints, reference};

/// A line and more at every step.
const TALKATIVE: [&str; 3] = ["evaluate.every=1", "evaluate.batches=1", "sample.every=1"];

/// Both ends of a pipe.
fn pipe() -> (File, File) {
    let mut ends = [0; 2];
    // SAFETY: writes two descriptors, which are ours alone.
    unsafe {
        assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
        ends.map(|end| File::from(OwnedFd::from_raw_fd(end))).into()
    }
}

fn set_blocking(file: &File, blocking: bool) {
    let flags = if blocking { 0 } else { libc::O_NONBLOCK };
    // SAFETY: sets the flags of an open descriptor.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) }, 0);
}

/// Writes until nothing more is taken.
fn fill(mut file: &File) {
    set_blocking(file, false);
    let refused = loop {
        if let Err(error) = file.write(&[b'x'; 512]) {
            break error;
        }
    };
    assert_eq!(refused.kind(), ErrorKind::WouldBlock);
    // A few bytes less than a block may be left.
    while file.write(b"x").is_ok() {}
    set_blocking(file, true);
}

/// A terminal on which somebody has pressed Ctrl-S: its other side, and the terminal.
fn stopped_terminal() -> (File, File) {
    let (mut master, mut slave) = (0, 0);
    let null = std::ptr::null_mut();
    // SAFETY: writes two descriptors, which are ours alone; the rest may be null.
    let (mut master, slave) = unsafe {
        assert_eq!(libc::openpty(&mut master, &mut slave, null, null.cast(), null.cast()), 0);
        (File::from_raw_fd(master), File::from_raw_fd(slave))
    };
    master.write_all(&[0x13]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    // It takes a moment until it is heard.
    set_blocking(&slave, false);
    while (&slave).write(b"x").is_ok() {
        assert!(Instant::now() < deadline, "the terminal does not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
    set_blocking(&slave, true);
    (master, slave)
}

fn start(home: &Home, run: &str, sets: &[&str], out: &File, err: &File) -> Running {
    let mut command = home.command("train", sets);
    command.arg("--run").arg(run);
    let stdio = |file: &File| Stdio::from(file.try_clone().unwrap());
    Running::start_with(command, home.path(run), (stdio(out), stdio(err)))
}

#[test]
fn a_pipe_that_nobody_reads_and_a_stopped_terminal_hold_nothing_up() {
    let home = Home::new();
    let quiet = home.train("runs/quiet", &TALKATIVE);
    assert_eq!(quiet.digest, reference().digest);
    let full = {
        let (reader, writer) = pipe();
        fill(&writer);
        (reader, writer)
    };
    for (name, (_other, end)) in [("runs/pipe", full), ("runs/terminal", stopped_terminal())] {
        let run = start(&home, name, &TALKATIVE, &end, &end);
        let ended = run.wait();
        assert!(ended.success(), "{name}: {ended:?}");
        assert_eq!(RunResult::of(&home.path(name)), quiet, "{name}");
        // The same at a signal, which is answered on stderr.
        let name = &format!("{name}-told");
        let sets = [&TALKATIVE[..], &["run.steps=100000", "schedule.steps=100000"]].concat();
        let mut run = start(&home, name, &sets, &end, &end);
        assert!(run.until_step(3), "it ended too early");
        run.signal(libc::SIGTERM);
        let ended = run.wait();
        assert!(ended.success(), "{name}: {ended:?}");
        assert!(!checkpoints(&home.path(name)).is_empty(), "{name} is saved");
    }
}

#[test]
fn a_reader_that_has_gone_and_a_full_disk_end_no_run() {
    let home = Home::new();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ended = start(&home, "runs/full", &[], &full, &full).wait();
    assert!(ended.success(), "{ended:?}");
    assert_eq!(&RunResult::of(&home.path("runs/full")), reference());
    // As `| head -1` does it.
    let (mut reader, writer) = pipe();
    let run = start(&home, "runs/head", &TALKATIVE, &writer, &writer);
    drop(writer);
    assert_eq!(reader.read(&mut [0]).unwrap(), 1);
    drop(reader);
    let ended = run.wait();
    assert!(ended.success(), "{ended:?}");
    assert_eq!(RunResult::of(&home.path("runs/head")).digest, reference().digest);
}

#[test]
fn a_command_that_waits_to_be_read_ends_at_the_first_signal() {
    let home = Home::new();
    home.train("runs/one", &[]);
    let (_reader, writer) = pipe();
    fill(&writer);
    for command in [&["evaluate", "--json"][..], &["generate", "--tokens", "20"]] {
        let mut look = Command::new(env!("CARGO_BIN_EXE_octet"));
        look.arg(command[0]).arg(home.path("runs/one")).args(&command[1..]);
        let stdio = || Stdio::from(writer.try_clone().unwrap());
        let mut run = Running::start_with(look, home.path("runs/one"), (stdio(), stdio()));
        // The thread that writes is there once something is said.
        let says = |run: &Running| {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", run.parent())).unwrap();
            let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm"));
            tasks.flatten().any(|task| name(task).is_ok_and(|name| name == "output\n"))
        };
        assert!(run.until(says), "{command:?}: nobody waits to be read: {:?}", run.said());
        run.signal(libc::SIGINT);
        let ended = run.wait();
        assert_eq!(ended.code(), Some(0), "{command:?}: {ended:?}");
    }
}
