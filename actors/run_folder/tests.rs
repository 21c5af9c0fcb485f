//! The run folder against a real file system: locks, old runs, torn and rewound logs.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::log::{Line, Log, LogError, Rewound, for_each_line};
use super::{RunFolder, RunFolderError, Start, check_place, read_json, replace_json};
use crate::outside::faulty::{FaultyDisk, Loss, Moment, Trouble};
use crate::outside::{Disk, LocalDisk};
use crate::report::{Counts, EvaluationReport, StepReport, WaitMs};

const NO_PATIENCE: Duration = Duration::ZERO;

fn run_in(folder: &TempDir) -> PathBuf {
    folder.path().join("runs/first")
}

fn step(step: u64, loss: f64) -> Line {
    Line::Step(StepReport {
        batch: None,
        step,
        tokens: step * 100,
        loss,
        targets: Some(8),
        losses: vec![("main".to_owned(), loss), ("auxiliary".to_owned(), 0.5)],
        learning_rate: 1e-3,
        grad_norm: 0.1 + 0.2,
        skipped: false,
        tokens_per_s: 1.0 / 3.0,
        step_ms: 10.0,
        flops_per_s: 1e12,
        mfu: None,
        wait_ms: WaitMs { loader: 0.25, reduce: 0.5, checkpoint: 0.0 },
        fingerprint: u64::MAX - 7,
        buckets: vec![],
    })
}

fn evaluation(step: u64) -> Line {
    Line::Evaluate(EvaluationReport {
        step,
        task: "held_out".to_owned(),
        loss: 2.0,
        perplexity: 2.0f64.exp(),
        bits_per_byte: Some(0.7),
        targets: 1000,
        measures: vec![],
    })
}

fn open(path: &Path) -> Log {
    Log::open(Arc::new(LocalDisk), path, |_| {}).unwrap().0
}

fn read_lines(path: &Path) -> Result<Vec<Line>, LogError> {
    super::log::read_lines(&LocalDisk, path)
}

fn write_log(path: &Path, lines: &[Line]) {
    let mut log = open(path);
    for line in lines {
        log.append(line).unwrap();
    }
}

#[test]
fn a_new_folder_has_the_layout_and_a_resume_finds_its_configuration() {
    let temporary = TempDir::new().unwrap();
    let path = run_in(&temporary);
    {
        let folder = RunFolder::open(&path, Start::Resume, NO_PATIENCE).unwrap();
        assert_eq!(folder.read_config().unwrap(), None);
        folder.write_config("[run]\nsteps = 3\n").unwrap();
        for part in [folder.checkpoints(), folder.events(), folder.trace(), folder.samples()] {
            assert!(part.is_dir(), "{}", part.display());
        }
        fs::write(folder.web(), "{}").unwrap();
    }
    let folder = RunFolder::open(&path, Start::Resume, NO_PATIENCE).unwrap();
    assert_eq!(folder.read_config().unwrap().as_deref(), Some("[run]\nsteps = 3\n"));
    assert_eq!(folder.moved_to(), None);
    assert!(!folder.web().exists(), "the address of a dead server must go");
}

#[test]
fn fresh_moves_old_runs_aside_and_deletes_nothing() {
    let temporary = TempDir::new().unwrap();
    let path = run_in(&temporary);
    for run in 0..3 {
        let folder = RunFolder::open(&path, Start::Fresh, NO_PATIENCE).unwrap();
        assert_eq!(folder.read_config().unwrap(), None);
        folder.write_config(&format!("run = {run}")).unwrap();
        let expected = (run > 0).then(|| temporary.path().join(format!("runs/first.old-{run}")));
        assert_eq!(folder.moved_to(), expected.as_deref());
    }
    for (name, config) in [("first.old-1", "run = 0"), ("first.old-2", "run = 1")] {
        let old = temporary.path().join("runs").join(name).join("config.toml");
        assert_eq!(fs::read_to_string(old).unwrap(), config);
    }
}

#[test]
fn fresh_reuses_a_folder_whose_start_ended_before_its_configuration() {
    let temporary = TempDir::new().unwrap();
    let path = run_in(&temporary);
    drop(RunFolder::open(&path, Start::Fresh, NO_PATIENCE).unwrap());
    let folder = RunFolder::open(&path, Start::Fresh, NO_PATIENCE).unwrap();
    assert_eq!(folder.moved_to(), None);
}

#[test]
fn a_second_engine_is_told_who_has_the_folder() {
    let temporary = TempDir::new().unwrap();
    let path = run_in(&temporary);
    let mut held = RunFolder::open(&path, Start::Resume, NO_PATIENCE).unwrap();
    for start in [Start::Resume, Start::Fresh] {
        let refused = RunFolder::open(&path, start, NO_PATIENCE).unwrap_err();
        assert!(matches!(refused, RunFolderError::Busy { .. }));
        let sentence = refused.to_string();
        assert!(sentence.contains(&format!("process {}", std::process::id())), "{sentence}");
        assert!(sentence.contains("runs/first is in use"), "{sentence}");
    }
    // An engine is not the one to stop.
    held.name_parent(4242).unwrap();
    let refused = RunFolder::open(&path, Start::Resume, NO_PATIENCE).unwrap_err().to_string();
    assert!(refused.contains("in use by process 4242 "), "{refused}");
    drop(held);
    let _again = RunFolder::open(&path, Start::Resume, NO_PATIENCE).unwrap();
    let refused = RunFolder::open(&path, Start::Resume, NO_PATIENCE).unwrap_err().to_string();
    assert!(!refused.contains("4242"), "{refused}");
}

#[test]
fn a_start_waits_for_the_lock_of_a_dying_engine() {
    let temporary = TempDir::new().unwrap();
    let path = run_in(&temporary);
    let held = RunFolder::open(&path, Start::Resume, NO_PATIENCE).unwrap();
    held.write_config("old").unwrap();
    let dying = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        drop(held);
    });
    let begun = Instant::now();
    let folder = RunFolder::open(&path, Start::Fresh, Duration::from_secs(10)).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(150));
    assert!(folder.moved_to().is_some());
    dying.join().unwrap();
}

#[test]
fn starts_that_race_for_a_fresh_folder_leave_one_owner_of_the_name() {
    let temporary = TempDir::new().unwrap();
    let path = run_in(&temporary);
    let starts: Vec<_> = (0..4)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || {
                let folder = RunFolder::open(&path, Start::Fresh, Duration::from_secs(20))?;
                folder.write_config("mine")?;
                folder.read_config()
            })
        })
        .collect();
    for start in starts {
        assert_eq!(start.join().unwrap().unwrap().as_deref(), Some("mine"));
    }
    // Who loses the race for the new name moves the winner's run aside in turn.
    let runs: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().flatten().collect();
    assert_eq!(runs.len(), 4);
    for run in runs {
        assert_eq!(fs::read_to_string(run.path().join("config.toml")).unwrap(), "mine");
    }
}

#[test]
fn a_folder_of_other_files_is_refused_untouched() {
    let temporary = TempDir::new().unwrap();
    fs::write(temporary.path().join("thesis.tex"), "text").unwrap();
    for start in [Start::Resume, Start::Fresh] {
        let refused = RunFolder::open(temporary.path(), start, NO_PATIENCE).unwrap_err();
        assert!(matches!(refused, RunFolderError::NotARun { .. }), "{refused}");
    }
    let names: Vec<_> = fs::read_dir(temporary.path()).unwrap().flatten().collect();
    assert_eq!(names.len(), 1);
}

#[test]
fn a_path_that_cannot_be_a_folder_is_an_error_and_not_a_wait() {
    let temporary = TempDir::new().unwrap();
    let (file, link) = (temporary.path().join("file"), temporary.path().join("link"));
    fs::write(&file, "").unwrap();
    // As to a disk that is not mounted.
    let nowhere = temporary.path().join("no/such/folder");
    std::os::unix::fs::symlink(&nowhere, &link).unwrap();
    for path in [&file, &link] {
        let refused = RunFolder::open(path, Start::Resume, NO_PATIENCE).unwrap_err();
        assert!(matches!(refused, RunFolderError::Disk(_)), "{refused}");
        assert!(refused.to_string().contains(&path.display().to_string()), "{refused}");
    }
}

#[test]
fn json_files_are_replaced_whole_and_errors_name_them() {
    let temporary = TempDir::new().unwrap();
    let path = temporary.path().join("summary.json");
    replace_json(&LocalDisk, &path, &vec![1, 2]).unwrap();
    replace_json(&LocalDisk, &path, &vec![3]).unwrap();
    assert_eq!(read_json::<Vec<u32>>(&LocalDisk, &path).unwrap(), [3]);
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 1, "no temporary file stays");
    fs::write(&path, "[3,\n oops]").unwrap();
    let sentence = read_json::<Vec<u32>>(&LocalDisk, &path).unwrap_err().to_string();
    assert!(sentence.contains("summary.json") && sentence.contains("line 2"), "{sentence}");
}

#[test]
fn lines_come_back_as_they_were_written() {
    let temporary = TempDir::new().unwrap();
    let path = temporary.path().join("log.jsonl");
    let actor_restarts = [("loader 1".to_owned(), 2)].into();
    let counts = Counts { tokens: 7, engine_restarts: 1, actor_restarts, ..Counts::default() };
    let lines = [
        Line::Time { unix_ms: 1_700_000_000_000, wall_time_s: 0.1, counts },
        step(1, 0.1 + 0.7),
        evaluation(1),
        Line::Note { step: 1, what: "a \"quoted\"\nword".to_owned() },
        Line::Checkpoint {
            step: 1,
            ms: 12.5,
            path: "checkpoints/step-00000001".to_owned(),
            unix_ms: Some(1_700_000_000_001),
        },
    ];
    write_log(&path, &lines);
    assert_eq!(read_lines(&path).unwrap(), lines);
    let text = fs::read_to_string(&path).unwrap();
    let kinds = ["time", "step", "evaluate", "note", "checkpoint"];
    for (line, kind) in text.lines().zip(kinds) {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(object["kind"], kind);
    }
    assert_eq!(text.lines().count(), kinds.len());
}

#[test]
fn a_loss_that_is_not_a_number_survives_the_log() {
    let temporary = TempDir::new().unwrap();
    let path = temporary.path().join("log.jsonl");
    write_log(&path, &[step(1, f64::NAN)]);
    let lines = read_lines(&path).unwrap();
    let [Line::Step(report)] = lines.as_slice() else { panic!("{lines:?}") };
    assert!(report.loss.is_nan() && report.losses[0].1.is_nan());
    assert_eq!(report.losses[1].1, 0.5);
}

#[test]
fn a_torn_last_line_is_no_line_and_the_next_append_is_whole() {
    let temporary = TempDir::new().unwrap();
    let path = temporary.path().join("log.jsonl");
    write_log(&path, &[step(1, 3.0), step(2, 2.0)]);
    let whole = fs::read(&path).unwrap();
    let first = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    for cut in [first + 1, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        assert_eq!(read_lines(&path).unwrap(), [step(1, 3.0)]);
        write_log(&path, &[step(2, 1.5)]);
        assert_eq!(read_lines(&path).unwrap(), [step(1, 3.0), step(2, 1.5)]);
    }
    // A file of one torn line, longer than the window that looks for a newline.
    fs::write(&path, vec![b'x'; 200_000]).unwrap();
    write_log(&path, &[step(1, 3.0)]);
    assert_eq!(read_lines(&path).unwrap(), [step(1, 3.0)]);
}

#[test]
fn a_broken_line_in_the_middle_is_named() {
    let temporary = TempDir::new().unwrap();
    let path = temporary.path().join("log.jsonl");
    write_log(&path, &[step(1, 3.0)]);
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"kind\":\n").unwrap();
    write_log(&path, &[step(2, 2.0)]);
    let mut seen = 0;
    let error = for_each_line(&LocalDisk, &path, |_: Line| seen += 1).unwrap_err();
    assert!(matches!(error, LogError::Line { line: 2, .. }));
    assert!(error.to_string().contains("log.jsonl:2: not a line"), "{error}");
    assert_eq!(seen, 1);
}

#[test]
fn a_rewind_drops_later_steps_and_appending_goes_on() {
    let temporary = TempDir::new().unwrap();
    let path = temporary.path().join("log.jsonl");
    let start = Line::Time { unix_ms: 5, wall_time_s: 0.0, counts: Counts::default() };
    let note = Line::Note { step: 2, what: "kept".to_owned() };
    let early = [start.clone(), step(1, 3.0), step(2, 2.0), evaluation(2), note];
    let mut log = open(&path);
    for line in &early {
        log.append(line).unwrap();
    }
    assert_eq!(log.rewind(2, |_| {}).unwrap(), Rewound { kept: 5, dropped: 0, unreadable: 0 });
    for line in [step(3, 1.0), evaluation(3), start.clone(), step(4, 1.0)] {
        log.append(&line).unwrap();
    }
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"\0\0\n").unwrap();
    assert_eq!(log.rewind(2, |_| {}).unwrap(), Rewound { kept: 6, dropped: 3, unreadable: 1 });
    log.append(&step(3, 0.9)).unwrap();
    let mut expected = early.to_vec();
    expected.extend([start, step(3, 0.9)]);
    assert_eq!(read_lines(&path).unwrap(), expected);
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn what_a_refused_write_leaves_is_cut_off_before_the_next_line() {
    let disk = FaultyDisk::new();
    let path = Path::new("log.jsonl");
    let (mut log, _) = Log::open(Arc::new(disk.clone()), path, |_: &Line| {}).unwrap();
    let lines = || super::log::read_lines(&disk, path).unwrap();
    log.append(&step(1, 3.0)).unwrap();
    // The disk fills up in the middle of the second line.
    disk.set_capacity(disk.size(path).unwrap() + 20);
    for _ in 0..3 {
        assert!(log.append(&step(2, 2.0)).unwrap_err().is_full());
        assert_eq!(lines(), [step(1, 3.0)]);
    }
    disk.set_capacity(u64::MAX);
    log.append(&step(2, 2.0)).unwrap();
    assert_eq!(lines(), [step(1, 3.0), step(2, 2.0)]);
}

#[test]
fn a_crash_anywhere_in_a_rewind_leaves_the_old_log_or_the_new_one() {
    let path = Path::new("log.jsonl");
    let before = FaultyDisk::new();
    let (mut log, _) = Log::open(Arc::new(before.clone()), path, |_| {}).unwrap();
    let old: Vec<_> = (1..=4).map(|number| step(number, 1.0)).collect();
    for line in &old {
        log.append(line).unwrap();
    }
    log.sync().unwrap();
    before.sync_folder(Path::new("")).unwrap();
    for moment in 0.. {
        for loss in [Loss::Nothing, Loss::Unsynced, Loss::Contents, Loss::Names] {
            let disk = before.copy();
            let (mut log, _) = Log::open(Arc::new(disk.clone()), path, |_: &Line| {}).unwrap();
            disk.plan(Moment::Operation(disk.operations() + moment), Trouble::Crash);
            let done = log.rewind(2, |_| {});
            if done.is_ok() {
                assert!(moment >= 5, "only {moment} operations");
                return;
            }
            disk.reboot(loss);
            let lines = super::log::read_lines(&disk, path).unwrap();
            assert!(lines == old || lines == old[..2], "{loss:?} before {moment}: {lines:?}");
        }
    }
}

#[test]
fn a_run_behind_a_link_stays_on_its_disk() {
    let home = TempDir::new().unwrap();
    let (link, target) = (home.path().join("run"), home.path().join("large/run"));
    fs::create_dir(home.path().join("large")).unwrap();
    std::os::unix::fs::symlink("large/run", &link).unwrap();
    // The link may be there before what it leads to.
    let folder = RunFolder::open(&link, Start::Resume, NO_PATIENCE).unwrap();
    assert_eq!(folder.path(), target);
    folder.write_config("first = 1\n").unwrap();
    drop(folder);
    let folder = RunFolder::open(&link, Start::Fresh, NO_PATIENCE).unwrap();
    let old = home.path().join("large/run.old-1");
    assert_eq!((folder.path(), folder.moved_to()), (&*target, Some(&*old)));
    assert_eq!(fs::read_to_string(old.join("config.toml")).unwrap(), "first = 1\n");
    assert!(link.is_symlink() && link.join("lock").exists(), "the link still leads to the run");
    assert!(!home.path().join("run.old-1").exists());
}

#[test]
fn what_is_in_the_way_of_a_run_folder_is_said_before_it_is_made() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("file");
    fs::write(&file, "x").unwrap();
    assert_eq!(check_place(&home.path().join("new/run")), Ok(()));
    assert_eq!(check_place(home.path()), Ok(()));
    for path in ["file", "file/", "file/run", "file/."] {
        let said = check_place(&home.path().join(path)).unwrap_err();
        assert_eq!(said, format!("expected a folder, but {} is a file", file.display()), "{path}");
    }
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "nothing was made");
}
