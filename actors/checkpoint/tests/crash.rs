//! The machine stops, or the disk fills, at every single operation of a save: what is found
//! afterwards is the old checkpoint or the new one, whole.

use std::path::Path;

use crate::checkpoint::tests::{ROOT, SETTINGS, save, store};
use crate::checkpoint::{CheckpointError, StoreSettings, verify};
use crate::outside::Disk;
use crate::outside::faulty::{FaultyDisk, Loss, Moment, Trouble};

const LOSSES: [Loss; 8] = [
    Loss::Nothing,
    Loss::Unsynced,
    Loss::Contents,
    Loss::Names,
    Loss::Random { seed: 1 },
    Loss::Random { seed: 2 },
    Loss::Random { seed: 3 },
    Loss::Random { seed: 4 },
];

/// What happens to the disk: a save and the removal of old checkpoints.
struct Scenario {
    /// Step and seed of what is there before, in order.
    before: &'static [(u64, u8)],
    /// What is being saved.
    new: (u64, u8),
    settings: StoreSettings,
}

/// One file of the model, two of the optimizer.
const THREE_FILES: StoreSettings = StoreSettings { file_bytes_max: 8000, ..SETTINGS };
const KEEP_ONE: StoreSettings = StoreSettings { keep_last: 1, ..THREE_FILES };

const SCENARIOS: [Scenario; 4] = [
    Scenario { before: &[], new: (1, 1), settings: THREE_FILES },
    Scenario { before: &[(1, 1)], new: (2, 2), settings: THREE_FILES },
    // The same step again, after a roll-back: the old one is replaced.
    Scenario { before: &[(2, 1)], new: (2, 2), settings: THREE_FILES },
    Scenario { before: &[(1, 1), (2, 2)], new: (3, 3), settings: KEEP_ONE },
];

impl Scenario {
    fn prepare(&self) -> FaultyDisk {
        let disk = FaultyDisk::new();
        disk.create_folders(Path::new("/run")).expect("folder");
        for (step, seed) in self.before {
            save(&store(&disk, self.settings), *step, *seed).expect("save");
        }
        // Counting starts again.
        disk.reboot(Loss::Nothing);
        disk
    }

    fn run(&self, disk: &FaultyDisk) -> Result<String, CheckpointError> {
        let store = store(disk, self.settings);
        let saved = save(&store, self.new.0, self.new.1)?;
        store.retain(self.new.0, u64::MAX)?;
        Ok(saved.digest)
    }

    /// Digests of the newest before and of the new one.
    fn expected(&self) -> (Option<String>, String) {
        let old = newest(&self.prepare());
        let disk = self.prepare();
        let new = self.run(&disk).expect("nothing is planned");
        assert_eq!(newest(&disk), Some(new.clone()));
        (old, new)
    }
}

/// The digest of what a start finds; nothing may be damaged, however old.
fn newest(disk: &FaultyDisk) -> Option<String> {
    let store = store(disk, SETTINGS);
    let verified = |step| verify(disk, &store.folder(step), 1).expect("not damaged").digest;
    let all: Vec<String> = store.steps().expect("list").into_iter().map(verified).collect();
    let search = store.find_newest_good().expect("search");
    let found = search.newest.map(|found| found.manifest.digest);
    assert_eq!(found.as_ref(), all.last());
    found
}

fn operations(scenario: &Scenario) -> u64 {
    let disk = scenario.prepare();
    scenario.run(&disk).expect("nothing is planned");
    assert!(disk.operations() > 14 && disk.writes() > 3, "the plan covers the save");
    disk.operations()
}

/// A crash before every operation, and one in the middle of every write.
fn crashes(scenario: &Scenario) -> Vec<(Moment, Trouble)> {
    let disk = scenario.prepare();
    scenario.run(&disk).expect("nothing is planned");
    let before = (0..disk.operations()).map(|n| (Moment::Operation(n), Trouble::Crash));
    let amid = (0..disk.writes()).map(|n| (Moment::Write(n), Trouble::Torn));
    before.chain(amid).collect()
}

#[test]
fn a_crash_at_any_operation_leaves_the_old_or_the_new() {
    for scenario in &SCENARIOS {
        let (old, new) = scenario.expected();
        let base = scenario.prepare();
        for (moment, trouble) in crashes(scenario) {
            for loss in LOSSES {
                let disk = base.copy();
                disk.plan(moment, trouble);
                let what = format!("{:?}: {trouble:?} at {moment:?}, {loss:?}", scenario.new);
                let answer = scenario.run(&disk);
                assert!(disk.crashed(), "{what}");
                disk.reboot(loss);
                store(&disk, scenario.settings).recover().expect("recover");
                let found = newest(&disk);
                assert!(found == old || found.as_ref() == Some(&new), "{what}: {found:?}");
                assert!(answer.is_err() || found.as_ref() == Some(&new), "{what}: it was saved");
                let names = names(&disk);
                assert!(names.iter().all(|n| n.starts_with("step-")), "{what}: {names:?}");
                assert_eq!(scenario.run(&disk).expect("the next try works"), new, "{what}");
                assert_eq!(newest(&disk).as_ref(), Some(&new), "{what}");
            }
        }
    }
}

fn names(disk: &FaultyDisk) -> Vec<String> {
    let root = Path::new(ROOT);
    if disk.exists(root) { disk.list(root).expect("list") } else { Vec::new() }
}

#[test]
fn a_finished_save_survives_a_power_failure() {
    for scenario in &SCENARIOS {
        for loss in LOSSES {
            let disk = scenario.prepare();
            let new = scenario.run(&disk).expect("nothing is planned");
            disk.reboot(loss);
            store(&disk, SETTINGS).recover().expect("recover");
            assert_eq!(newest(&disk), Some(new.clone()), "{loss:?}");
        }
    }
}

#[test]
fn a_crash_while_recovering_loses_nothing_either() {
    let scenario = &SCENARIOS[2];
    let (old, new) = scenario.expected();
    let base = scenario.prepare();
    for n in 0..operations(scenario) {
        for again in 0..4 {
            for loss in LOSSES {
                let disk = base.copy();
                disk.plan(Moment::Operation(n), Trouble::Crash);
                let _answer = scenario.run(&disk);
                assert!(disk.crashed());
                disk.reboot(Loss::Nothing);
                disk.plan(Moment::Operation(again), Trouble::Crash);
                let _answer = store(&disk, SETTINGS).recover();
                disk.reboot(loss);
                store(&disk, SETTINGS).recover().expect("recover");
                let found = newest(&disk);
                assert!(found == old || found.as_ref() == Some(&new), "{n} {again} {loss:?}");
            }
        }
    }
}

#[test]
fn a_disk_that_fills_at_any_operation_leaves_the_old_or_the_new() {
    for scenario in &SCENARIOS {
        let (old, new) = scenario.expected();
        let base = scenario.prepare();
        for n in 0..operations(scenario) {
            let disk = base.copy();
            disk.plan(Moment::Operation(n), Trouble::Full);
            let answer = scenario.run(&disk);
            let found = newest(&disk);
            match answer {
                Ok(digest) => assert_eq!(found, Some(digest), "at {n}"),
                Err(e) => assert!(e.to_string().contains(" /"), "names a path: {e}"),
            }
            assert!(found == old || found.as_ref() == Some(&new), "at {n}: {found:?}");
            let names = names(&disk);
            assert!(!names.contains(&".step-00000002.tmp".into()), "at {n}: {names:?}");
            assert_eq!(scenario.run(&disk).expect("the next try works"), new, "at {n}");
        }
    }
}
