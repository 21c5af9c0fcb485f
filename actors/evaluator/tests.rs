//! The evaluator by its messages.

use proptest::prelude::{Strategy, any, prop, proptest};

use super::{Evaluator, EvaluatorMessage, TaskInfo};
use crate::actor::{Actor, Flow, Port};
use crate::contract::{Findings, Reading};
use crate::fault::Blame;
use crate::report::EvaluationReport;

const TASK: usize = 0;
const SIDE: usize = 1;

fn evaluator() -> (Evaluator, crossbeam::channel::Receiver<EvaluationReport>) {
    let (sender, receiver) = crossbeam::channel::unbounded();
    let port = Port::new(move |report| sender.send(report).map_err(|_| crate::actor::Closed));
    let tasks = vec![
        TaskInfo { name: "held_out".to_owned(), reading: Reading::of_text() },
        TaskInfo { name: "side".to_owned(), reading: Reading::mean() },
    ];
    (Evaluator::new(tasks, 1000, port), receiver)
}

fn begin(step: u64, task: usize, parts: u64) -> EvaluatorMessage {
    EvaluatorMessage::Begin { step, task, parts }
}

fn part(step: u64, index: u64, loss_sum: f64, targets: u64) -> EvaluatorMessage {
    part_of(TASK, step, index, &[loss_sum, targets as f64, 0.0, 0.0])
}

fn part_of(task: usize, step: u64, index: u64, sums: &[f64]) -> EvaluatorMessage {
    EvaluatorMessage::Part { step, task, index, sums: sums.to_vec() }
}

/// Values whose sum depends on the order, and parts in an arbitrary order.
fn parts_and_order() -> impl Strategy<Value = (Vec<(f64, u32)>, Vec<usize>)> {
    let one = (-1e9..1e9f64, any::<u32>());
    prop::collection::vec(one, 1..40).prop_flat_map(|parts| {
        let order: Vec<usize> = (0..parts.len()).collect();
        (prop::strategy::Just(parts), prop::strategy::Just(order).prop_shuffle())
    })
}

proptest! {
    #[test]
    fn the_result_is_the_sum_in_index_order_whatever_the_order_of_arrival(
        (parts, order) in parts_and_order()
    ) {
        let (mut evaluator, reports) = evaluator();
        evaluator.apply(begin(7, TASK, parts.len() as u64)).unwrap();
        for index in order {
            assert!(reports.is_empty());
            let (sum, targets) = parts[index];
            let flow = evaluator.apply(part(7, index as u64, sum, u64::from(targets)));
            assert_eq!(flow.unwrap(), Flow::Continue);
        }
        let targets: u64 = parts.iter().map(|(_, targets)| u64::from(*targets)).sum();
        let sum = parts.iter().fold(0.0, |sum, (part, _)| sum + part);
        let report = reports.try_recv().unwrap();
        assert_eq!((report.step, report.task.as_str(), report.targets), (7, "held_out", targets));
        if targets > 0 {
            assert_eq!(report.loss.to_bits(), f64::to_bits(sum / targets as f64));
        }
    }
}

#[test]
fn units_are_right() {
    let (mut evaluator, reports) = evaluator();
    evaluator.apply(begin(1, TASK, 2)).unwrap();
    // Of 40 nats on 20 targets, 37 are on targets that are text, of 80 bytes.
    evaluator.apply(part_of(TASK, 1, 1, &[30.0, 10.0, 28.0, 50.0])).unwrap();
    evaluator.apply(part_of(TASK, 1, 0, &[10.0, 10.0, 9.0, 30.0])).unwrap();
    let report = reports.try_recv().unwrap();
    assert_eq!((report.loss, report.targets), (2.0, 20));
    assert!((report.perplexity - 7.389_056_098_930_65).abs() < 1e-12);
    // 37 / ln 2 / 80 bits per byte.
    assert!((report.bits_per_byte.unwrap() - 0.667_246_456_411_145_6).abs() < 1e-15);

    evaluator.apply(begin(1, SIDE, 1)).unwrap();
    evaluator.apply(part_of(SIDE, 1, 0, &[2.0, 1.0])).unwrap();
    let report = reports.try_recv().unwrap();
    assert_eq!((report.loss, report.bits_per_byte), (2.0, None));
}

#[test]
fn without_a_target_there_is_no_loss() {
    let (mut evaluator, reports) = evaluator();
    for (task, sums) in [(TASK, &[0.0; 4][..]), (SIDE, &[0.0; 2])] {
        evaluator.apply(begin(1, task, 1)).unwrap();
        evaluator.apply(part_of(task, 1, 0, sums)).unwrap();
        let report = serde_json::to_value(reports.try_recv().unwrap()).unwrap();
        for key in ["loss", "perplexity", "bits_per_byte"] {
            assert!(report[key].is_null(), "{key}: {report}");
        }
        assert_eq!(report["targets"], 0);
    }
}

#[test]
fn tasks_may_overlap_and_a_task_may_come_again() {
    let (mut evaluator, reports) = evaluator();
    evaluator.apply(begin(1, TASK, 1)).unwrap();
    evaluator.apply(begin(1, SIDE, 1)).unwrap();
    let side = EvaluatorMessage::Part { step: 1, task: SIDE, index: 0, sums: vec![3.0, 1.0] };
    evaluator.apply(side).unwrap();
    evaluator.apply(part(1, 0, 5.0, 1)).unwrap();
    evaluator.apply(begin(2, TASK, 1)).unwrap();
    evaluator.apply(part(2, 0, 4.0, 1)).unwrap();
    let seen: Vec<_> = reports.try_iter().map(|r| (r.step, r.task, r.loss)).collect();
    let expected = [(1, "side", 3.0), (1, "held_out", 5.0), (2, "held_out", 4.0)];
    assert_eq!(seen, expected.map(|(step, task, loss)| (step, task.to_owned(), loss)));
}

#[test]
fn what_nobody_may_send_is_our_fault_and_is_named() {
    let refused = |messages: &[EvaluatorMessage]| {
        let (mut evaluator, _reports) = evaluator();
        let (last, before) = messages.split_last().unwrap();
        for message in before {
            evaluator.apply(message.clone()).unwrap();
        }
        let fault = evaluator.apply(last.clone()).unwrap_err();
        assert_eq!(fault.blame, Blame::Ours);
        fault.what
    };
    assert!(refused(&[part(1, 0, 1.0, 1)]).contains("no evaluation"));
    assert!(refused(&[begin(1, TASK, 2), part(2, 0, 1.0, 1)]).contains("at step 2"));
    assert!(refused(&[begin(1, TASK, 2), part(1, 2, 1.0, 1)]).contains("no part 2"));
    let twice = [begin(1, TASK, 2), part(1, 0, 1.0, 1), part(1, 0, 1.0, 1)];
    assert!(refused(&twice).contains("came twice"));
    assert!(refused(&[begin(1, TASK, 0)]).contains("0 parts"));
    assert!(refused(&[begin(1, TASK, 1001)]).contains("1001 parts"));
    assert!(refused(&[begin(1, 9, 1)]).contains("no task 9"));
    assert!(refused(&[begin(1, TASK, 2), begin(2, TASK, 2)]).contains("is not done"));
}

#[test]
fn abandoning_forgets_what_was_begun() {
    let (mut evaluator, reports) = evaluator();
    evaluator.apply(begin(5, TASK, 2)).unwrap();
    evaluator.apply(part(5, 0, 1.0, 1)).unwrap();
    evaluator.apply(EvaluatorMessage::Abandon).unwrap();
    evaluator.apply(begin(5, TASK, 1)).unwrap();
    evaluator.apply(part(5, 0, 2.0, 1)).unwrap();
    assert_eq!(reports.try_iter().map(|r| r.loss).collect::<Vec<_>>(), [2.0]);
}

#[test]
fn a_task_adds_up_whatever_it_names_and_says_what_it_means() {
    let (sender, reports) = crossbeam::channel::unbounded();
    let port = Port::new(move |report| sender.send(report).map_err(|_| crate::actor::Closed));
    let reading = Reading::new(|sums: &[f64]| Findings {
        loss: sums[0] / sums[1],
        targets: sums[1] as u64,
        bits_per_byte: None,
        measures: vec![("accuracy".to_owned(), sums[2] / sums[1])],
    });
    let tasks = vec![TaskInfo { name: "pairs".to_owned(), reading }];
    let mut evaluator = Evaluator::new(tasks, 8, port);
    evaluator.apply(begin(3, TASK, 2)).unwrap();
    for (index, sums) in [(1, vec![1.0, 2.0, 2.0]), (0, vec![5.0, 2.0, 1.0])] {
        evaluator.apply(EvaluatorMessage::Part { step: 3, task: TASK, index, sums }).unwrap();
    }
    let report = reports.try_recv().unwrap();
    assert_eq!((report.loss, report.targets), (1.5, 4));
    assert_eq!(report.measures, [("accuracy".to_owned(), 0.75)]);
}
