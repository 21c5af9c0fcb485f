//! Which state a run begins from: memory or disk, the newest that is good, or the first.

use std::path::PathBuf;
use std::sync::Arc;

use crate::checkpoint::{About, Store, StoreSettings};
use crate::checkpointer::RunFacts;
use crate::contract::Workload;
use crate::outside::Disk;
use crate::outside::faulty::FaultyDisk;
use crate::resume::{FirstState, ResumeError, earlier_state, first_state};
use crate::sim::toy::{Tiny, tiny};
use crate::snapshot::{Region, SlotFacts, SnapshotLayout, SnapshotSlots};
use crate::transfer::initialise;

struct Bench {
    workload: Arc<dyn Workload>,
    disk: FaultyDisk,
    slots: Arc<SnapshotSlots>,
    layout: Arc<SnapshotLayout>,
    facts: RunFacts,
}

fn bench() -> Bench {
    let workload: Arc<dyn Workload> = Arc::new(tiny(&Tiny::default()));
    let layout = Arc::new(SnapshotLayout::of(&*workload));
    let slots = SnapshotSlots::create(layout.bytes()).unwrap();
    let identity = [("lanes", "4"), ("data", "a")];
    let identity = identity.map(|(key, value)| (key.to_string(), value.to_string())).into();
    let facts = RunFacts { config_digest: "c".to_string(), identity, ..RunFacts::default() };
    Bench { workload, disk: FaultyDisk::new(), slots, layout, facts }
}

impl Bench {
    fn store(&self) -> Store {
        Store::new(Arc::new(self.disk.clone()), "/checkpoints", StoreSettings::default())
    }

    /// Commits a state of `step` in a slot; every float is `value`.
    fn commit(&self, slot: usize, step: u64, sequence: u64, value: f32) {
        let slot = self.slots.slot(slot, &self.layout);
        initialise(&*self.workload, &slot);
        // SAFETY: the test alone knows the slot.
        unsafe { slot.region(Region::Masters).as_mut_slice::<f32>() }.fill(value);
        let facts = SlotFacts { identity: self.facts.identity.clone(), ..SlotFacts::default() };
        slot.commit_with(step, &serde_json::json!({ "step": step }), &facts, sequence).unwrap();
    }

    /// Brings a slot to disk, which seals it. Returns the digest.
    fn save(&self, slot: usize) -> String {
        let slot = self.slots.slot(slot, &self.layout);
        let identity = self.facts.identity.clone();
        let about = About { identity, ..About::default() };
        self.store().save(&slot.view().unwrap(), &about).unwrap().digest
    }

    /// Checkpoints of these steps, and empty slots.
    fn on_disk(&mut self, steps: &[u64]) -> Vec<String> {
        let digests = steps
            .iter()
            .map(|&step| {
                self.commit(0, step, step, step as f32);
                self.save(0)
            })
            .collect();
        self.slots = SnapshotSlots::create(self.layout.bytes()).unwrap();
        digests
    }

    fn first(&self) -> Result<FirstState, ResumeError> {
        self.first_or(false)
    }

    fn first_or(&self, accept: bool) -> Result<FirstState, ResumeError> {
        let (store, facts) = (self.store(), &self.facts);
        first_state(&*self.workload, &store, &self.slots, &self.layout, facts, accept)
    }

    /// The value that fills the masters of the slot from which the run begins.
    fn value(&self, first: &FirstState) -> f32 {
        let slot = self.slots.slot(first.slot, &self.layout);
        // SAFETY: the test alone knows the slot.
        let values: &[f32] = unsafe { slot.region(Region::Masters).as_slice() };
        values[0]
    }

    fn flip(&self, step: u64, name: &str) -> PathBuf {
        let path = self.store().folder(step).join(name);
        let middle = self.disk.size(&path).unwrap() / 2;
        self.disk.flip_bit(&path, middle, 3);
        path
    }
}

#[test]
fn a_new_run_is_a_resume_from_the_first_state() {
    let bench = bench();
    let first = bench.first().unwrap();
    let (recovery, cursor, notes) = (serde_json::Value::Null, serde_json::Value::Null, vec![]);
    let (slot, step, digest, saved, on_disk) = (0, 0, None, None, false);
    let wanted = FirstState { slot, step, digest, on_disk, saved, recovery, cursor, notes };
    assert_eq!(first, wanted);
    assert_eq!(bench.value(&first), 0.0);
}

#[test]
fn the_newer_of_memory_and_disk_wins() {
    let mut bench = bench();
    let digests = bench.on_disk(&[2, 4]);
    let first = bench.first().unwrap();
    assert_eq!((first.step, first.digest.as_ref()), (4, digests.last()));
    assert_eq!(bench.value(&first), 4.0);
    // Memory goes beyond the disk.
    bench.commit(1, 6, 9, 6.0);
    let first = bench.first().unwrap();
    assert_eq!((first.slot, first.step, first.on_disk), (1, 6, false));
    assert_eq!(bench.value(&first), 6.0);
    // Even when it is sealed: the save may have failed right after that.
    bench.slots.slot(1, &bench.layout).seal().unwrap();
    assert!(!bench.first().unwrap().on_disk);
    // The disk goes beyond memory, whose slot then has the lower sequence number.
    bench.commit(0, 8, 10, 8.0);
    let digest = bench.save(0);
    bench.slots.slot(0, &bench.layout).invalidate();
    let first = bench.first().unwrap();
    assert_eq!((first.step, first.digest), (8, Some(digest)));
    let newest = bench.slots.newest_good(&bench.layout).good.unwrap();
    assert_eq!((newest.slot, newest.head.step), (first.slot, 8));
}

#[test]
fn the_same_state_in_both_is_taken_from_memory() {
    let bench = bench();
    bench.commit(1, 4, 3, 4.0);
    let digest = bench.save(1);
    let first = bench.first().unwrap();
    assert_eq!((first.slot, first.step, first.digest), (1, 4, Some(digest)));
    assert!(first.on_disk);
    // Another state of the same step is only in memory.
    bench.commit(1, 4, 5, 4.5);
    let first = bench.first().unwrap();
    assert_eq!((first.slot, first.on_disk, bench.value(&first)), (1, false, 4.5));
}

#[test]
fn damage_is_passed_over_and_told() {
    let mut bench = bench();
    bench.on_disk(&[2, 4]);
    let path = bench.flip(4, "model-00001.safetensors");
    bench.commit(1, 1, 1, 1.0);
    let first = bench.first().unwrap();
    assert_eq!((first.step, bench.value(&first)), (2, 2.0));
    assert_eq!(first.notes.len(), 1);
    assert!(first.notes[0].contains(&path.display().to_string()), "{:?}", first.notes);
    // A damaged slot as well: its seal says so.
    bench.commit(1, 9, 9, 9.0);
    let slot = bench.slots.slot(1, &bench.layout);
    slot.seal().unwrap();
    // SAFETY: the test alone knows the slot.
    let values: &mut [f32] = unsafe { slot.region(Region::Masters).as_mut_slice() };
    values[3] += 1.0;
    let first = bench.first().unwrap();
    assert_eq!((first.step, first.notes.len()), (2, 2));
    assert!(first.notes[0].contains("snapshot slot 1"), "{:?}", first.notes);
}

#[test]
fn memory_helps_when_nothing_on_disk_is_good() {
    let mut bench = bench();
    bench.on_disk(&[2, 4]);
    for step in [2, 4] {
        bench.flip(step, "manifest.json");
    }
    let refused = bench.first().unwrap_err().to_string();
    assert!(refused.starts_with("no checkpoint in /checkpoints is good"), "{refused}");
    assert!(refused.contains("step-00000004") && refused.contains("--fresh"), "{refused}");
    bench.commit(1, 3, 1, 3.0);
    let first = bench.first().unwrap();
    assert_eq!((first.step, first.notes.len(), first.digest.clone()), (3, 2, None));
}

#[test]
fn other_numerics_are_refused_by_name_or_accepted_and_told() {
    let mut bench = bench();
    bench.on_disk(&[2]);
    bench.facts.identity.insert("lanes".to_string(), "8".to_string());
    let refused = bench.first().unwrap_err();
    let ResumeError::Identity { key, was, now } = &refused else { panic!("{refused}") };
    assert_eq!((key.as_str(), was.as_str(), now.as_str()), ("lanes", "4", "8"));
    assert!(refused.to_string().contains("--accept-new-numerics"));
    let first = bench.first_or(true).unwrap();
    assert_eq!((first.step, first.notes), (2, vec!["accepted: lanes is 8 and was 4".to_string()]));
    // A fact that one of both does not have is a difference too.
    bench.facts.identity = [("data".to_string(), "a".to_string())].into();
    bench.slots = SnapshotSlots::create(bench.layout.bytes()).unwrap();
    let refused = bench.first().unwrap_err().to_string();
    assert!(refused.contains("lanes is absent and was 4"), "{refused}");
    bench.facts.identity.insert("lanes".to_string(), "4".to_string());
    bench.facts.identity.insert("backend".to_string(), "x".to_string());
    let refused = bench.first().unwrap_err().to_string();
    assert!(refused.contains("backend is x and was absent"), "{refused}");
}

#[test]
fn a_key_that_older_builds_did_not_know_is_compared_by_what_they_did() {
    let mut bench = bench();
    bench.on_disk(&[4]);
    bench.facts.identity.insert("rounding".into(), "none".into());
    let refused = bench.first().unwrap_err().to_string();
    assert!(refused.starts_with("rounding is none and was absent"), "{refused}");
    bench.facts.assumed.insert("rounding".into(), "none".into());
    // Of a key that this run does not have, nothing is assumed.
    bench.facts.assumed.insert("another".into(), "1".into());
    assert_eq!(bench.first().unwrap().step, 4);
    bench.facts.identity.insert("rounding".into(), "even".into());
    let refused = bench.first().unwrap_err().to_string();
    assert!(refused.starts_with("rounding is even and was none"), "{refused}");
}

#[test]
fn another_build_is_told_and_not_refused() {
    let mut bench = bench();
    bench.on_disk(&[2]);
    bench.facts.provenance = [("the program".to_string(), "octet 2".to_string())].into();
    let first = bench.first().unwrap();
    let [note] = &first.notes[..] else { panic!("{:?}", first.notes) };
    assert!(note.starts_with("the program is octet 2 and was absent"), "{note}");
}

#[test]
fn memory_alone_is_refused_under_other_numerics_too() {
    let mut bench = bench();
    bench.commit(1, 6, 9, 6.0);
    bench.facts.identity.insert("lanes".to_string(), "8".to_string());
    let refused = bench.first().unwrap_err();
    assert!(matches!(&refused, ResumeError::Identity { key, .. } if key == "lanes"), "{refused}");
    let first = bench.first_or(true).unwrap();
    assert_eq!((first.step, first.notes.len()), (6, 1));
}

#[test]
fn going_back_gives_up_what_lies_after_and_takes_the_newest_before() {
    let mut bench = bench();
    bench.on_disk(&[2, 4, 8]);
    bench.commit(0, 5, 11, 5.0);
    bench.commit(1, 9, 12, 9.0);
    let back = |bench: &Bench, step| {
        let (store, facts) = (bench.store(), &bench.facts);
        earlier_state(&*bench.workload, &store, &bench.slots, &bench.layout, facts, step)
    };
    let first = back(&bench, 7).unwrap();
    assert_eq!((first.step, bench.value(&first)), (5, 5.0));
    assert_eq!(bench.store().steps().unwrap(), [2, 4]);
    let first = back(&bench, 4).unwrap();
    assert_eq!((first.step, first.on_disk, bench.value(&first)), (4, true, 4.0));
    // Not the whole run, unless it is to begin again.
    let refused = back(&bench, 1).unwrap_err();
    assert!(matches!(refused, ResumeError::NothingEarlier { step: 1, newest: 4 }), "{refused}");
    assert_eq!(bench.store().steps().unwrap(), [2, 4]);
    let first = back(&bench, 0).unwrap();
    assert_eq!((first.step, bench.value(&first)), (0, 0.0), "as if it were new");
    assert_eq!(bench.store().steps().unwrap(), [0; 0]);
}
