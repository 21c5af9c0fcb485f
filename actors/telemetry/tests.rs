//! Telemetry by its messages, on a disk that fills up and a clock that is told what to show.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, unbounded};

use super::metrics::Metrics;
use super::resources::{Floors, Resources};
use super::status::{RunState, Status};
use super::totals::{LossAt, Summary, TaskSummary, TrackSummary};
use super::{BACKLOG_LINES, Telemetry, TelemetryMessage, TelemetrySetup};
use crate::actor::{Actor, Closed, Flow, Port};
use crate::fault::{ActorName, Blame, Fault};
use crate::outside::faulty::FaultyDisk;
use crate::outside::{Clock, Disk, ManualClock};
use crate::recovery::Skips;
use crate::report::{Counts, EvaluationReport, StepReport, WaitMs};
use crate::run_folder::log::{Line, read_lines};
use crate::run_folder::read_json;
use crate::supervisor::SavedState;

mod counts;
mod fingerprints;

const GIB: u64 = 1 << 30;
const LOG: &str = "/run/log.jsonl";
const SUMMARY: &str = "/run/summary.json";
const FINGERPRINTS: &str = "/run/fingerprints.jsonl";

/// A run folder that outlives the telemetry of one process, and what it shows.
struct Bench {
    disk: FaultyDisk,
    clock: Arc<ManualClock>,
    metrics: Metrics,
    status: Arc<Status>,
    seen: Receiver<Line>,
}

impl Bench {
    fn new() -> (Self, Telemetry) {
        let disk = FaultyDisk::new();
        disk.create_folders(Path::new("/run")).unwrap();
        Self::over(disk, Arc::new(ManualClock::new()))
    }

    /// Another process on the same folder.
    fn over(disk: FaultyDisk, clock: Arc<ManualClock>) -> (Self, Telemetry) {
        let metrics = Metrics::new();
        let status = Arc::new(Status::new(clock.monotonic(), Duration::from_secs(60)));
        let (shows, seen) = unbounded();
        let setup = TelemetrySetup {
            log: LOG.into(),
            summary: SUMMARY.into(),
            fingerprints: FINGERPRINTS.into(),
            recorded: Box::new(|step| step >= 1000 && step.is_multiple_of(2)),
            floors: Floors { available_bytes: 2 * GIB, free_disk_bytes: 4 * GIB },
            probe: Box::new(|| Resources {
                resident_bytes: Some(GIB),
                available_bytes: Some(GIB),
                free_disk_bytes: None,
            }),
            metrics: metrics.clone(),
            status: status.clone(),
            observer: Box::new(move |line| shows.send(line.clone()).unwrap()),
            clock: clock.clone(),
            disk: Arc::new(disk.clone()),
        };
        let telemetry = Telemetry::start(setup).unwrap();
        (Self { disk, clock, metrics, status, seen }, telemetry)
    }

    fn lines(&self) -> Vec<Line> {
        read_lines(&self.disk, Path::new(LOG)).unwrap()
    }

    /// The disk takes no byte more.
    fn fill_disk(&self) {
        self.disk.set_capacity(0);
    }

    /// The process dies, and another one begins.
    fn restart(self, telemetry: Telemetry) -> (Self, Telemetry) {
        drop(telemetry);
        Self::over(self.disk, self.clock)
    }

    fn steps_in_log(&self) -> Vec<u64> {
        let lines = self.lines();
        lines.iter().filter(|l| matches!(l, Line::Step(_))).filter_map(Line::step).collect()
    }

    fn notes_seen(&self) -> Vec<String> {
        let note = |line| if let Line::Note { what, .. } = line { Some(what) } else { None };
        self.seen.try_iter().filter_map(note).collect()
    }
}

fn report(step: u64, loss: f64) -> StepReport {
    StepReport {
        batch: None,
        step,
        tokens: step * 1000,
        loss,
        targets: Some(8),
        losses: Vec::new(),
        learning_rate: 0.25,
        grad_norm: 1.5,
        skipped: false,
        tokens_per_s: 500.0,
        step_ms: 2000.0,
        flops_per_s: 1e9,
        mfu: None,
        wait_ms: WaitMs { loader: 250.0, reduce: 0.0, checkpoint: 1000.0 },
        fingerprint: step ^ 4,
        buckets: vec![step, 4],
    }
}

fn evaluation(step: u64, task: &str, loss: f64) -> EvaluationReport {
    EvaluationReport {
        step,
        task: task.to_owned(),
        loss,
        perplexity: loss.exp(),
        bits_per_byte: None,
        targets: 10,
        measures: vec![],
    }
}

fn tell(telemetry: &mut Telemetry, message: TelemetryMessage) {
    assert_eq!(telemetry.apply(message).unwrap(), Flow::Continue);
}

fn step(telemetry: &mut Telemetry, number: u64, loss: f64) {
    tell(telemetry, TelemetryMessage::Step(report(number, loss)));
}

/// Ends with everything saved.
fn finish(telemetry: &mut Telemetry) -> Summary {
    let step = telemetry.totals.step();
    finish_saved(telemetry, Some(step))
}

fn finish_saved(telemetry: &mut Telemetry, step: Option<u64>) -> Summary {
    let (sender, receiver) = unbounded();
    let told = Port::new(move |summary| sender.send(summary).map_err(|_| Closed));
    let saved = step.map(|step| SavedState { step, digest: "abc".to_owned() });
    let flow = telemetry.apply(TelemetryMessage::Finish { saved, told }).unwrap();
    assert_eq!(flow, Flow::Stop);
    receiver.try_recv().unwrap()
}

/// Parses the text format: the samples by name and labels, and every name's type and help.
fn parse_metrics(text: &str) -> (BTreeMap<String, f64>, BTreeMap<String, String>) {
    let mut samples = BTreeMap::new();
    let mut types = BTreeMap::new();
    let mut helped = String::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(help.ends_with('.') && name.starts_with("octet_"), "{line}");
            name.clone_into(&mut helped);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(helped, name, "a help line stands before the type");
            types.insert(name.to_owned(), kind.to_owned());
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let value = value.parse().unwrap();
            assert!(samples.insert(name.to_owned(), value).is_none(), "twice: {line}");
        }
    }
    (samples, types)
}

#[test]
fn each_message_is_a_line_and_a_metric() {
    let (bench, mut telemetry) = Bench::new();
    let mut with_peak = report(1, 3.0);
    (with_peak.mfu, with_peak.buckets) = (Some(0.5), vec![]);
    tell(&mut telemetry, TelemetryMessage::Step(with_peak.clone()));
    let held_out = evaluation(1, "held_out", 2.0);
    tell(&mut telemetry, TelemetryMessage::Evaluation(held_out.clone()));
    let path = "checkpoints/step-00000001".to_owned();
    tell(&mut telemetry, TelemetryMessage::Checkpoint { step: 1, ms: 500.0, path: path.clone() });
    tell(&mut telemetry, TelemetryMessage::Note { what: "hello".to_owned() });
    let fault = Fault::world(ActorName::Loader(1), "the shard is gone");
    tell(&mut telemetry, TelemetryMessage::Restarted { fault });

    let lines = bench.lines();
    let note = |what: &str| Line::Note { step: 1, what: what.to_owned() };
    let time = |counts| Line::Time { unix_ms: 0, wall_time_s: 0.0, counts };
    let counted = Counts { tokens: 1000, ..Counts::default() };
    let restarted = [("loader 1".to_owned(), 1)].into();
    let expected = [
        time(Counts::default()),
        Line::Step(with_peak),
        Line::Evaluate(held_out),
        time(counted.clone()),
        Line::Checkpoint { step: 1, ms: 500.0, path, unix_ms: Some(0) },
        note("hello"),
        time(Counts { actor_restarts: restarted, ..counted }),
        note("loader 1 was restarted: the shard is gone"),
    ];
    assert_eq!(lines, expected);
    assert_eq!(bench.seen.try_iter().collect::<Vec<_>>(), expected);

    let (samples, types) = parse_metrics(&bench.metrics.render());
    let expected = [
        ("octet_step", 1.0),
        ("octet_loss", 3.0),
        ("octet_learning_rate", 0.25),
        ("octet_grad_norm", 1.5),
        ("octet_tokens_total", 1000.0),
        ("octet_tokens", 1000.0),
        ("octet_tokens_per_second", 500.0),
        ("octet_mfu", 0.5),
        ("octet_flops_per_second", 1e9),
        ("octet_wait_seconds{cause=\"loader\"}", 0.25),
        ("octet_wait_seconds{cause=\"checkpoint\"}", 1.0),
        ("octet_evaluation_loss{task=\"held_out\"}", 2.0),
        ("octet_checkpoint_step", 1.0),
        ("octet_checkpoint_seconds", 0.5),
        ("octet_restarts_total{actor=\"loader 1\"}", 1.0),
        ("octet_step_seconds_sum", 2.0),
        ("octet_step_seconds_count", 1.0),
        ("octet_step_seconds_bucket{le=\"1\"}", 0.0),
        ("octet_step_seconds_bucket{le=\"2\"}", 1.0),
        ("octet_log_backlog_lines", 0.0),
    ];
    for (name, value) in expected {
        assert_eq!(samples.get(name), Some(&value), "{name} of {samples:?}");
    }
    assert_eq!(types["octet_step_seconds"], "histogram");
    for (name, kind) in &types {
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
    }
    assert_eq!(types["octet_loss"], "gauge");
}

#[test]
fn losses_of_tracks_are_shown_by_name() {
    let (bench, mut telemetry) = Bench::new();
    let losses = vec![("lm".to_owned(), 2.0), ("bert/masked".to_owned(), 4.0)];
    tell(&mut telemetry, TelemetryMessage::Step(StepReport { losses, ..report(1, 3.0) }));
    let (samples, _) = parse_metrics(&bench.metrics.render());
    assert_eq!(samples["octet_track_loss{track=\"lm\"}"], 2.0);
    assert_eq!(samples["octet_track_loss{track=\"bert/masked\"}"], 4.0);
}

#[test]
fn a_metric_without_a_value_is_absent_and_not_a_number_is_shown_as_such() {
    let (bench, mut telemetry) = Bench::new();
    let (samples, _) = parse_metrics(&bench.metrics.render());
    assert!(!samples.contains_key("octet_loss") && !samples.contains_key("octet_mfu"));
    let mut skipped = report(1, f64::NAN);
    skipped.skipped = true;
    tell(&mut telemetry, TelemetryMessage::Step(skipped));
    let (samples, _) = parse_metrics(&bench.metrics.render());
    assert!(samples["octet_loss"].is_nan());
    assert!(!samples.contains_key("octet_mfu"));
    assert_eq!(samples["octet_skipped_updates_total"], 1.0);
}

#[test]
fn runs_in_one_process_do_not_share_metrics() {
    let (one, mut telemetry) = Bench::new();
    let (other, _telemetry) = Bench::new();
    step(&mut telemetry, 5, 1.0);
    let value = |bench: &Bench| parse_metrics(&bench.metrics.render()).0["octet_step"];
    assert_eq!((value(&one), value(&other)), (5.0, 0.0));
}

#[test]
fn the_summary_knows_final_and_best_and_how_time_was_spent() {
    let (bench, mut telemetry) = Bench::new();
    for (number, loss) in [(1, 3.0), (2, 1.0), (3, f64::NAN), (4, 2.0)] {
        let mut report = report(number, loss);
        report.skipped = !loss.is_finite();
        // It leaves the last step out.
        report.losses = if number < 4 { vec![("lm".to_owned(), 2.0 * loss)] } else { vec![] };
        tell(&mut telemetry, TelemetryMessage::Step(report));
    }
    for (number, task, loss) in [(2, "a", 1.5), (2, "b", 9.0), (4, "a", 1.75)] {
        let report = evaluation(number, task, loss);
        tell(&mut telemetry, TelemetryMessage::Evaluation(report));
    }
    bench.clock.advance(Duration::from_secs(12));
    let summary = finish(&mut telemetry);
    let at = |step, loss| Some(LossAt { step, loss });
    let expected = Summary {
        rollbacks: 0,
        steps: 4,
        tokens: 4000,
        final_loss: Some(2.0),
        best_loss: Some(1.0),
        best_step: Some(2),
        tracks: vec![TrackSummary { track: "lm".to_owned(), last: None, best: at(2, 2.0) }],
        evaluations: vec![
            TaskSummary { task: "a".to_owned(), last: at(4, 1.75), best: at(2, 1.5) },
            TaskSummary { task: "b".to_owned(), last: at(2, 9.0), best: at(2, 9.0) },
        ],
        skipped_updates: 1,
        wall_time_s: 12.0,
        goodput: 0.5,
        unsaved_steps: 0,
        digest: Some("abc".to_owned()),
    };
    assert_eq!(summary, expected);
    let written: Summary = read_json(&bench.disk, Path::new(SUMMARY)).unwrap();
    assert_eq!(written, expected);
}

#[test]
fn an_empty_run_has_a_summary_too() {
    let (_bench, mut telemetry) = Bench::new();
    let summary = finish(&mut telemetry);
    assert_eq!((summary.steps, summary.final_loss, summary.goodput), (0, None, 0.0));
}

#[test]
fn another_process_goes_on_with_the_totals_of_the_log() {
    let (bench, mut telemetry) = Bench::new();
    for number in 1..=4 {
        step(&mut telemetry, number, 1.0 / number as f64);
    }
    // The first process ticks at 20 s and is killed; the second begins an hour later, at step 3.
    bench.clock.advance(Duration::from_secs(20));
    tell(&mut telemetry, TelemetryMessage::Tick);
    bench.clock.advance(Duration::from_secs(3600));
    let (bench, mut telemetry) = bench.restart(telemetry);
    tell(&mut telemetry, TelemetryMessage::RewindLog { step: 3, skips: Skips::default() });
    assert_eq!(bench.steps_in_log(), [1, 2, 3]);
    assert_eq!(bench.status.health(bench.clock.monotonic()).step, 3);
    step(&mut telemetry, 4, 0.5);
    bench.clock.advance(Duration::from_secs(5));
    let summary = finish(&mut telemetry);
    assert_eq!(summary.steps, 4);
    assert_eq!(summary.tokens, 4000);
    assert_eq!((summary.best_loss, summary.best_step), (Some(1.0 / 3.0), Some(3)));
    assert_eq!(summary.wall_time_s, 25.0, "20 s, then 5 s, and not the hour between");
    assert_eq!(summary.goodput, 8.0 / 25.0, "the lost step 4 does not count");
    let (samples, _) = parse_metrics(&bench.metrics.render());
    assert_eq!(samples["octet_tokens"], 4000.0);
    assert_eq!(samples["octet_tokens_total"], 5000.0, "step 4 was done twice");
}

#[test]
fn what_a_killed_process_did_after_its_last_time_line_is_wall_time() {
    let (bench, mut telemetry) = Bench::new();
    bench.clock.advance(Duration::from_secs(12));
    tell(&mut telemetry, TelemetryMessage::Tick);
    for number in 1..=3 {
        bench.clock.advance(Duration::from_secs(2));
        step(&mut telemetry, number, 1.0);
    }
    // Killed at 18 s, at once started again, and at once stopped.
    let (bench, mut telemetry) = bench.restart(telemetry);
    tell(&mut telemetry, TelemetryMessage::RewindLog { step: 2, skips: Skips::default() });
    let (_bench, mut telemetry) = bench.restart(telemetry);
    let summary = finish(&mut telemetry);
    assert_eq!(summary.wall_time_s, 18.0, "the lost step 3 took its time");
    assert_eq!(summary.goodput, 4.0 / 18.0);
}

#[test]
fn lines_wait_while_the_disk_takes_none_and_none_is_lost() {
    let (bench, mut telemetry) = Bench::new();
    step(&mut telemetry, 1, 3.0);
    bench.fill_disk();
    for number in 2..=4 {
        step(&mut telemetry, number, 3.0);
    }
    assert_eq!(bench.steps_in_log(), [1]);
    let notes = bench.notes_seen();
    assert_eq!(notes.len(), 1, "said once: {notes:?}");
    assert!(notes[0].contains("log.jsonl") && notes[0].contains("wait in memory"), "{notes:?}");
    let (samples, _) = parse_metrics(&bench.metrics.render());
    assert_eq!(samples["octet_log_backlog_lines"], 4.0);

    bench.disk.set_capacity(u64::MAX);
    tell(&mut telemetry, TelemetryMessage::Tick);
    assert_eq!(bench.steps_in_log(), [1, 2, 3, 4]);
    let (samples, _) = parse_metrics(&bench.metrics.render());
    assert_eq!(samples["octet_log_backlog_lines"], 0.0);
}

#[test]
fn a_rewind_covers_lines_that_wait() {
    let (bench, mut telemetry) = Bench::new();
    step(&mut telemetry, 1, 3.0);
    bench.fill_disk();
    step(&mut telemetry, 2, 2.0);
    step(&mut telemetry, 3, 1.0);
    bench.disk.set_capacity(u64::MAX);
    tell(&mut telemetry, TelemetryMessage::RewindLog { step: 2, skips: Skips::default() });
    tell(&mut telemetry, TelemetryMessage::Tick);
    assert_eq!(bench.steps_in_log(), [1, 2]);
    assert_eq!(finish(&mut telemetry).best_loss, Some(2.0));
}

#[test]
fn a_rewind_that_the_disk_refuses_comes_before_the_next_line() {
    let (bench, mut telemetry) = Bench::new();
    for number in 1..=4 {
        step(&mut telemetry, number, 3.0);
    }
    bench.fill_disk();
    tell(&mut telemetry, TelemetryMessage::RewindLog { step: 2, skips: Skips::default() });
    step(&mut telemetry, 3, 2.0);
    assert_eq!(bench.steps_in_log(), [1, 2, 3, 4], "the disk takes nothing");
    bench.disk.set_capacity(u64::MAX);
    tell(&mut telemetry, TelemetryMessage::Tick);
    assert_eq!(bench.steps_in_log(), [1, 2, 3]);
    assert_eq!(finish(&mut telemetry).best_loss, Some(2.0));
}

#[test]
fn lines_of_a_future_that_was_given_up_go_with_the_next_start() {
    let (bench, mut telemetry) = Bench::new();
    for number in 1..=4 {
        step(&mut telemetry, number, 3.0);
    }
    // Killed before the log heard of a roll-back to step 2, on from a snapshot of step 3.
    let back = serde_json::json!([{ "from": 2, "batches": 5 }]);
    let skips: Skips = serde_json::from_value(back).unwrap();
    tell(&mut telemetry, TelemetryMessage::RewindLog { step: 3, skips });
    assert_eq!(bench.steps_in_log(), [1, 2]);
}

#[test]
fn a_disk_that_never_takes_lines_is_a_fault_in_the_end() {
    let (bench, mut telemetry) = Bench::new();
    bench.fill_disk();
    let told = (1..=BACKLOG_LINES as u64 + 1)
        .map(|number| telemetry.apply(TelemetryMessage::Step(report(number, 1.0))));
    let fault = told.filter_map(Result::err).next().expect("a fault");
    assert_eq!((fault.actor, fault.blame), (ActorName::Telemetry, Blame::World));
    assert!(fault.what.contains("lines wait already"), "{fault}");
}

#[test]
fn broken_lines_are_counted_at_the_start_and_dropped_by_a_rewind() {
    let (bench, mut telemetry) = Bench::new();
    step(&mut telemetry, 1, 3.0);
    let torn = b"\0\0\0\0\n{\"kind\":\"st";
    bench.disk.append(Path::new(LOG)).unwrap().write_all(torn).unwrap();
    let (bench, mut telemetry) = bench.restart(telemetry);
    assert_eq!(bench.notes_seen(), ["1 lines of the log cannot be read"]);
    tell(&mut telemetry, TelemetryMessage::RewindLog { step: 1, skips: Skips::default() });
    assert_eq!(bench.notes_seen(), ["dropped 1 lines of the log that cannot be read"]);
    assert_eq!(bench.steps_in_log(), [1]);
}

#[test]
fn a_tick_warns_once_about_memory() {
    let (bench, mut telemetry) = Bench::new();
    bench.clock.advance(Duration::from_secs(4));
    for _ in 0..3 {
        tell(&mut telemetry, TelemetryMessage::Tick);
    }
    let notes = bench.notes_seen();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].starts_with("memory is running out: 1.0 GiB left"), "{notes:?}");
    let (samples, _) = parse_metrics(&bench.metrics.render());
    assert_eq!(samples["octet_available_memory_bytes"], GIB as f64);
    assert_eq!(samples["octet_resident_memory_bytes"], GIB as f64);
    assert_eq!(samples["octet_wall_time_seconds"], 4.0);
    assert!(!samples.contains_key("octet_free_disk_bytes"), "unknown is absent");
}

#[test]
fn health_follows_the_state_and_the_age_of_the_last_step() {
    let (bench, mut telemetry) = Bench::new();
    let health = |bench: &Bench| bench.status.health(bench.clock.monotonic());
    assert_eq!((health(&bench).ok, health(&bench).state), (true, RunState::Starting));
    bench.clock.advance(Duration::from_secs(50));
    tell(&mut telemetry, TelemetryMessage::State(RunState::Training));
    bench.clock.advance(Duration::from_secs(50));
    step(&mut telemetry, 1, 1.0);
    bench.clock.advance(Duration::from_secs(60));
    let now = health(&bench);
    assert_eq!((now.ok, now.state, now.step), (true, RunState::Training, 1));
    assert_eq!(now.last_step_age_s, 60.0);
    bench.clock.advance(Duration::from_secs(1));
    assert!(!health(&bench).ok, "nothing moved for 61 s");
    tell(&mut telemetry, TelemetryMessage::State(RunState::Finished));
    bench.clock.advance(Duration::from_secs(100));
    assert!(health(&bench).ok);
    tell(&mut telemetry, TelemetryMessage::State(RunState::Failed));
    assert!(!health(&bench).ok);
    for state in [RunState::Evaluating, RunState::Draining] {
        tell(&mut telemetry, TelemetryMessage::State(state));
        assert_eq!(health(&bench).state, state);
    }
}
