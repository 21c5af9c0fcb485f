//! Flipped bits in shards and checkpoints, and resumes that would not give the same bits.

use std::fs;

use crate::harness::{Home, RunResult, checkpoints, flip_bit, log_lines, notes, reference};

/// A run that was interrupted after three checkpoints.
fn interrupted(home: &Home) {
    let mut run = home.start("runs/one", &[]);
    assert!(run.until_step(16), "it ended too early");
    run.signal(libc::SIGTERM);
    assert!(run.wait().success());
    assert_eq!(checkpoints(&home.path("runs/one")).len(), 3);
}

#[test]
fn a_damaged_checkpoint_is_passed_over_and_named() {
    for file in ["model-00001.safetensors", "manifest.json"] {
        let home = Home::new();
        interrupted(&home);
        let folder = home.path("runs/one");
        let newest = checkpoints(&folder).pop().unwrap();
        flip_bit(&newest.join(file));
        assert_eq!(&home.train("runs/one", &["run.ranks=2"]), reference());
        let notes = notes(&folder);
        let damage = notes.iter().find(|note| note.starts_with("passed over: ")).unwrap();
        assert!(damage.contains(newest.join(file).to_str().unwrap()), "{damage}");
        assert!(notes.iter().any(|note| note.starts_with("put aside: ")), "{notes:?}");
        let name = format!("damaged-1-{}", newest.file_name().unwrap().to_str().unwrap());
        assert!(folder.join("checkpoints").join(name).exists(), "it is there to be looked at");
    }
}

#[test]
fn without_a_good_checkpoint_nothing_begins() {
    let home = Home::new();
    interrupted(&home);
    let folder = home.path("runs/one");
    let all = checkpoints(&folder);
    for checkpoint in &all {
        flip_bit(&checkpoint.join("optimizer-00001.safetensors"));
    }
    let end = home.start("runs/one", &[]).wait();
    assert_eq!(end.code(), Some(2), "{end:?}");
    let newest = all.last().unwrap().join("optimizer-00001.safetensors");
    let named = end.stderr.contains("is good") && end.stderr.contains(newest.to_str().unwrap());
    assert!(named && end.stderr.contains("--fresh"), "{}", end.stderr);
    assert_eq!(checkpoints(&folder), all, "nothing was moved");
    let mut fresh = home.command("train", &[]);
    fresh.args(["--run", "runs/one", "--fresh"]);
    let end = crate::harness::Running::start(fresh, folder.clone()).wait();
    assert!(end.success(), "{end:?}");
    assert_eq!(&crate::harness::RunResult::of(&folder), reference());
    assert!(home.path("runs/one.old-1/checkpoints").exists(), "the old run is kept");
}

#[test]
fn a_damaged_shard_is_named_and_never_trained_on() {
    let home = Home::new();
    let mut run = home.start("runs/one", &[]);
    assert!(run.until_step(6));
    run.signal(libc::SIGTERM);
    assert!(run.wait().success());
    let steps = log_lines(&home.path("runs/one")).len();
    let is_train = |name: &str| name.starts_with("train-");
    let shard = fs::read_dir(home.path("cache")).unwrap().map(|entry| entry.unwrap().path());
    let shard = shard.into_iter().find(|p| is_train(p.file_name().unwrap().to_str().unwrap()));
    let shard = shard.unwrap();
    let good = fs::read(&shard).unwrap();
    let name = shard.file_name().unwrap().to_str().unwrap();
    let text = home.path("text.txt");
    let damage = |how: &dyn Fn()| {
        how();
        // Without its text there is nothing to make the data of, and nothing is removed.
        fs::rename(&text, home.path("aside.txt")).unwrap();
        let end = home.start("runs/one", &[]).wait();
        assert_eq!(end.code(), Some(2), "{end:?}");
        let said = &end.stderr;
        let wanted = "data.text: text.txt does not exist, and what was prepared of it cannot be";
        assert!(said.contains(wanted) && said.contains(name), "{said}");
        assert!(said.contains("put the text back") && !said.contains("remove"), "{said}");
        fs::rename(home.path("aside.txt"), &text).unwrap();
    };
    let cut = || fs::write(&shard, &good[..good.len() - 7]).unwrap();
    damage(&|| flip_bit(&shard));
    let stepped = log_lines(&home.path("runs/one"))[steps..].iter().any(|l| l["kind"] == "step");
    assert!(!stepped, "no step was taken on damaged tokens");
    let aside = shard.with_extension("oct.damaged");
    assert!(aside.exists() && !shard.exists());
    damage(&cut);
    // A bit that flips is found in the run; with the text there, it goes on by itself.
    fs::write(&shard, &good).unwrap();
    flip_bit(&shard);
    let end = home.start("runs/one", &[]).wait();
    assert!(end.success(), "{end:?}");
    assert_eq!(end.stderr.matches("starting it again").count(), 1, "{}", end.stderr);
    assert!(end.stderr.contains("chunk 0") && end.stderr.contains("put aside as"), "{end:?}");
    assert_eq!(&RunResult::of(&home.path("runs/one")), reference());
    assert_eq!(fs::read(&shard).unwrap(), good);
    let again = || {
        let notes = notes(&home.path("runs/one"));
        let is = |note: &&String| note.contains(name) && note.ends_with("again from their text");
        notes.iter().filter(is).count()
    };
    assert_eq!(again(), 1, "{:?}", notes(&home.path("runs/one")));
    cut();
    assert_eq!(&home.train("runs/one", &[]), reference());
    assert_eq!((again(), fs::read(&shard).unwrap()), (2, good.clone()));
}

/// `octet COMMAND` on the run folder `runs/one`.
fn look(home: &Home, command: &str) -> (Option<i32>, String) {
    let mut look = std::process::Command::new(env!("CARGO_BIN_EXE_octet"));
    look.current_dir(home.path("")).arg(command).arg(home.path("runs/one"));
    match command {
        "diff" => look.arg("runs/one"),
        "export" => look.arg("exported"),
        _ => &mut look,
    };
    let look = look.output().unwrap();
    let said = [look.stderr, look.stdout].concat();
    (look.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn files_of_a_run_that_somebody_has_edited_are_named_and_not_believed() {
    let home = Home::new();
    home.train("runs/one", &["run.steps=4", "data.tokenizer=bpe:300", "data.cache=cache"]);
    let config = home.path("runs/one/config.toml");
    let good = fs::read_to_string(&config).unwrap();
    for (from, to, key) in [
        ("norm_epsilon = 1e-5", "norm_epsilon = 0.9", "model.norm_epsilon"),
        ("rope_theta = 10000.0", "rope_theta = 500.0", "model.rope_theta"),
        ("document_masks = true", "document_masks = false", "data.document_masks"),
        ("sequence_length = 32", "sequence_length = 16", "batch.sequence_length"),
    ] {
        let from = if good.contains(from) { from } else { "norm_epsilon = 0.00001" };
        assert!(good.contains(from), "{from}: {good}");
        fs::write(&config, good.replace(from, to)).unwrap();
        let line = 1 + good[..good.find(from).unwrap()].matches('\n').count();
        for command in ["evaluate", "generate", "diff", "export"] {
            let (code, said) = look(&home, command);
            assert_eq!(code, Some(2), "{command}: {said}");
            let place = format!("{}:{line}: {key}: expected ", config.display());
            assert!(said.contains(&place) && said.lines().count() == 1, "{place}: {said}");
        }
        let (code, said) = look(&home, "inspect");
        let named = format!("edited      {}:{line}: {key}: expected ", config.display());
        assert!(code == Some(0) && said.contains(&named), "{named}: {said}");
    }
    fs::write(&config, good.replace("beta2 = 0.95", "beta2 = 0.5")).unwrap();
    assert!(look(&home, "diff").1.contains("optimizer.beta2: expected 0.95"));
    // What is no matter for a look may be changed, and what was there before is believed.
    fs::write(&config, good.replace("every = 7", "every = 9")).unwrap();
    assert_eq!(look(&home, "evaluate").0, Some(0));
    let folder = home.path("runs/one/tokenizer");
    for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
        let whole = fs::read_to_string(&entry).unwrap();
        let changed = whole.replacen("the", "teh", 1);
        if changed == whole {
            continue;
        }
        fs::write(&entry, changed).unwrap();
        for command in ["evaluate", "generate"] {
            let (code, said) = look(&home, command);
            assert_eq!(code, Some(2), "{command}: {said}");
            assert!(said.contains(folder.to_str().unwrap()), "{said}");
        }
        fs::write(&entry, whole).unwrap();
        assert_eq!(look(&home, "generate").0, Some(0));
        return;
    }
    panic!("no file of the tokenizer has a word to change");
}

#[test]
fn what_was_accepted_is_believed_before_the_next_checkpoint_is_there() {
    let home = Home::new();
    interrupted(&home);
    let folder = home.path("runs/one");
    let mut accepted = home.command("train", &["model.norm_epsilon=1e-4", "checkpoint.every=0"]);
    accepted.args(["--run", "runs/one", "--accept-new-numerics"]);
    let mut run = crate::harness::Running::start(accepted, folder.clone());
    assert!(run.until_step(20), "it ended too early");
    run.kill();
    let checkpoints = checkpoints(&folder);
    for command in ["evaluate", "generate", "diff", "export"] {
        assert_eq!(look(&home, command).0, Some(0), "{command}: {}", look(&home, command).1);
    }
    // The checkpoint was trained with another.
    let (_, said) = look(&home, "evaluate");
    let note = "model.norm_epsilon: 0.00001 when the checkpoint of step ";
    assert_eq!(said.matches(note).count(), 1, "{said}");
    let config = folder.join("config.toml");
    let stored = fs::read_to_string(&config).unwrap();
    let edited = stored.replace("norm_epsilon = 0.0001", "norm_epsilon = 0.1");
    assert_ne!(stored, edited);
    fs::write(&config, edited).unwrap();
    assert_eq!(look(&home, "evaluate").0, Some(2));
    assert_eq!(crate::harness::checkpoints(&folder), checkpoints, "nothing was saved in between");
}

#[test]
fn a_resume_with_other_numerics_is_refused_until_it_is_accepted() {
    let home = Home::new();
    interrupted(&home);
    let folder = home.path("runs/one");
    let stored = fs::read_to_string(folder.join("config.toml")).unwrap();
    let others: [(&[&str], &str); 3] = [
        (&["batch.micro=1", "batch.lanes=8"], "batch.micro is 1 and was 2"),
        (&["optimizer.beta2=0.9"], "optimizer.beta2 is 0.9 and was 0.95"),
        (&["data.text=other.txt", "data.cache=cache2"], "the prepared data is "),
    ];
    fs::write(home.path("other.txt"), crate::harness::text(21_000)).unwrap();
    for (sets, sentence) in others {
        let end = home.start("runs/one", sets).wait();
        assert_eq!(end.code(), Some(2), "{sets:?}: {end:?}");
        assert!(end.stderr.contains(sentence), "{}", end.stderr);
        assert!(end.stderr.contains("--accept-new-numerics"), "{}", end.stderr);
        let now = fs::read_to_string(folder.join("config.toml")).unwrap();
        assert_eq!(now, stored, "a refused resume changes nothing");
    }
    let mut accepted = home.command("train", others[1].0);
    accepted.args(["--run", "runs/one", "--accept-new-numerics"]);
    let end = crate::harness::Running::start(accepted, folder.clone()).wait();
    assert!(end.success(), "{end:?}");
    let notes = notes(&folder);
    let logged = notes.iter().any(|n| n.contains("accepted: optimizer.beta2 is 0.9 and was 0.95"));
    assert!(logged, "{notes:?}");
}

#[test]
fn after_an_accepted_change_of_the_batch_no_sample_is_skipped_or_learned_twice() {
    let home = Home::new();
    let (horizon, quiet) = ("schedule.steps=20", "evaluate.every=0");
    let accept = |name: &str, sets: &[&str]| {
        let mut command = home.command("train", &[sets, &[horizon, quiet]].concat());
        command.args(["--run", name, "--accept-new-numerics"]);
        let end = crate::harness::Running::start(command, home.path(name)).wait();
        assert!(end.success(), "{end:?}");
        RunResult::of(&home.path(name))
    };
    let cursor = |name: &str, step: u64| -> serde_json::Value {
        let path = format!("{name}/checkpoints/step-{step:08}/manifest.json");
        let manifest = fs::read(home.path(&path)).unwrap();
        serde_json::from_slice::<serde_json::Value>(&manifest).unwrap()["cursor"].clone()
    };
    for name in ["runs/whole", "runs/parts"] {
        home.train(name, &["run.steps=10", horizon, quiet]);
        assert_eq!(cursor(name, 10)["samples"], 160);
    }
    // From here on steps are twice as large, and the second run stops once more between.
    let whole = accept("runs/whole", &["run.steps=20", "batch.global=32"]);
    let last = cursor("runs/whole", 20);
    assert_eq!((&last["samples"], &last["tokens"]), (&480.into(), &(480 * 32).into()));
    let lines = log_lines(&home.path("runs/whole"));
    let tokens: Vec<u64> = lines
        .iter()
        .filter(|line| line["kind"] == "step")
        .map(|line| line["tokens"].as_u64().unwrap())
        .collect();
    let expected = (1..=20u64).map(|step| 32 * (16 * step + 16 * step.saturating_sub(10)));
    assert_eq!(tokens, expected.collect::<Vec<_>>());
    accept("runs/parts", &["run.steps=15", "batch.global=32"]);
    assert_eq!(cursor("runs/parts", 15)["samples"], 320);
    let sets = ["run.steps=20", "batch.global=32", horizon, quiet];
    assert_eq!(home.train("runs/parts", &sets), whole);
}
