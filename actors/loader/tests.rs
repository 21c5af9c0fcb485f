//! Orders and free slots in any interleaving give the same full slots in the same order.

use std::sync::Arc;

use crossbeam::channel::{Receiver, unbounded};
use octet_kernels::collectives::LaneTree;
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};

use crate::actor::{Actor, Closed, Flow, Port};
use crate::contract::{ProgramId, Purpose, Workload};
use crate::fault::ActorName;
use crate::loader::{BatchSlot, Loader, LoaderMessage, Order, SLOTS, SlotShape, parts_of};
use crate::sim::toy::{Random, Tiny, expected, tiny};

/// What a slot says, and its records.
type Filled = (u64, u64, Vec<Vec<u8>>);

struct Bench {
    loader: Loader,
    full: Receiver<BatchSlot>,
    workload: Arc<dyn Workload>,
    shape: SlotShape,
}

fn bench(ranks: usize, rank: usize) -> Bench {
    let options = Tiny { micro_batches: 8, tasks: vec![5, 1], ..Tiny::default() };
    let workload: Arc<dyn Workload> = Arc::new(tiny(&options));
    let tree = LaneTree::new(4, ranks).unwrap();
    let (tell, full) = unbounded();
    let port = Port::new(move |slot| tell.send(slot).map_err(|_| Closed));
    let loader = Loader::new(workload.clone(), &tree, rank, port);
    let shape = SlotShape::new(&*workload, &tree, rank);
    Bench { loader, full, workload, shape }
}

impl Bench {
    fn slot(&self) -> BatchSlot {
        BatchSlot::without_device(self.shape).unwrap()
    }

    fn tell(&mut self, message: LoaderMessage) {
        assert_eq!(self.loader.apply(message), Ok(Flow::Continue));
    }
}

fn contents(slot: &BatchSlot) -> Filled {
    let records = (0..slot.filled).map(|i| slot.record(i).to_vec()).collect();
    (slot.ticket, slot.sequence, records)
}

/// Two steps, one of them twice, and both tasks.
const ORDERS: [Order; 5] = [
    Order::Step { ticket: 1, batch: 6, attempt: 0 },
    Order::Evaluate { ticket: 2, task: 0 },
    Order::Step { ticket: 3, batch: 7, attempt: 0 },
    Order::Step { ticket: 5, batch: 7, attempt: 1 },
    Order::Evaluate { ticket: 8, task: 1 },
];

/// What a rank must get for [`ORDERS`].
fn wanted(bench: &Bench, ranks: usize, rank: usize) -> Vec<Filled> {
    let owned =
        bench.workload.batch().micro_batches_of(&LaneTree::new(4, ranks).unwrap().lanes_of(rank));
    let record = |purpose, program| expected(&*bench.workload, purpose, ProgramId(program));
    let mut slots = Vec::new();
    for order in ORDERS {
        match order {
            Order::Step { ticket, batch: step, attempt } => {
                let of = |micro_batch| record(Purpose::Train { step, attempt, micro_batch }, 0);
                slots.push((ticket, 0, owned.clone().map(of).collect()));
            }
            Order::Evaluate { ticket, task } => {
                let parts = bench.workload.evaluations()[task].parts;
                let parts: Vec<u64> = parts_of(parts, rank, ranks).collect();
                let mut chunks: Vec<&[u64]> = parts.chunks(bench.shape.records).collect();
                if chunks.is_empty() {
                    chunks.push(&[]);
                }
                for (sequence, chunk) in chunks.into_iter().enumerate() {
                    let of = |&part: &u64| record(Purpose::Evaluate { task, part }, 1);
                    slots.push((ticket, sequence as u64, chunk.iter().map(of).collect()));
                }
            }
        }
    }
    slots
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96, failure_persistence: None, ..Default::default()
    })]

    #[test]
    fn any_interleaving_gives_the_same_slots(
        seed in any::<u64>(), ranks in 1usize..=4, rank in 0usize..4,
    ) {
        let rank = rank % ranks;
        let mut bench = bench(ranks, rank);
        let mut random = Random::new(seed);
        let mut orders = ORDERS.iter();
        let mut free: Vec<BatchSlot> = (0..SLOTS).map(|_| bench.slot()).collect();
        let mut got: Vec<Filled> = Vec::new();
        let wanted = wanted(&bench, ranks, rank);
        while got.len() < wanted.len() {
            match random.below(3) {
                0 => if let Some(&order) = orders.next() {
                    bench.tell(LoaderMessage::Order(order));
                },
                1 => if let Some(slot) = free.pop() {
                    bench.tell(LoaderMessage::Free(slot));
                },
                _ => if let Ok(slot) = bench.full.try_recv() {
                    got.push(contents(&slot));
                    free.push(slot);
                },
            }
            prop_assert!(bench.full.len() + free.len() + bench.loader.free.len() == SLOTS);
        }
        prop_assert_eq!(got, wanted);
        prop_assert!(bench.full.is_empty() && bench.loader.orders.is_empty());
    }
}

#[test]
fn an_order_waits_for_slots_and_abandoned_slots_come_back() {
    let mut bench = bench(1, 0);
    for order in ORDERS {
        bench.tell(LoaderMessage::Order(order));
    }
    assert!(bench.full.is_empty());
    for _ in 0..SLOTS {
        let slot = bench.slot();
        bench.tell(LoaderMessage::Free(slot));
    }
    assert_eq!(bench.full.len(), SLOTS, "it fills ahead, as far as the ring goes");
    // The rank wants ticket 5, and hands back what belongs to work that was given up.
    let mut passed = Vec::new();
    loop {
        let slot = bench.full.try_recv().unwrap();
        if slot.ticket == 5 {
            break;
        }
        passed.push(slot.ticket);
        bench.tell(LoaderMessage::Free(slot));
    }
    assert_eq!(passed, [1, 2, 3]);
    assert_eq!(bench.loader.name(), ActorName::Loader(0));
}

#[test]
fn a_rank_without_a_part_gets_an_empty_slot() {
    let mut bench = bench(4, 3);
    let slot = bench.slot();
    bench.tell(LoaderMessage::Free(slot));
    bench.tell(LoaderMessage::Order(Order::Evaluate { ticket: 9, task: 1 }));
    assert_eq!(contents(&bench.full.try_recv().unwrap()), (9, 0, vec![]));
}
