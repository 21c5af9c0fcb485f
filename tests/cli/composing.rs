//! Runs of several tracks and models from the command line.

use crate::harness::Place;

const DISTILL: [&str; 4] = [
    "objective.kind=distillation",
    "model.parts.teacher.from=runs/teacher",
    "model.parts.teacher.frozen=true",
    "model.width=16",
];

#[test]
fn a_teacher_comes_from_the_checkpoint_of_another_run() {
    let place = Place::new();
    place.train("runs/teacher", &[]);
    place.train("runs/student", &DISTILL);
    let losses = place.log("runs/student", "step")[0]["losses"].to_string();
    assert!(losses.contains("\"text\"") && losses.contains("\"teacher\""), "{losses}");
    // What is stored says what the teacher is, and the checkpoint holds it.
    let stored = place.read("runs/student/config.toml");
    assert!(stored.contains("[model.parts.teacher]") && stored.contains("width = 32"), "{stored}");
    // Stopped and resumed, it is the same run; the teacher is not read again.
    let half = [&DISTILL[..], &["run.steps=4", "schedule.steps=6"]].concat();
    place.train("runs/torn", &half);
    std::fs::remove_dir_all(place.path("runs/teacher/checkpoints")).unwrap();
    place.train("runs/torn", &[&DISTILL[..], &["schedule.steps=6"]].concat());
    let whole = [&DISTILL[..], &["schedule.steps=6"]].concat();
    assert_eq!(place.digest("runs/torn"), place.digest("runs/student"));
    let mut arguments = vec!["train", "tiny.toml", "--run", "runs/late"];
    whole.iter().for_each(|set| arguments.extend(["--set", set]));
    let error = place.refusal(&arguments);
    assert!(
        error.contains("model.parts.teacher.from: ") && error.contains("no checkpoint"),
        "{error}"
    );
}

#[test]
fn tracks_are_evaluated_by_name_and_at_their_own_pace() {
    let place = Place::new();
    let tracks = "\
[[tracks]]
name = \"lm\"
[[tracks]]
name = \"bert\"
model = \"bert\"
weight = [[0, 1.0], [4, 0.5]]
objective = { kind = \"masked\" }
[[tasks]]
name = \"text\"
track = \"lm\"
[[tasks]]
name = \"hidden\"
track = \"bert\"
every = 2
[model.parts.bert]
family = \"encoder\"
layers = 1
heads = 2
width = 16
";
    let config = place.read("tiny.toml") + tracks;
    std::fs::write(place.path("tiny.toml"), config).unwrap();
    let printed = place.train("runs/both", &[]);
    assert!(printed.contains("  lm ") && printed.contains("  bert "), "{printed}");
    let evaluated: Vec<(u64, String)> = place
        .log("runs/both", "evaluate")
        .iter()
        .map(|line| (line["step"].as_u64().unwrap(), line["task"].as_str().unwrap().to_owned()))
        .collect();
    let wanted = [(2, "hidden"), (3, "text"), (4, "hidden"), (6, "text"), (6, "hidden")];
    assert_eq!(evaluated, wanted.map(|(step, task)| (step, task.to_owned())));
    let summary: serde_json::Value =
        serde_json::from_str(&place.read("runs/both/summary.json")).unwrap();
    let names = |list: &str, key: &str| -> Vec<String> {
        let all = summary[list].as_array().unwrap().iter();
        all.map(|one| one[key].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("tracks", "track"), ["lm", "bert"]);
    assert_eq!(names("evaluations", "task"), ["hidden", "text"]);
    let shown = place.prints(&["inspect", "runs/both"]);
    for line in
        ["lm          next_token of model, weight 1", "bert        masked of bert, weight [["]
    {
        assert!(shown.lines().any(|own| own.starts_with(line)), "{line}: {shown}");
    }
    place.train("runs/other", &["optimizer.weight_decay=0.5"]);
    let compared = place.run(&["diff", "runs/both", "runs/other"]);
    let compared = String::from_utf8(compared.stdout).unwrap();
    assert!(compared.contains("             in bert, lm"), "{compared}");
    assert!(compared.contains("task         hidden first differs at step 2: "), "{compared}");
    let shown = place.prints(&["evaluate", "runs/both", "--task", "hidden"]);
    assert!(shown.contains("hidden"), "{shown}");
    let plan = place.json(&["plan", "tiny.toml", "--json"]);
    let tracks = plan["tracks"].as_array().unwrap();
    let names: Vec<&str> = tracks.iter().map(|track| track["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["lm", "bert"]);
    assert!(tracks.iter().all(|track| track["activation_bytes"].as_u64() > Some(0)));
    let shares: Vec<f64> = tracks.iter().map(|track| track["share"].as_f64().unwrap()).collect();
    assert!(shares.iter().all(|&share| share > 0.1), "{shares:?}");
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    let error = place.refusal(&["evaluate", "runs/both", "--task", "other"]);
    assert!(error.contains("text") && error.contains("hidden"), "{error}");
}

#[test]
fn a_roll_back_to_the_start_finds_the_teacher_as_it_was() {
    let place = Place::new();
    place.train("runs/teacher", &[]);
    // So close to the noise of a loss that some update after step 12 is bad.
    let touchy = [
        "recovery.bad_updates=1",
        "recovery.loss_z=1.2",
        "recovery.window=6",
        "recovery.rollbacks=64",
        "schedule.learning_rate=1e-7",
        "schedule.minimum=1e-8",
        "schedule.steps=24",
        "checkpoint.every=0",
    ];
    let sets = |steps| [&DISTILL[..], &touchy, &[steps]].concat();
    place.train("runs/whole", &sets("run.steps=24"));
    place.train("runs/torn", &sets("run.steps=12"));
    std::fs::remove_dir_all(place.path("runs/teacher/checkpoints")).unwrap();
    place.train("runs/torn", &sets("run.steps=24"));
    let back = place.log("runs/torn", "rollback");
    let number = |line: &serde_json::Value, key: &str| line[key].as_u64().unwrap();
    let to_start = |line: &serde_json::Value| number(line, "step") == 0 && number(line, "at") > 12;
    assert!(back.iter().any(to_start), "{back:?}");
    assert_eq!(place.digest("runs/torn"), place.digest("runs/whole"));
}
