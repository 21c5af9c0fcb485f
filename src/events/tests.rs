//! Event files byte by byte; `scripts/tensorboard_check` has the real reader.

use std::fs;

use octet_actors::report::{EvaluationReport, StepReport, WaitMs};
use octet_actors::run_folder::log::Line;

use super::{Events, beside, masked};

fn step(step: u64, loss: f64) -> Line {
    Line::Step(StepReport {
        batch: None,
        step,
        tokens: step * 8,
        loss,
        targets: Some(8),
        losses: vec![("a".to_owned(), 2.0)],
        learning_rate: 1e-3,
        grad_norm: 1.0,
        skipped: false,
        tokens_per_s: 1.0,
        step_ms: 1.0,
        flops_per_s: 1.0,
        mfu: None,
        wait_ms: WaitMs::default(),
        fingerprint: 0,
        buckets: vec![],
    })
}

fn evaluation(step: u64) -> Line {
    let (task, measures) = ("held_out".to_owned(), vec![("accuracy".to_owned(), 0.5)]);
    let (loss, perplexity, bits_per_byte, targets) = (1.0, 1f64.exp(), Some(2.0), 9);
    Line::Evaluate(EvaluationReport {
        step,
        task,
        loss,
        perplexity,
        bits_per_byte,
        targets,
        measures,
    })
}

/// The records of a file, whose checksums must be right.
fn records(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut records, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        let crc = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        let content = &rest[12..12 + length];
        assert_eq!((crc(8), crc(12 + length)), (masked(&rest[..8]), masked(content)));
        records.push(content.to_vec());
        rest = &rest[16 + length..];
    }
    records
}

fn holds(record: &[u8], name: &str, value: f32) -> bool {
    let wanted = [&[name.len() as u8], name.as_bytes(), &[0x15], &value.to_le_bytes()].concat();
    record.windows(wanted.len()).any(|part| part == wanted)
}

#[test]
fn the_checksum_is_that_of_the_format() {
    // As TensorFlow's own tests have it: crc32c("foo"), and its mask undone.
    assert_eq!(masked(b"foo").wrapping_sub(0xa282_ead8).rotate_left(15), crc32c::crc32c(b"foo"));
    assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn lines_become_scalars_and_going_back_a_session() {
    let folder = tempfile::tempdir().unwrap();
    let mut make = beside(folder.path().to_owned(), || Box::new(|_: &Line| {}));
    let mut observer = make();
    for line in [step(1, 3.0), step(2, f64::NAN), evaluation(2)] {
        observer(&line);
    }
    let file = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(name.starts_with("events.out.tfevents."), "{name}");
    let all = records(&fs::read(&file).unwrap());
    assert_eq!(all.len(), 5);
    assert!(all[0].ends_with(b"\x1a\x0dbrain.Event:2"), "{:?}", all[0]);
    // The session begins at step 1: field 2, then a message of field 7 with status 1.
    assert!(all[1].ends_with(&[0x10, 1, 0x3a, 2, 8, 1]), "{:?}", all[1]);
    assert!(holds(&all[2], "train/loss", 3.0) && holds(&all[2], "train/loss/a", 2.0));
    assert!(holds(&all[4], "evaluate/held_out/accuracy", 0.5));
    assert!(holds(&all[4], "evaluate/held_out/bits_per_byte", 2.0));
}

#[test]
fn a_disk_that_refuses_ends_the_file_and_nothing_else() {
    let mut seen = 0;
    let mut events = Events::new(std::path::Path::new("/nowhere/at/all"));
    for line in [step(1, 1.0), step(2, 1.0)] {
        events.add(&line);
        seen += 1;
    }
    assert!(seen == 2 && matches!(events.file, Some(None)));
}
