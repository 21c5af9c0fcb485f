//! A student that learns from a teacher with given values, and from its own moving average.

use std::collections::BTreeMap;
use std::sync::Arc;

use octet_actors::contract::Workload;

use crate::harness::{ends, experiment, one_digest, run};

const MODEL: &str = "[model]\nlayers = 1\nheads = 2\nwidth = 32\ninit_std = 0.1\n";

#[test]
fn a_student_follows_a_frozen_teacher_that_begins_as_another_run_ended() {
    let folder = tempfile::tempdir().unwrap();
    let taught = run(&experiment(folder.path(), MODEL));
    let own = "[objective]\nkind = \"distillation\"\n[model.parts.teacher]\nlayers = 1\n\
               heads = 2\nwidth = 32\nfrozen = true\n";
    let small = MODEL.replace("width = 32", "width = 16");
    let student = experiment(folder.path(), &format!("{small}{own}"));
    let student = Arc::into_inner(student).unwrap();
    let names: Vec<String> =
        student.variables().parameters().iter().map(|p| p.name.clone()).collect();
    let given: BTreeMap<String, Vec<f32>> = names
        .iter()
        .filter_map(|name| Some((name.clone(), taught.floats(name.strip_prefix("teacher.")?))))
        .collect();
    assert!(!given.is_empty());
    let student = Arc::new(student.with_first_values(given.clone()).unwrap());
    let trial = one_digest(&student);
    for (name, values) in given {
        assert_eq!(trial.floats(&name), values, "{name} has not moved");
    }
    let (first, last) = ends(&trial, "teacher");
    assert!(last < 0.7 * first, "{first} to {last}");
    let wrong = BTreeMap::from([("teacher.final_norm.weight".to_owned(), vec![1.0])]);
    let other = Arc::into_inner(experiment(folder.path(), &format!("{small}{own}"))).unwrap();
    let error = other.with_first_values(wrong).unwrap_err();
    assert!(error.contains("has 1 elements there, and 32 elements here"), "{error}");
}

#[test]
fn a_moving_average_follows_every_update() {
    let folder = tempfile::tempdir().unwrap();
    let own = "[objective]\nkind = \"distillation\"\nshare = 0.2\n[model.parts.teacher]\n\
               average_of = \"model\"\ndecay = 0.5\n";
    let student = experiment(folder.path(), &format!("{MODEL}{own}"));
    let trial = one_digest(&student);
    let (own, teacher) =
        (trial.floats("embedding.weight"), trial.floats("teacher.embedding.weight"));
    let first = student.first_values(octet_kernels::graph::ParameterId(
        student.variables().parameters().iter().position(|p| p.name == "embedding.weight").unwrap(),
    ));
    let distance = |a: &[f32]| a.iter().zip(&own).map(|(a, b)| (a - b).abs()).sum::<f32>();
    assert!(distance(&teacher) > 0.0 && distance(&teacher) < 0.2 * distance(&first));
}
