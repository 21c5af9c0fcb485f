//! Fingerprints of buckets: recorded where they are wanted, dropped with the steps that are.

use std::path::Path;

use super::{Bench, FINGERPRINTS, report, step, tell};
use crate::recovery::Skips;
use crate::run_folder::log::{BucketLine, for_each_line};
use crate::telemetry::TelemetryMessage;

fn recorded(bench: &Bench) -> Vec<BucketLine> {
    let mut lines = Vec::new();
    for_each_line(&bench.disk, Path::new(FINGERPRINTS), |line| lines.push(line)).unwrap();
    lines
}

fn line(step: u64) -> BucketLine {
    BucketLine { step, buckets: vec![step, 4] }
}

#[test]
fn some_steps_are_recorded_and_a_rewind_drops_what_it_drops_of_the_log() {
    let (bench, mut telemetry) = Bench::new();
    (999..=1004).for_each(|n| step(&mut telemetry, n, 1.0));
    assert_eq!(recorded(&bench), [line(1000), line(1002), line(1004)]);
    tell(&mut telemetry, TelemetryMessage::RewindLog { step: 1002, skips: Skips::default() });
    assert_eq!(recorded(&bench), [line(1000), line(1002)]);
    let (bench, mut telemetry) = bench.restart(telemetry);
    // From the third step on the log is of a future that was given up.
    let mut other = report(1003, 1.0);
    other.batch = Some(7);
    tell(&mut telemetry, TelemetryMessage::Step(other));
    step(&mut telemetry, 1004, 1.0);
    assert_eq!(recorded(&bench).len(), 3);
    tell(&mut telemetry, TelemetryMessage::RewindLog { step: 1004, skips: Skips::default() });
    assert_eq!(recorded(&bench), [line(1000), line(1002)]);
}

#[test]
fn a_step_without_an_update_by_buckets_is_not_recorded() {
    let (bench, mut telemetry) = Bench::new();
    let mut none = report(1000, 1.0);
    none.buckets.clear();
    tell(&mut telemetry, TelemetryMessage::Step(none));
    assert!(recorded(&bench).is_empty());
    let text = serde_json::to_string(&report(7, 1.0)).unwrap();
    assert!(text.contains("\"fingerprint\":3") && !text.contains("buckets"), "{text}");
    // Builds before had the fingerprint of every bucket in its line.
    let old = text.replace("\"fingerprint\":3", "\"fingerprint\":[18446744073709551615,4]");
    let read: crate::report::StepReport = serde_json::from_str(&old).unwrap();
    assert_eq!(read.fingerprint, 3);
}
