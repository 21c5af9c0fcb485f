//! Data that are prepared while something goes wrong: a signal, a full disk.

use std::fs;
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use crate::harness::{Home, Random, Running};

/// A second is promised; a busy machine may be late to notice.
const SOON: Duration = Duration::from_secs(10);

/// A home whose text takes a while: words that hardly repeat.
fn home() -> Home {
    let home = Home::new();
    let mut random = Random(3);
    let mut text = String::new();
    while text.len() < 24 << 20 {
        for _ in 0..2 + random.below(9) {
            text.push(char::from(b'a' + random.below(26) as u8));
        }
        text.push(' ');
    }
    fs::write(home.path("text.txt"), text).unwrap();
    home
}

#[test]
fn a_signal_ends_the_preparation_soon_and_leaves_nothing() {
    let home = home();
    for (stage, command, code) in [
        ("data: making the tokenizer", "prepare", 130),
        ("data: encoding", "prepare", 130),
        ("data: encoding", "train", 0),
    ] {
        let mut program = home.command(command, &["data.tokenizer=bpe:2000"]);
        if command == "train" {
            program.args(["--run", "runs/told"]);
        }
        let mut run = Running::start(program, home.path("runs/told"));
        assert!(run.until(|run| run.said().0.contains(stage)), "{stage}: {:?}", run.said());
        let told = Instant::now();
        run.signal(libc::SIGINT);
        let end = run.wait();
        assert!(told.elapsed() < SOON, "{:?}", told.elapsed());
        assert_eq!(end.code(), Some(code), "{stage}: {end:?}");
        assert!(
            end.stderr.contains("interrupted") || end.stdout.contains("interrupted"),
            "{end:?}"
        );
        assert!(!home.path("cache").exists() && !home.path("runs").exists(), "{stage}");
    }
}

#[test]
fn a_full_disk_is_named_and_costs_nothing_but_the_try() {
    let home = Home::new();
    let before = home.files();
    // The file of all tokens takes 44 kB: a header and two bytes for each byte of text.
    for bytes in [4_000, 20_000, 43_000] {
        let mut program = home.command("prepare", &[]);
        // SAFETY: between fork and exec only an async-signal-safe call is made.
        unsafe {
            program.pre_exec(move || {
                let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
                libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit);
                Ok(())
            });
        }
        let end = Running::start(program, home.path("none")).wait();
        assert_eq!(end.code(), Some(75), "{end:?}");
        assert_eq!(end.stderr.lines().count(), 1, "{}", end.stderr);
        assert!(end.stderr.contains("cache/unfinished.tmp/spool"), "{}", end.stderr);
        assert!(end.stderr.contains("cannot write: File too large"), "{}", end.stderr);
        assert_eq!(home.files(), before);
    }
    let end = Running::start(home.command("prepare", &[]), home.path("none")).wait();
    assert!(end.success(), "{end:?}");
}
