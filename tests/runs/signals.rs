//! SIGINT, SIGTERM and SIGHUP save and end well; a second SIGINT or SIGTERM ends at once.

use std::time::{Duration, Instant};

use crate::harness::{Home, Running, checkpoints, reference};

/// "Within seconds", on a machine that is busy with other things.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_signal_saves_and_the_run_goes_on_with_the_same_bits() {
    let home = Home::new();
    let signals = [
        (libc::SIGINT, "run.ranks=1", 3),
        (libc::SIGTERM, "run.ranks=4", 6),
        (libc::SIGHUP, "run.ranks=2", 9),
    ];
    let mut saved = 0;
    for (signal, ranks, step) in signals {
        // A step of this leg, not one that the log holds already: then the program listens.
        let step = step.max(saved + 1);
        let mut run = home.start("runs/told", &[ranks]);
        assert!(run.until_step(step), "it ended before step {step}");
        let told = Instant::now();
        run.signal(signal);
        if signal == libc::SIGHUP {
            // A terminal that closes may say so more than once.
            std::thread::sleep(Duration::from_millis(2));
            run.signal(signal);
        }
        let end = run.wait();
        assert!(end.success() && told.elapsed() < SOON, "{:?}: {end:?}", told.elapsed());
        if saved > 0 && end.stdout.contains("done: ") {
            // On a busy machine the signal may come when nothing is left to do.
            break;
        }
        let (_, rest) = end.stdout.split_once("saved at step ").expect(&end.stdout);
        saved = rest.split(' ').next().unwrap().parse().unwrap();
        assert!(saved >= step, "{saved}");
        let newest = checkpoints(&home.path("runs/told")).pop().unwrap();
        assert!(newest.ends_with(format!("step-{saved:08}")), "{newest:?}");
    }
    assert_eq!(&home.train("runs/told", &[]), reference());
}

#[test]
fn a_second_signal_ends_at_once_and_the_last_checkpoint_is_whole() {
    let home = Home::new();
    let mut run = home.start("runs/told", &["run.ranks=2"]);
    let saved = |run: &Running| !checkpoints(run.folder()).is_empty();
    assert!(run.until(saved), "it ended too early");
    run.signal(libc::SIGINT);
    run.signal(libc::SIGTERM);
    let told = Instant::now();
    let end = run.wait();
    assert_eq!(end.code(), Some(130), "{end:?}");
    assert!(told.elapsed() < Duration::from_secs(5));
    assert!(!end.stdout.contains("saved at step"), "{end:?}");
    assert_eq!(&home.train("runs/told", &[]), reference());
}

#[test]
fn sigusr1_saves_now_and_the_run_goes_on_with_the_same_bits() {
    let home = Home::new();
    let mut run = home.start("runs/told", &["checkpoint.every=0", "run.ranks=2"]);
    assert!(run.until_step(4), "it ended too early");
    run.signal(libc::SIGUSR1);
    let saved = |run: &Running| !checkpoints(run.folder()).is_empty();
    assert!(run.until(saved), "it ended before it saved");
    let end = run.wait();
    assert!(end.success(), "{end:?}");
    let all = checkpoints(&home.path("runs/told"));
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(!all[0].ends_with("step-00000030") && all[1].ends_with("step-00000030"), "{all:?}");
    assert_eq!(&crate::harness::RunResult::of(&home.path("runs/told")), reference());
}

#[test]
fn a_run_stops_after_its_time_and_the_same_command_goes_on() {
    let home = Home::new();
    let start = |time: &str, more: &[&str]| {
        let mut command = home.command("train", more);
        command.args(["--run", "runs/timed", "--stop-after", time]);
        Running::start(command, home.path("runs/timed")).wait()
    };
    let refused = start("soon", &[]);
    assert_eq!(refused.code(), Some(2), "{refused:?}");
    assert!(refused.stderr.contains("expected a time like 23h45m"), "{refused:?}");
    // Far more steps than fit into the time.
    let mut before = 0;
    for _ in 0..2 {
        let end = start("3s", &["run.steps=1000000", "schedule.steps=30", "evaluate.every=0"]);
        assert!(end.success() && end.stdout.contains("saved at step "), "{end:?}");
        let (_, rest) = end.stdout.split_once("saved at step ").unwrap();
        let saved: u64 = rest.split(' ').next().unwrap().parse().unwrap();
        assert!(saved > before, "{saved} after {before}");
        before = saved;
    }
}

#[test]
fn a_signal_right_after_the_start_loses_nothing() {
    let home = Home::new();
    for delay in [20, 60, 120, 250] {
        let run = home.start("runs/early", &[]);
        std::thread::sleep(Duration::from_millis(delay));
        run.signal(libc::SIGTERM);
        let end = run.wait();
        // Before the program listens, the signal ends it as it ends any other.
        let unheard = std::os::unix::process::ExitStatusExt::signal(&end.status);
        assert!(end.success() || unheard == Some(libc::SIGTERM), "{delay} ms: {end:?}");
    }
    assert_eq!(&home.train("runs/early", &[]), reference());
}

/// A home whose held-out text takes a while to evaluate.
fn slow_home() -> Home {
    let home = Home::new();
    std::fs::write(home.path("text.txt"), crate::harness::text(1_500_000)).unwrap();
    home
}

/// Sends a signal once the log holds `step`, and while what follows it goes on; the run must be
/// saved there within seconds. The same command then ends where an undisturbed run does.
fn interrupted_after(step: u64, sets: &[&str], signal: i32) {
    let home = slow_home();
    let mut run = home.start("runs/told", sets);
    assert!(run.until_step(step), "it ended before step {step}");
    std::thread::sleep(Duration::from_millis(30));
    let told = Instant::now();
    run.signal(signal);
    let end = run.wait();
    assert!(end.success() && told.elapsed() < SOON, "{:?}: {end:?}", told.elapsed());
    assert!(end.stdout.contains(&format!("saved at step {step} ")), "{end:?}");
    let newest = checkpoints(&home.path("runs/told")).pop().unwrap();
    assert!(newest.ends_with(format!("step-{step:08}")), "{newest:?}");
    // What was given up is done first by the next start; here it only must not be in its way.
    let mut again =
        home.start("runs/told", &[sets, &["evaluate.batches=1", "sample.tokens=8"]].concat());
    assert!(again.until_step(step + 1), "it does not go on");
    again.signal(signal);
    assert!(again.wait().success());
}

#[test]
fn a_signal_during_an_evaluation_gives_it_up_and_saves() {
    let sets = ["data.validation_fraction=0.5", "evaluate.every=3", "evaluate.batches=100000"];
    interrupted_after(3, &sets, libc::SIGINT);
}

#[test]
fn a_signal_while_text_is_written_gives_it_up_and_saves() {
    let sets = ["evaluate.every=0", "sample.every=3", "sample.tokens=1000000"];
    interrupted_after(3, &sets, libc::SIGTERM);
}

#[test]
fn a_signal_while_checkpoints_are_written_saves_the_last_step() {
    let home = Home::new();
    for step in [4, 9] {
        let mut run = home.start("runs/told", &["checkpoint.every=1", "checkpoint.memory_every=1"]);
        assert!(run.until_step(step), "it ended before step {step}");
        let told = Instant::now();
        run.signal(libc::SIGTERM);
        let end = run.wait();
        assert!(end.success() && told.elapsed() < SOON, "{:?}: {end:?}", told.elapsed());
    }
    assert_eq!(&home.train("runs/told", &[]), reference());
}
