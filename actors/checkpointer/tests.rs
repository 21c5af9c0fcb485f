//! The checkpointer, fed with messages.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, unbounded};
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};
use proptest::sample::select;

use crate::actor::{Actor, Closed, Flow, Port};
use crate::checkpoint::tests::{SETTINGS, store};
use crate::checkpoint::{Manifest, StoreSettings};
use crate::checkpointer::{Checkpointer, CheckpointerMessage, CheckpointerReply, RunFacts};
use crate::fault::Blame;
use crate::outside::ManualClock;
use crate::outside::faulty::{FaultyDisk, Loss, Moment, Trouble};
use crate::sim::toy::{Tiny, tiny};
use crate::snapshot::tests::{cursor, fill, layout};
use crate::snapshot::{SnapshotLayout, SnapshotSlots};

struct Bench {
    disk: FaultyDisk,
    slots: Arc<SnapshotSlots>,
    layout: Arc<SnapshotLayout>,
    actor: Checkpointer,
    replies: Receiver<CheckpointerReply>,
}

fn bench(settings: StoreSettings) -> Bench {
    let (disk, layout) = (FaultyDisk::new(), layout(64));
    let slots = SnapshotSlots::create(layout.bytes()).expect("memory");
    let clock = Arc::new(ManualClock::new());
    clock.advance(Duration::from_secs(5));
    let (tell, replies) = unbounded();
    let port = Port::new(move |reply| tell.send(reply).map_err(|_| Closed));
    let facts = RunFacts { config_digest: "c0ffee".into(), ..RunFacts::default() };
    let actor = Checkpointer::new(
        store(&disk, settings),
        slots.clone(),
        layout.clone(),
        clock,
        facts,
        Arc::new(tiny(&Tiny::default())),
        port,
    );
    Bench { disk, slots, layout, actor, replies }
}

impl Bench {
    fn commit(&self, slot: usize, step: u64) {
        let slot = self.slots.slot(slot, &self.layout);
        fill(&slot, step as u8, 0);
        slot.commit(step, &cursor(step), step).expect("commit");
    }

    fn save(&mut self, slot: usize, step: u64) -> CheckpointerReply {
        self.tell(CheckpointerMessage::Save { slot, step, parent: None, back_to: step })
    }

    fn tell(&mut self, message: CheckpointerMessage) -> CheckpointerReply {
        assert_eq!(self.actor.apply(message), Ok(Flow::Continue));
        self.replies.try_recv().expect("an answer to every request")
    }

    fn steps(&self) -> Vec<u64> {
        store(&self.disk, SETTINGS).steps().expect("steps")
    }
}

#[test]
fn it_saves_seals_thins_out_and_stops() {
    let mut bench = bench(StoreSettings { keep_last: 2, ..SETTINGS });
    for step in 1..=4 {
        let slot = step as usize % 2;
        bench.commit(slot, step);
        let reply = bench.save(slot, step);
        let CheckpointerReply::Saved { digest, path, removed, bytes, .. } = reply else {
            panic!("{reply:?}");
        };
        let manifest = Manifest::read(&bench.disk, &path).expect("manifest");
        assert_eq!((manifest.step, &manifest.digest), (step, &digest));
        assert_eq!((manifest.bytes(), manifest.saved_unix_ms), (bytes, 5000));
        assert_eq!(manifest.config_digest, "c0ffee");
        assert_eq!(removed, if step > 2 { vec![step - 2] } else { vec![] });
        let good = bench.slots.newest_good(&bench.layout).good.expect("the slot is still good");
        assert_eq!(good.head.digest, Some(digest));
    }
    bench.commit(1, 5);
    let reply = bench.tell(CheckpointerMessage::Seal { slot: 1, step: 5 });
    let head = bench.slots.slot(1, &bench.layout).head().expect("head");
    let CheckpointerReply::Sealed { digest, .. } = reply else { panic!("{reply:?}") };
    assert_eq!(head.digest, Some(digest));
    assert_eq!(bench.steps(), [3, 4], "a seal writes no file");
    assert_eq!(bench.actor.apply(CheckpointerMessage::Stop), Ok(Flow::Stop));
}

#[test]
fn a_wrong_slot_is_our_fault_and_does_no_harm() {
    let mut bench = bench(SETTINGS);
    let empty = bench.save(0, 1);
    bench.commit(0, 2);
    let other = bench.save(0, 1);
    for reply in [empty, other] {
        let CheckpointerReply::Failed { step: 1, slot: 0, fault, no_space: false } = reply else {
            panic!("{reply:?}");
        };
        assert_eq!(fault.blame, Blame::Ours, "{fault}");
    }
    assert!(bench.steps().is_empty());
}

#[test]
fn a_full_disk_is_told_and_the_run_goes_on() {
    let mut bench = bench(SETTINGS);
    bench.commit(0, 1);
    bench.save(0, 1);
    bench.disk.set_capacity(1 << 20);
    bench.commit(1, 2);
    let reply = bench.save(1, 2);
    let CheckpointerReply::Failed { step: 2, slot: 1, fault, no_space: true } = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(fault.blame, Blame::World);
    assert!(fault.what.contains("step-00000002") && fault.what.contains("are free"), "{fault}");
    // It fills up only while it is written.
    bench.disk.set_capacity(u64::MAX);
    bench.disk.plan(Moment::Operation(bench.disk.operations() + 6), Trouble::Full);
    let reply = bench.save(1, 2);
    let full = matches!(reply, CheckpointerReply::Failed { step: 2, no_space: true, .. });
    assert!(full, "{reply:?}");
    bench.commit(0, 3);
    assert!(matches!(bench.save(0, 3), CheckpointerReply::Saved { .. }));
    assert_eq!(bench.steps(), [1, 3]);
}

#[test]
fn old_checkpoints_that_stay_are_told_and_the_save_counts() {
    let mut bench = bench(StoreSettings { keep_last: 1, ..SETTINGS });
    bench.commit(0, 1);
    bench.save(0, 1);
    let before = bench.disk.operations();
    bench.commit(1, 2);
    bench.save(1, 2);
    // The third save has as many operations as the second, of which the last three tidy up.
    let last = bench.disk.operations() + (bench.disk.operations() - before) - 3;
    bench.disk.plan(Moment::Operation(last), Trouble::Full);
    bench.commit(0, 3);
    let first = bench.save(0, 3);
    let CheckpointerReply::NotTidied { fault } = first else { panic!("{first:?}") };
    assert!(fault.what.contains("removing checkpoints"), "{fault}");
    assert!(matches!(bench.replies.try_recv(), Ok(CheckpointerReply::Saved { step: 3, .. })));
    assert_eq!(bench.steps(), [2, 3]);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Any history of saves with troubles in between: every request is answered once, and what was
    /// answered with `Saved` is what a start finds.
    #[test]
    fn what_was_saved_is_found(
        troubles in proptest::collection::vec(
            (0u64..60, select(vec![Trouble::Full, Trouble::Crash, Trouble::Torn])), 1..6),
        seed in any::<u64>(),
    ) {
        let mut bench = bench(StoreSettings { keep_last: 2, ..SETTINGS });
        let (mut step, mut newest) = (0, None);
        for (after, trouble) in troubles {
            bench.disk.plan(Moment::Operation(bench.disk.operations() + after), trouble);
            for slot in [0, 1] {
                step += 1;
                bench.commit(slot, step);
                let message = CheckpointerMessage::Save { slot, step, parent: None, back_to: step };
                prop_assert_eq!(bench.actor.apply(message), Ok(Flow::Continue));
                let mut answers = 0;
                for reply in bench.replies.try_iter() {
                    answers += usize::from(!matches!(reply, CheckpointerReply::NotTidied { .. }));
                    if let CheckpointerReply::Saved { digest, .. } = reply {
                        newest = Some((step, digest));
                    }
                }
                prop_assert_eq!(answers, 1);
            }
            if bench.disk.crashed() {
                bench.disk.reboot(Loss::Random { seed });
                store(&bench.disk, SETTINGS).recover().expect("recover");
            }
            let search = store(&bench.disk, SETTINGS).find_newest_good().expect("search");
            prop_assert!(search.damaged.is_empty(), "{:?}", search.damaged);
            let found = search.newest.map(|f| (f.manifest.step, f.manifest.digest));
            // One that failed only after its last rename may be there as well.
            let later = found.as_ref().map(|f| f.0) > newest.as_ref().map(|n| n.0);
            prop_assert!(later || found == newest, "{found:?} {newest:?}");
        }
    }
}
