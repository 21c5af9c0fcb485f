//! A disk that takes nothing more, by a limit of file size on the engine: the run goes on as long
//! as it can, and the earlier checkpoints stay.

use crate::harness::{Home, Running, checkpoints, notes, reference};

/// Enough for logs and summaries, too little for any file of a checkpoint.
const LITTLE: u64 = 60_000;

/// Limits the size of files that a process writes.
fn limit(process: i32, bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: reads one limit that lives longer than the call.
    let done = unsafe {
        libc::prlimit(process, libc::RLIMIT_FSIZE, &raw const limit, std::ptr::null_mut())
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

fn full(run: &mut Running) -> bool {
    run.until(|run| notes(run.folder()).iter().any(|note| note.contains("was not written")))
}

#[test]
fn a_full_disk_costs_a_checkpoint_and_not_the_run() {
    let home = Home::new();
    let mut run = home.start("runs/full", &[]);
    assert!(run.until_step(1) && run.until(|run| run.engine().is_some()));
    let engine = run.engine().unwrap();
    limit(engine, LITTLE);
    assert!(full(&mut run), "no checkpoint failed");
    limit(engine, libc::RLIM_INFINITY);
    let end = run.wait();
    assert!(end.success(), "{end:?}");
    assert!(end.stdout.contains("a checkpoint was not written, the run goes on"), "{end:?}");
    assert_eq!(&crate::harness::RunResult::of(&home.path("runs/full")), reference());
}

#[test]
fn a_disk_that_stays_full_ends_the_run_and_earlier_checkpoints_are_whole() {
    let home = Home::new();
    let mut run = home.start("runs/full", &[]);
    assert!(run.until(|run| checkpoints(run.folder()).len() == 1));
    let parent = run.parent();
    // The engines to come as well.
    limit(parent, LITTLE);
    assert!(run.until(|run| run.engine().is_some()));
    limit(run.engine().unwrap(), LITTLE);
    let end = run.wait();
    assert_eq!(end.code(), Some(75), "{end:?}");
    assert!(end.stderr.contains("saving step 30: cannot"), "{}", end.stderr);
    let folder = home.path("runs/full");
    let newest = checkpoints(&folder).pop().unwrap();
    // What is claimed is what is saved.
    let read = |path| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    let (summary, manifest) =
        (read(folder.join("summary.json")), read(newest.join("manifest.json")));
    assert_eq!(summary["digest"], manifest["digest"]);
    let steps = |key: &str| summary[key].as_u64().unwrap();
    assert_eq!(manifest["step"], steps("steps"), "{summary}");
    assert_eq!(
        (steps("steps") + steps("unsaved_steps"), steps("tokens")),
        (30, steps("steps") * 512)
    );
    assert_eq!(&home.train("runs/full", &[]), reference());
}
