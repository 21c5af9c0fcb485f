//! Collectives between pretended GPUs, whose streams run late in any legal order, against those
//! between threads that are done with a call at once.

use std::thread;
use std::time::Duration;

use bytemuck::cast_slice_mut;

use crate::collectives::JoinTree;
use crate::cuda::testing::Pretended;
use crate::device::Products;
use crate::device::{Backend, Event, Events, Open};
use crate::dtype::DType;
use crate::memory::{ArenaPlan, DeviceSlice, Span};
use crate::ops::Stream;

const ROUNDS: usize = 5;
/// Bytes that one rank sends to another.
const PART: usize = 256;

/// What all ranks have in their memory after each round of calls.
fn results(devices: Vec<Open>) -> Vec<Vec<u8>> {
    let ranks = devices.len();
    let threads: Vec<_> = devices
        .into_iter()
        .enumerate()
        .map(|(rank, open)| thread::spawn(move || of_rank(rank, ranks, open)))
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

fn of_rank(rank: usize, ranks: usize, open: Open) -> Vec<u8> {
    let (device, mut group) = open().unwrap();
    let mut plan = ArenaPlan::new();
    let [send, receive, gathered] =
        ["send", "receive", "gathered"].map(|name| plan.reserve(name, ranks * PART));
    let [sum, shared] = ["sum", "shared"].map(|name| plan.reserve(name, PART));
    let arena = device.allocate(&plan, Events { all: 2, timed: 0 }).unwrap();
    let parts = |span: Span| -> Vec<DeviceSlice> {
        (0..ranks).map(|i| arena.slice(span.part(i * PART, PART))).collect()
    };
    let (send, receive, gathered) = (parts(send), parts(receive), parts(gathered));
    let (sum, shared) = (arena.slice(sum), arena.slice(shared));
    let mut host = device.host_memory(ROUNDS * ranks * PART).unwrap();
    let values: &mut [f32] = cast_slice_mut(host.as_mut_slice());
    for (i, value) in values.iter_mut().enumerate() {
        *value = ((i * 31 + rank * 17) % 257) as f32 / 7.0;
    }
    let seen = device.host_memory(ROUNDS * plan.bytes()).unwrap();
    let whole = arena.slice(Span { offset: 0, bytes: plan.bytes() });
    let mut call = |round: usize| -> crate::error::Result<()> {
        // SAFETY: parts of one arena, in the order of streams and events; host memory outlives it.
        unsafe {
            for (i, part) in send.iter().enumerate() {
                let from = host.part((round * ranks + i) * PART, PART);
                device.copy_in(Stream::Compute, from, *part)?;
            }
            device.copy(send[0], shared)?;
            device.record(Event(0), Stream::Compute)?;
            device.wait(Stream::Communication, Event(0))?;
            group.all_to_all(&send, &receive)?;
            group.join(&JoinTree::of_ranks(ranks), DType::F32, &receive, sum)?;
            group.all_gather(sum, &gathered)?;
            group.broadcast(round % ranks, shared)?;
            group.barrier()?;
            device.record(Event(1), Stream::Communication)?;
            device.wait(Stream::Compute, Event(1))?;
            device.copy_out(Stream::Compute, whole, seen.part(round * plan.bytes(), plan.bytes()))
        }
    };
    (0..ROUNDS).try_for_each(&mut call).unwrap();
    device.finish().unwrap();
    seen.as_slice().to_vec()
}

#[test]
fn pretended_gpus_meet_as_threads_do() {
    for ranks in [1, 2, 3, 8] {
        let cpu = Backend::Cpu { threads: 1 }.open(ranks, Duration::from_secs(60)).unwrap();
        let expected = results(cpu);
        for seed in 0..3 {
            let settings = format!("devices={ranks},seed={seed}");
            let Some(machine) = Pretended::new("peer", &settings) else { return };
            let found = results(machine.devices(ranks).unwrap());
            assert!(found == expected, "{ranks} ranks, seed {seed}");
        }
    }
}

#[test]
fn peers_whose_streams_do_not_wait_are_noticed() {
    let cpu = Backend::Cpu { threads: 1 }.open(3, Duration::from_secs(60)).unwrap();
    let expected = results(cpu);
    let differs = |seed| {
        let machine = Pretended::new("peer", &format!("devices=3,deaf=1,seed={seed}"))?;
        Some(results(machine.devices(3).unwrap()) != expected)
    };
    let mut seeds = (0..20).map(differs).peekable();
    assert!(seeds.peek().is_some_and(Option::is_none) || seeds.any(|it| it == Some(true)));
}

#[test]
fn a_peer_that_does_not_come_is_named() {
    let Some(machine) = Pretended::new("peer", "devices=2") else { return };
    let (timeout, products) = (Duration::from_millis(200), Products::Own);
    let devices = crate::cuda::device::open(machine.search(), 2, timeout, products);
    let mut devices = devices.unwrap().into_iter();
    let (first, second) = (devices.next().unwrap(), devices.next().unwrap());
    let late = thread::spawn(move || {
        let (_device, group) = second().unwrap();
        thread::sleep(Duration::from_secs(2));
        drop(group);
    });
    let (_device, mut group) = first().unwrap();
    let said = group.barrier().unwrap_err().to_string();
    assert!(said.contains("did not arrive: rank 1"), "{said}");
    late.join().unwrap();
}
