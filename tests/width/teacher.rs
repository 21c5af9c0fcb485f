//! Teacher and student (a mean teacher, arXiv:1703.01780): the teacher's weights are the running
//! average of the student's, moved after every update; it tells the student about symbols without a
//! label, through a step buffer.

use crate::harness::{
    BATCH, Cell, Goal, Graph, ParameterId, Recompute, SYMBOLS, StepShape, Study, Toy, Variables,
    WIDTH, add, buffer, copy_into, cross_entropy, encode, exponential_average, integers,
    kl_divergence, learns, linear, one_digest, phase, report, run, scales, symbol, tower, twin,
    weight,
};

const LENGTH: usize = 4;
const ROWS: usize = LENGTH * BATCH.micro;

fn toy(recompute: Recompute) -> Toy {
    let mut v = Variables::new();
    let tower = tower(&mut v, "student", weight);
    let student = [tower[0], tower[1], tower[2], weight(&mut v, "student.head", &[SYMBOLS, WIDTH])];
    let teacher = student.map(|id| twin(&mut v, id));
    let told = buffer(&mut v, "told", &[ROWS, SYMBOLS], BATCH.micro_batches());
    let mut study = Study::new(v, recompute);
    let logits = |g: &mut Graph<'_>, x, [table, up, down, head]: [ParameterId; 4]| {
        let h = encode(g, x, [table, up, down])?;
        let head = g.parameter(head);
        linear(g, h, head, None)
    };
    let teach = study.forward("teach", |g| {
        let [x] = integers(g, ["x"], ROWS);
        let (logits, told) = (logits(g, x, teacher)?, g.step_slice(told));
        copy_into(g, logits, told)
    });
    let learn = study.program("learn", |g| {
        let [x, y] = integers(g, ["x", "y"], ROWS);
        let [scale, trust] = scales(g, ["scale", "trust"]);
        let (logits, told) = (logits(g, x, student)?, g.step_slice(told));
        let labelled = cross_entropy(g, logits, y, scale)?;
        let (agreed, _) = kl_divergence(g, logits, told, 2.0, trust)?;
        let both = add(g, labelled.0, agreed)?;
        Ok(Goal::Train { loss: report(g, (both, labelled.1, labelled.2)) })
    });
    let average = study.forward("average", |g| {
        student.into_iter().zip(teacher).try_for_each(|(student, teacher)| {
            let [student, teacher] = [student, teacher].map(|id| g.parameter(id));
            exponential_average(g, teacher, student, 0.9)
        })
    });
    let all = 0..BATCH.micro_batches();
    let phases = vec![phase(all.clone(), |_| teach), phase(all, |_| learn)];
    let shape = StepShape { micro_batches: BATCH.micro_batches(), phases, finally: vec![average] };
    study.toy(BATCH, move |_, _| shape.clone(), data)
}

/// Every other symbol has a label.
fn data(cell: Cell<'_>) -> f64 {
    match cell.field {
        "x" => symbol(cell.sample, cell.at) as f64,
        "y" if cell.at % 2 == 1 => -1.0,
        "y" => symbol(cell.sample, cell.at + 1) as f64,
        "trust" => 0.5 / (BATCH.global * LENGTH) as f64,
        _ => 1.0 / (BATCH.global * LENGTH / 2) as f64,
    }
}

#[test]
fn a_teacher_follows_its_student() {
    let trial = one_digest(12, toy);
    learns(&trial, 0.6);
    let before = run(toy(Recompute::None), 1, 0);
    for name in ["student.table", "student.up", "student.head"] {
        let teacher = format!("teacher.{name}");
        let (first, last, told) = (before.floats(name), trial.floats(name), trial.floats(&teacher));
        assert_eq!(before.floats(&teacher), first, "the teacher begins as the student");
        assert!(!trial.tensors.contains_key(&format!("{teacher}.exp_avg")));
        let distance = |a: &[f32]| a.iter().zip(&last).map(|(a, b)| (a - b).abs()).sum::<f32>();
        assert!(0.0 < distance(&told) && distance(&told) < distance(&first), "{name}");
    }
}
