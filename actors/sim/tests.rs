//! Many seeds: whatever happens to the processes of a run, it ends in the one state that a run
//! without trouble ends in.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::checkpoint::Manifest;
use crate::fault::Blame;
use crate::outside::Disk;
use crate::outside::faulty::{Loss, Trouble};
use crate::report::RollBackReport;
use crate::run_folder::log::{Line, read_lines};
use crate::schedule::Schedule;
use crate::sim::ranks::History;
use crate::sim::toy::{Random, Tiny};
use crate::sim::{Death, Fate, LOG, Life, Trace, World};
use crate::snapshot::Region;
use crate::supervisor::{Ending, RunEnd};

const STEPS: u64 = 11;

/// How many seeds `cargo test` takes.
const SEEDS: u64 = 300;

/// Lives with trouble; then comes one without.
const TROUBLED_MAX: u64 = 7;

const SCHEDULE: Schedule = Schedule {
    steps: STEPS,
    evaluate_every: 4,
    checkpoint_every: 3,
    memory_every: 2,
    drive_every: 5,
    depth: 1,
};

fn world() -> World {
    World::new(&Tiny { tasks: vec![5, 2], ..Tiny::default() }, SCHEDULE)
}

/// What every run must come to.
struct Reference {
    digest: String,
    history: History,
    lines: Vec<Line>,
}

/// The part of a line that does not depend on time; `None` for lines that do altogether.
fn timeless(line: &Line) -> Option<Line> {
    match line {
        Line::Step(report) => {
            let mut report = report.clone();
            (report.step_ms, report.tokens_per_s, report.flops_per_s) = (0.0, 0.0, 0.0);
            report.wait_ms = Default::default();
            report.grad_norm = if report.grad_norm.is_nan() { -1.0 } else { report.grad_norm };
            Some(Line::Step(report))
        }
        Line::Evaluate(_) => Some(line.clone()),
        Line::RollBack(report) => {
            Some(Line::RollBack(RollBackReport { loaded: 0, ..report.clone() }))
        }
        Line::Time { .. } | Line::Note { .. } | Line::Checkpoint { .. } => None,
    }
}

fn lines(world: &World) -> Vec<Line> {
    let lines = read_lines(&world.disk, Path::new(LOG)).expect("the log can be read");
    lines.iter().filter_map(timeless).collect()
}

fn reference() -> Reference {
    let mut world = world();
    let death = Life::start(&mut world, 1, Fate::default(), Random::new(0)).live();
    let Death::Ended(RunEnd { ending: Ending::Finished, step: STEPS, saved, .. }) = death else {
        panic!("{death:?}")
    };
    let lines = lines(&world);
    let back = lines.iter().filter(|line| is_roll_back(line)).count();
    assert_eq!(back, 2, "bad updates in the middle and at the end");
    Reference { digest: saved.expect("it was saved").digest, history: world.history, lines }
}

/// One seed, to its end.
fn simulate(seed: u64, reference: &Reference, world: &mut World) {
    let mut random = Random::new(seed ^ 0x5eed);
    let mut gaps_max = 0;
    let mut corrupted = false;
    for life in 0.. {
        let calm = life == TROUBLED_MAX;
        let fate = if calm { Fate::default() } else { fate(&mut random) };
        let ranks = 1 + random.below(4) as usize;
        let scheduler = Random::new(random.next());
        let mut this = Life::start(world, ranks, fate, scheduler);
        assert!(this.notes.is_empty() || corrupted, "without a cause: {:?}", this.notes);
        let death = this.live();
        world.trace(format!("{death:?}"));
        match death {
            Death::Ended(end) if end.ending == Ending::Finished => {
                let saved = end.saved.as_ref().map(|saved| (saved.step, &saved.digest));
                assert_eq!(saved, Some((STEPS, &reference.digest)));
                break;
            }
            Death::Ended(end) => check_end(world, &fate, &end),
            Death::Killed => kill(world, &mut random),
        }
        assert!(!calm, "a life without trouble did not finish");
        gaps_max += 1 + u64::from(matches!(fate.disk, Some((_, Trouble::Full))));
        if !corrupted && random.once_in(6) {
            corrupted = corrupt(world, &mut random);
        }
    }
    check_log(world, reference, gaps_max);
    for (step, chain) in &world.history {
        assert_eq!(reference.history.get(step), Some(chain), "step {step:?} is another");
    }
    let newest = world.store().find_newest_good().expect("a list").newest.expect("a checkpoint");
    assert_eq!(newest.manifest.digest, reference.digest);
}

fn fate(random: &mut Random) -> Fate {
    let mut fate = Fate::default();
    match random.below(8) {
        0..3 => fate.killed_at = Some(random.below(900)),
        3 => fate.interrupted_at = Some((random.below(500), random.below(40))),
        4 => {
            fate.interrupted_at = Some((random.below(500), random.below(4)));
            fate.killed_at = Some(random.below(900));
        }
        5 => fate.disk = Some((random.below(120), Trouble::Full)),
        6 => fate.disk = Some((random.below(120), Trouble::Torn)),
        _ => fate.disk = Some((random.below(120), Trouble::Crash)),
    }
    fate
}

fn is_roll_back(line: &Line) -> bool {
    matches!(line, Line::RollBack(_))
}

/// What is lost when a process dies: nothing but itself, or all that was not synced.
fn kill(world: &mut World, random: &mut Random) {
    let loss = match random.below(4) {
        0..2 => Loss::Nothing,
        2 => Loss::Unsynced,
        _ => Loss::Random { seed: random.next() },
    };
    if loss != Loss::Nothing {
        world.lose_memory();
    }
    world.trace(format!("killed, and lost: {loss:?}"));
    world.disk.reboot(loss);
}

fn check_end(world: &World, fate: &Fate, end: &RunEnd) {
    if let Some(claimed) = &end.saved {
        let manifest = Manifest::read(&world.disk, &world.store().folder(claimed.step));
        assert_eq!(manifest.expect("what is claimed is there").digest, claimed.digest);
    }
    match &end.ending {
        Ending::Interrupted => {
            assert!(fate.interrupted_at.is_some(), "nobody has interrupted it");
            let newest = world.store().find_newest_good().expect("a list").newest;
            let newest = newest.expect("an interrupted run is saved").manifest;
            assert_eq!(newest.step, end.step, "what is saved is not where it stood");
            let saved = end.saved.as_ref().map(|saved| (saved.step, &saved.digest));
            assert_eq!(saved, Some((newest.step, &newest.digest)));
        }
        Ending::Failed(fault) => {
            let full = matches!(fate.disk, Some((_, Trouble::Full)));
            assert!(full && fault.blame != Blame::Ours, "{fault}");
        }
        Ending::Finished => unreachable!("it is not over"),
    }
    // The disk has room again, and plans belong to a life.
    world.disk.reboot(Loss::Nothing);
}

/// Flips a bit of a file of the newest checkpoint, if there is another. A slot of the same step
/// may still be good, so it goes as well.
fn corrupt(world: &mut World, random: &mut Random) -> bool {
    let store = world.store();
    let steps = store.steps().expect("a list");
    let [.., older, newest] = steps[..] else { return false };
    let folder = store.folder(newest);
    let names = world.disk.list(&folder).expect("a list");
    let path = folder.join(&names[random.below(names.len() as u64) as usize]);
    let mut bytes = world.disk.read(&path).expect("a file");
    let bit = random.below(8 * bytes.len() as u64);
    bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    let mut file = world.disk.create(&path).expect("a file");
    file.write_all(&bytes).expect("room");
    file.sync().expect("a healthy disk");
    if random.once_in(2) {
        world.lose_memory();
    }
    world.trace(format!("flipped a bit of {} (there is step {older})", path.display()));
    true
}

/// Every step and evaluation at most once and in order, each as the reference has it. Steps may be
/// missing only where a process ended with their lines still in its hands; an evaluation also where
/// an interrupt came before it.
fn check_log(world: &World, reference: &Reference, gaps_max: u64) {
    // A roll-back may be decided again, after a kill, and is then the same one.
    let (back, lines): (Vec<Line>, Vec<Line>) = lines(world).into_iter().partition(is_roll_back);
    assert!(back.iter().all(|line| reference.lines.contains(line)), "{back:?}");
    let mut rest = reference.lines.iter();
    for line in &lines {
        let found = rest.any(|wanted| wanted == line);
        assert!(found, "not in order, or not what the reference has: {line:?}");
    }
    let steps = lines.iter().filter(|line| matches!(line, Line::Step(_)));
    let steps: Vec<u64> = [0].into_iter().chain(steps.filter_map(Line::step)).collect();
    let gaps = steps.windows(2).filter(|pair| pair[0] + 1 < pair[1]).count() as u64;
    let gaps = gaps + u64::from(steps.last() != Some(&STEPS));
    assert!(gaps <= gaps_max, "{gaps} gaps in the log, {gaps_max} deaths");
}

impl World {
    fn trace(&mut self, line: String) {
        self.trace.add(|| line);
    }
}

/// Runs a seed; after a failure once more, with a trace.
fn run_seed(seed: u64, reference: &Reference) {
    let quietly = |trace: bool| {
        let mut world = world();
        world.take_slots(1 + seed as usize % 2);
        world.schedule.depth = 1 + seed as usize / 2 % 2;
        world.trace = Trace { on: trace, ..Trace::default() };
        let done = catch_unwind(AssertUnwindSafe(|| simulate(seed, reference, &mut world)));
        (done, world.trace.lines)
    };
    if quietly(false).0.is_ok() {
        return;
    }
    let (done, lines) = quietly(true);
    let why = match &done {
        Ok(()) => "it does not fail again: the simulation is not a function of the seed".into(),
        Err(why) => why
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| why.downcast_ref::<&str>().map(ToString::to_string))
            .unwrap_or_default(),
    };
    let trace: Vec<String> = lines.into_iter().collect();
    panic!("{}\nOCTET_SIM_SEED={seed}: {why}", trace.join("\n"));
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn every_seed_ends_in_the_same_state() {
    let reference = reference();
    if let Some(seed) = number("OCTET_SIM_SEED") {
        return run_seed(seed, &reference);
    }
    for seed in 0..number("OCTET_SIM_SEEDS").unwrap_or(SEEDS) {
        run_seed(seed, &reference);
    }
}

#[test]
fn a_seed_takes_the_same_turns_again() {
    let reference = reference();
    let trace = || {
        let mut world = world();
        world.trace.on = true;
        simulate(5, &reference, &mut world);
        world.trace.lines
    };
    assert_eq!(trace(), trace());
}

#[test]
fn ranks_and_order_of_turns_do_not_matter() {
    let reference = reference();
    for seed in 1..=8 {
        let mut world = world();
        world.schedule.depth = 1 + seed as usize % 2;
        let ranks = 1 + seed as usize % 4;
        let death = Life::start(&mut world, ranks, Fate::default(), Random::new(seed)).live();
        let Death::Ended(end) = death else { panic!("{death:?}") };
        let digest = end.saved.map(|saved| saved.digest);
        assert_eq!((end.ending, digest.as_ref()), (Ending::Finished, Some(&reference.digest)));
        assert_eq!(lines(&world), reference.lines);
    }
}

/// The simulation must be able to see what it looks for.
#[test]
fn a_damaged_state_is_noticed() {
    let mut world = world();
    let fate = Fate { killed_at: Some(300), ..Fate::default() };
    assert_eq!(Life::start(&mut world, 2, fate, Random::new(3)).live(), Death::Killed);
    let good = world.slots.newest_good(&world.layout).good.expect("a snapshot by then");
    let slot = world.slots.slot(good.slot, &world.layout);
    slot.invalidate();
    // SAFETY: no life is using the slot.
    let bytes: &mut [u8] = unsafe { slot.region(Region::Masters).as_mut_slice() };
    bytes[1] ^= 1;
    slot.commit(good.head.step + 20, &good.head.cursor, good.head.sequence).expect("a commit");
    let lived = catch_unwind(AssertUnwindSafe(|| {
        Life::start(&mut world, 2, Fate::default(), Random::new(4)).live()
    }));
    assert!(lived.is_err(), "{lived:?}");
}
