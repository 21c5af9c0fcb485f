//! What is counted over the life of a run, and what stands where the run stands, through kills.

use std::time::Duration;

use super::{Bench, evaluation, finish, finish_saved, parse_metrics, report, step, tell};
use crate::fault::{ActorName, Fault};
use crate::recovery::Skips;
use crate::report::RollBackReport;
use crate::telemetry::{Telemetry, TelemetryMessage};

fn value(bench: &Bench, name: &str) -> f64 {
    let (samples, _) = parse_metrics(&bench.metrics.render());
    *samples.get(name).unwrap_or_else(|| panic!("no {name} in {samples:?}"))
}

fn rewind(telemetry: &mut Telemetry, step: u64) {
    tell(telemetry, TelemetryMessage::RewindLog { step, skips: Skips::default() });
}

fn rolled_back(number: u64) -> TelemetryMessage {
    let reason = "bad".to_owned();
    let (first_batch, batches) = (1, 2);
    let report = RollBackReport { step: 1, at: 3, loaded: 1, number, reason, first_batch, batches };
    TelemetryMessage::RollBack(report)
}

#[test]
fn a_step_is_wall_time_once_though_time_lines_fall_into_it() {
    let (mut bench, mut telemetry) = Bench::new();
    // Each life ends after one step of a minute, in which the clock has ticked.
    for life in 1..=5u64 {
        if life > 1 {
            (bench, telemetry) = bench.restart(telemetry);
            rewind(&mut telemetry, life - 1);
        }
        for _ in 0..11 {
            bench.clock.advance(Duration::from_secs(5));
            tell(&mut telemetry, TelemetryMessage::Tick);
        }
        bench.clock.advance(Duration::from_secs(5));
        let mut report = report(life, 1.0);
        report.step_ms = 60_000.0;
        tell(&mut telemetry, TelemetryMessage::Step(report));
    }
    let (bench, mut telemetry) = bench.restart(telemetry);
    rewind(&mut telemetry, 5);
    tell(&mut telemetry, TelemetryMessage::Tick);
    assert_eq!(value(&bench, "octet_wall_time_seconds"), 300.0);
    assert_eq!(value(&bench, "octet_goodput_ratio"), 1.0);
}

#[test]
fn no_checkpoint_is_shown_where_none_is_left() {
    let (bench, mut telemetry) = Bench::new();
    step(&mut telemetry, 1, 1.0);
    let path = "there".to_owned();
    bench.clock.advance(Duration::from_secs(10));
    tell(&mut telemetry, TelemetryMessage::Checkpoint { step: 1, ms: 500.0, path });
    assert_eq!(value(&bench, "octet_checkpoint_step"), 1.0);
    let (bench, mut telemetry) = bench.restart(telemetry);
    rewind(&mut telemetry, 0);
    assert_eq!(value(&bench, "octet_checkpoint_step"), 0.0);
    assert_eq!(value(&bench, "octet_checkpoint_timestamp_seconds"), 0.0);
}

const COUNTERS: [&str; 6] = [
    "octet_tokens_total",
    "octet_skipped_updates_total",
    "octet_bad_updates_total",
    "octet_rollbacks_total",
    "octet_engine_restarts_total",
    "octet_restarts_total{actor=\"loader 1\"}",
];

#[test]
fn counters_count_through_rewinds_and_kills() {
    let (mut bench, mut telemetry) = Bench::new();
    let mut before = [0.0; COUNTERS.len()];
    // Each life does three steps, one of them skipped, goes back by two, is killed after another
    // one, and the next life begins a step before that.
    for life in 1..=4u64 {
        if life > 1 {
            (bench, telemetry) = bench.restart(telemetry);
            let why = "the engine died of signal 9".to_owned();
            rewind(&mut telemetry, 1);
            tell(&mut telemetry, TelemetryMessage::EngineRestarted { why });
            let said = "the engine was started again: the engine died of signal 9";
            assert!(bench.notes_seen().iter().any(|note| note == said));
        }
        for number in if life == 1 { 1..=4 } else { 2..=4 } {
            let mut report = report(number, 1.0);
            report.skipped = number == 3;
            tell(&mut telemetry, TelemetryMessage::Step(report));
        }
        tell(&mut telemetry, TelemetryMessage::Bad { what: "a spike".to_owned() });
        let fault = Fault::world(ActorName::Loader(1), "the shard is gone");
        tell(&mut telemetry, TelemetryMessage::Restarted { fault });
        rewind(&mut telemetry, 1);
        tell(&mut telemetry, rolled_back(life));
        step(&mut telemetry, 2, 1.0);
        assert_eq!(value(&bench, "octet_tokens"), 2000.0, "of the state");
        let now = COUNTERS.map(|name| value(&bench, name));
        let steps = 5.0 + 4.0 * (life - 1) as f64;
        let lives = life as f64;
        let expected = [1000.0 * steps, lives, lives, lives, lives - 1.0, lives];
        assert_eq!(now, expected, "{COUNTERS:?} in life {life}");
        assert!(now.iter().zip(before).all(|(now, before)| *now >= before), "{now:?} {before:?}");
        before = now;
    }
    // A start shows them at once.
    let (bench, _telemetry) = bench.restart(telemetry);
    let now = COUNTERS.map(|name| value(&bench, name));
    assert_eq!(now, before);
}

#[test]
fn a_start_knows_when_the_last_checkpoint_was_written() {
    let (bench, mut telemetry) = Bench::new();
    let checkpoint = |step| {
        let path = "there".to_owned();
        TelemetryMessage::Checkpoint { step, ms: 500.0, path }
    };
    for number in 1..=2 {
        step(&mut telemetry, number, 1.0);
        bench.clock.advance(Duration::from_secs(10));
        tell(&mut telemetry, checkpoint(number));
    }
    let shown = |bench: &Bench| {
        ["octet_checkpoint_step", "octet_checkpoint_timestamp_seconds", "octet_checkpoint_seconds"]
            .map(|name| value(bench, name))
    };
    assert_eq!(shown(&bench), [2.0, 20.0, 0.5]);
    bench.clock.advance(Duration::from_secs(100));
    let (bench, mut telemetry) = bench.restart(telemetry);
    assert_eq!(shown(&bench), [2.0, 20.0, 0.5]);
    // The second one is damaged: the run goes on from the first.
    rewind(&mut telemetry, 1);
    assert_eq!(shown(&bench), [1.0, 10.0, 0.5]);
}

#[test]
fn a_summary_claims_what_is_saved() {
    let (_bench, mut telemetry) = Bench::new();
    for (number, loss) in [(1, 3.0), (2, 1.0), (3, 0.5)] {
        step(&mut telemetry, number, loss);
    }
    tell(&mut telemetry, TelemetryMessage::Evaluation(evaluation(3, "a", 0.75)));
    let summary = finish_saved(&mut telemetry, Some(2));
    assert_eq!((summary.steps, summary.tokens, summary.unsaved_steps), (2, 2000, 1));
    assert_eq!((summary.final_loss, summary.best_loss), (Some(1.0), Some(1.0)));
    assert_eq!((summary.digest.as_deref(), summary.evaluations.len()), (Some("abc"), 0));
    let (_bench, mut telemetry) = Bench::new();
    step(&mut telemetry, 1, 3.0);
    let summary = finish_saved(&mut telemetry, None);
    let claimed = (summary.steps, summary.final_loss, summary.digest);
    assert_eq!((claimed, summary.unsaved_steps), ((0, None, None), 1));
}

#[test]
fn an_evaluation_is_wall_time_though_its_process_is_killed() {
    let (bench, mut telemetry) = Bench::new();
    bench.clock.advance(Duration::from_secs(2));
    step(&mut telemetry, 1, 1.0);
    bench.clock.advance(Duration::from_secs(6));
    tell(&mut telemetry, TelemetryMessage::Evaluation(evaluation(1, "a", 1.5)));
    let (_bench, mut telemetry) = bench.restart(telemetry);
    let summary = finish(&mut telemetry);
    assert_eq!((summary.wall_time_s, summary.goodput), (8.0, 0.25));
}
