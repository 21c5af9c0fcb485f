//! Bytes arrive whole, memory is free again on return, and whatever goes wrong ends in an error.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::collectives::{Communicator, LocalCommunicator, LocalGroup};
use crate::error::{Error, Result};
use crate::memory::DeviceSlice;

const PATIENCE: Duration = Duration::from_secs(60);
const RANKS: [usize; 5] = [1, 2, 3, 4, 8];

/// What nobody has written.
const POISON: u8 = 0xAA;

/// Runs one thread per rank, which owns its communicator; results in rank order.
fn on_ranks<T: Send>(
    ranks: usize,
    timeout: Duration,
    body: impl Fn(LocalCommunicator) -> T + Sync,
) -> Vec<T> {
    let group = LocalGroup::new(ranks, timeout);
    std::thread::scope(|scope| {
        let body = &body;
        let start = |rank| scope.spawn(move || body(rank));
        let threads: Vec<_> = group.into_iter().map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// A byte that depends on everything, and is never poison.
fn byte(call: usize, from: usize, to: usize, i: usize) -> u8 {
    ((call * 131 + from * 31 + to * 17 + i * 7) % 151) as u8
}

fn data(call: usize, from: usize, to: usize, length: usize) -> Vec<u8> {
    (0..length).map(|i| byte(call, from, to, i)).collect()
}

/// Odd lengths, some 0, different for every pair and call.
fn length(call: usize, from: usize, to: usize) -> usize {
    [0, 1, 13, 0, 257, 64, 4099][(call * 3 + from * 5 + to * 2) % 7]
}

/// Memory for parts of given lengths with a poisoned byte between any two of them.
struct Parts {
    memory: Vec<u8>,
    spans: Vec<(usize, usize)>,
}

impl Parts {
    fn new(lengths: impl Iterator<Item = usize>) -> Self {
        let mut end = 1;
        let mut span = |length| {
            let start = end;
            end += length + 1;
            (start, length)
        };
        let spans = lengths.map(&mut span).collect();
        Self { memory: vec![POISON; end], spans }
    }

    fn slices(&mut self) -> Vec<DeviceSlice> {
        let all = DeviceSlice::from_host(&mut self.memory);
        self.spans.iter().map(|&(start, length)| all.part(start, length)).collect()
    }

    fn fill(&mut self, part: usize, bytes: &[u8]) {
        let (start, length) = self.spans[part];
        self.memory[start..start + length].copy_from_slice(bytes);
    }

    /// True if the parts hold exactly this and nothing between them was touched.
    fn holds(&self, part: impl Fn(usize) -> Vec<u8>) -> bool {
        let mut expected = vec![POISON; self.memory.len()];
        for (number, &(start, length)) in self.spans.iter().enumerate() {
            expected[start..start + length].copy_from_slice(&part(number));
        }
        self.memory == expected
    }
}

fn all_gather(group: &mut LocalCommunicator, call: usize, in_place: bool) -> Result<()> {
    let (rank, size) = (group.rank(), group.size());
    let mut own = data(call, rank, 0, length(call, rank, 0));
    let mut receive = Parts::new((0..size).map(|q| length(call, q, 0)));
    if in_place {
        receive.fill(rank, &own);
    }
    let slices = receive.slices();
    let send = if in_place { slices[rank] } else { DeviceSlice::from_host(&mut own) };
    // SAFETY: the vectors are this rank's own and outlive the call.
    unsafe { group.all_gather(send, &slices) }?;
    own.fill(POISON);
    assert!(receive.holds(|q| data(call, q, 0, length(call, q, 0))), "call {call}");
    // Others may no longer look at what was sent.
    receive.memory.fill(POISON);
    Ok(())
}

fn all_to_all(group: &mut LocalCommunicator, call: usize, in_place: bool) -> Result<()> {
    let (rank, size) = (group.rank(), group.size());
    let mut send = Parts::new((0..size).map(|q| length(call, rank, q)));
    for q in 0..size {
        send.fill(q, &data(call, rank, q, length(call, rank, q)));
    }
    let mut receive = Parts::new((0..size).map(|q| length(call, q, rank)));
    let (mut from, to) = (send.slices(), receive.slices());
    if in_place {
        receive.fill(rank, &data(call, rank, rank, length(call, rank, rank)));
        from[rank] = to[rank];
    }
    // SAFETY: the vectors are this rank's own and outlive the call.
    unsafe { group.all_to_all(&from, &to) }?;
    send.memory.fill(POISON);
    assert!(receive.holds(|q| data(call, q, rank, length(call, q, rank))), "call {call}");
    receive.memory.fill(POISON);
    Ok(())
}

fn broadcast(group: &mut LocalCommunicator, call: usize, root: usize) -> Result<()> {
    let bytes = length(call, root, 0);
    let mut parts = Parts::new([bytes].into_iter());
    if group.rank() == root {
        parts.fill(0, &data(call, root, 0, bytes));
    }
    let buffer = parts.slices()[0];
    // SAFETY: the vector is this rank's own and outlives the call.
    unsafe { group.broadcast(root, buffer) }?;
    assert!(parts.holds(|_| data(call, root, 0, bytes)), "call {call} from {root}");
    parts.memory.fill(POISON);
    Ok(())
}

#[test]
fn every_collective_moves_every_byte() {
    for ranks in RANKS {
        on_ranks(ranks, PATIENCE, |mut group| {
            for call in 0..14 {
                all_gather(&mut group, call, call % 2 == 0).unwrap();
                all_to_all(&mut group, call, call % 2 == 1).unwrap();
                broadcast(&mut group, call, call % ranks).unwrap();
                group.barrier().unwrap();
            }
        });
    }
}

#[test]
fn a_barrier_waits_for_the_last() {
    let order = Mutex::new(Vec::new());
    on_ranks(3, PATIENCE, |mut group| {
        sleep(Duration::from_millis(30 * group.rank() as u64));
        order.lock().unwrap().push("before");
        group.barrier().unwrap();
        order.lock().unwrap().push("after");
    });
    assert_eq!(*order.lock().unwrap(), ["before", "before", "before", "after", "after", "after"]);
}

/// A small generator, the same sequence for the same seed.
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

/// Call number `call` of a random sequence that is the same on all ranks.
fn random_call(group: &mut LocalCommunicator, call: usize, which: usize) -> Result<()> {
    let root = which / 7 % group.size();
    match which % 7 {
        0 | 1 => all_gather(group, call, which % 7 == 1),
        2 | 3 => all_to_all(group, call, which % 7 == 2),
        4 | 5 => broadcast(group, call, root),
        _ => group.barrier(),
    }
}

#[test]
fn shaken_ranks_stay_in_step() {
    for ranks in [2, 3, 8] {
        on_ranks(ranks, PATIENCE, |mut group| {
            let (mut shared, mut own) = (5, 1000 + group.rank() as u64);
            for call in 0..400 {
                if next(&mut own).is_multiple_of(8) {
                    sleep(Duration::from_micros((next(&mut own) % 300) as u64));
                }
                random_call(&mut group, call, next(&mut shared)).unwrap();
            }
        });
    }
}

#[test]
fn shaken_groups_end_with_the_first_to_leave() {
    for seed in 0..60 {
        let ranks = 2 + seed % 7;
        let (culprit, last) = (seed * 5 % ranks, seed * 11 % 40);
        let started = Instant::now();
        let errors = on_ranks(ranks, PATIENCE, |mut group| {
            let (mut shared, mut own) = (seed as u64, 77 + group.rank() as u64);
            for call in 0.. {
                if group.rank() == culprit && call == last {
                    match seed % 2 {
                        0 => group.abort("the device is gone"),
                        _ => return String::new(),
                    }
                }
                if next(&mut own).is_multiple_of(16) {
                    sleep(Duration::from_micros((next(&mut own) % 100) as u64));
                }
                if let Err(error) = random_call(&mut group, call, next(&mut shared)) {
                    assert_eq!(call, last, "all calls that the culprit took part in succeed");
                    return error.to_string();
                }
            }
            unreachable!("the culprit leaves")
        });
        let why = ["aborted: the device is gone", "left the group"][seed % 2];
        for (rank, error) in errors.iter().enumerate() {
            let named = error.contains(&format!("rank {culprit} {why}"));
            assert!(named || (rank == culprit && error.is_empty()), "{error}");
        }
        assert!(started.elapsed() < PATIENCE);
    }
}

#[test]
fn a_panic_is_told_from_leaving() {
    let errors = on_ranks(3, PATIENCE, |mut group| {
        if group.rank() == 2 {
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                let _owned = group;
                std::panic::resume_unwind(Box::new("a rank's thread"));
            }));
            assert!(panicked.is_err());
            return None;
        }
        group.barrier().err()
    });
    for (rank, error) in errors.into_iter().enumerate().take(2) {
        match error {
            Some(Error::Collective { what: "barrier", rank: at, why }) => {
                assert_eq!((at, why.as_str()), (rank, "rank 2 panicked"));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_abort_wakes_pending_calls_and_refuses_later_ones() {
    let errors = on_ranks(4, PATIENCE, |mut group| {
        group.barrier().unwrap();
        if group.rank() == 1 {
            sleep(Duration::from_millis(30));
            group.abort("lost its device");
        }
        let pending = group.barrier().unwrap_err().to_string();
        let later = broadcast(&mut group, 0, 0).unwrap_err().to_string();
        (pending, later)
    });
    for (rank, (pending, later)) in errors.into_iter().enumerate() {
        let why = "rank 1 aborted: lost its device";
        assert_eq!(pending, format!("collective barrier on rank {rank}: {why}"));
        assert_eq!(later, format!("collective broadcast on rank {rank}: {why}"));
    }
}

#[test]
fn a_timeout_names_who_did_not_arrive_and_reaches_the_late() {
    let over = AtomicBool::new(false);
    let errors = on_ranks(4, Duration::from_millis(500), |mut group| {
        while group.rank() % 2 == 1 && !over.load(Ordering::Acquire) {
            sleep(Duration::from_millis(1));
        }
        let error = all_gather(&mut group, 2, false).unwrap_err().to_string();
        over.store(true, Ordering::Release);
        error
    });
    for (rank, error) in errors.into_iter().enumerate() {
        assert!(error.starts_with(&format!("collective all_gather on rank {rank}: ")), "{error}");
        assert!(error.contains("waited 500ms in all_gather"), "{error}");
        assert!(error.ends_with("did not arrive: rank 1, rank 3"), "{error}");
    }
}

#[test]
fn different_calls_are_a_mismatch_on_all_ranks() {
    let errors = on_ranks(3, PATIENCE, |mut group| match group.rank() {
        2 => broadcast(&mut group, 2, 0).unwrap_err().to_string(),
        _ => all_gather(&mut group, 2, false).unwrap_err().to_string(),
    });
    for error in errors {
        assert!(
            error.contains("called all_gather, rank 2 called broadcast from rank 0"),
            "{error}"
        );
    }
    let errors = on_ranks(2, PATIENCE, |mut group| {
        let root = group.rank();
        broadcast(&mut group, 2, root).unwrap_err().to_string()
    });
    let why = "rank 0 called broadcast from rank 0, rank 1 called broadcast from rank 1";
    assert!(errors.iter().all(|error| error.ends_with(why)), "{errors:?}");
}

/// The error of one call on three ranks, each with 64 bytes of its own; the same on all ranks.
fn misuse(call: impl Fn(&mut LocalCommunicator, DeviceSlice) -> Result<()> + Sync) -> String {
    let mut errors = on_ranks(3, PATIENCE, |mut group| {
        let mut memory = [POISON; 64];
        let why = match call(&mut group, DeviceSlice::from_host(&mut memory)) {
            Err(Error::Collective { why, .. }) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(memory, [POISON; 64], "nothing is written");
        why
    });
    let last = errors.pop().unwrap();
    let blamed = |error: &String| error.ends_with(&last) || last.ends_with(error.as_str());
    assert!(errors.iter().all(blamed), "{errors:?} {last}");
    errors.push(last);
    errors.into_iter().max_by_key(String::len).unwrap()
}

#[test]
fn lengths_that_disagree_name_both_ranks() {
    let parts = |all: DeviceSlice, at: usize, bytes: usize| -> Vec<DeviceSlice> {
        (0..3).map(|q| all.part(at + q * 8, bytes)).collect()
    };
    let error = misuse(|group, all| {
        let bytes = if group.rank() == 1 { 5 } else { 4 };
        // SAFETY: the memory is this rank's own and outlives the call.
        unsafe { group.all_gather(all.part(32, bytes), &parts(all, 0, 4)) }
    });
    assert_eq!(error, "all_gather: rank 1 sends 5 bytes to rank 0, which expects 4");
    let error = misuse(|group, all| {
        let mut receive = parts(all, 0, 4);
        if group.rank() == 2 {
            receive[0] = all.part(0, 3);
        }
        // SAFETY: the memory is this rank's own and outlives the call.
        unsafe { group.all_to_all(&parts(all, 32, 4), &receive) }
    });
    assert_eq!(error, "all_to_all: rank 0 sends 4 bytes to rank 2, which expects 3");
    let error = misuse(|group, all| {
        let bytes = if group.rank() == 0 { 8 } else { 4 };
        // SAFETY: the memory is this rank's own and outlives the call.
        unsafe { group.broadcast(2, all.part(0, bytes)) }
    });
    assert_eq!(error, "broadcast from rank 2: rank 2 sends 4 bytes to rank 0, which expects 8");
}

#[test]
fn what_one_rank_gets_wrong_ends_the_call_on_all() {
    type Spoil = fn(&mut Vec<DeviceSlice>, &mut Vec<DeviceSlice>, DeviceSlice);
    let cases: [(&str, Spoil); 5] = [
        ("(send, receive) has (2, 3) parts, expected (3, 3)", |send, _, _| send.truncate(2)),
        ("receive[0] overlaps receive[2]", |_, receive, all| receive[2] = all.part(7, 8)),
        ("send[0] overlaps receive[2]", |send, _, all| send[0] = all.part(23, 8)),
        // Only the own part may be in place, and only exactly.
        ("send[2] overlaps receive[2]", |send, receive, _| send[2] = receive[2]),
        ("send[1] overlaps receive[1]", |send, _, all| send[1] = all.part(9, 7)),
    ];
    let parts = |all: DeviceSlice, at: usize| -> Vec<DeviceSlice> {
        (0..3).map(|q| all.part(at + q * 8, 8)).collect()
    };
    for (why, spoil) in cases {
        let error = misuse(|group, all| {
            let (mut send, mut receive) = (parts(all, 32), parts(all, 0));
            if group.rank() == 1 {
                spoil(&mut send, &mut receive, all);
            }
            // SAFETY: the memory is this rank's own and outlives the call.
            unsafe { group.all_to_all(&send, &receive) }
        });
        assert_eq!(error, format!("rank 1 aborted: all_to_all: {why}"));
    }
    // SAFETY: the memory is this rank's own and outlives the call.
    let error = misuse(|group, all| unsafe { group.broadcast(3, all) });
    assert!(error.ends_with("no rank 3 among 3"), "{error}");
}
