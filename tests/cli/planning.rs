//! `plan` and the help of every command.

use octet_kernels::cuda::testing::Pretended;

use crate::harness::Place;

#[test]
fn a_plan_says_where_memory_and_time_go() {
    let place = Place::new();
    let text = place.prints(&["plan", "tiny.toml", "--target", "h200"]);
    for line in ["arena ", "host ", "outside ", "fits ", "roofline ", "checkpoint ", "run "] {
        assert!(text.lines().any(|l| l.starts_with(line)), "{line}: {text}");
    }
    for word in ["cuBLASLt", "NCCL", "on h200", "450 GB/s", "gather between ranks", "AdamW"] {
        let ranks = ["plan", "tiny.toml", "--target", "h200", "--set", "run.ranks=2"];
        assert!(place.prints(&ranks).contains(word), "{word}: {text}");
    }
    let json = place.json(&["plan", "tiny.toml", "--json", "--target", "h100"]);
    assert_eq!((json["target"].as_str(), json["fits"].as_bool()), (Some("h100"), Some(true)));
    // Nothing stands between the plan and a run there.
    assert_eq!(json["without_kernels"], serde_json::json!({}));
    let parts = json["arena"].as_array().unwrap().iter();
    let sum: u64 = parts.map(|part| part["bytes"].as_u64().unwrap().next_multiple_of(256)).sum();
    assert_eq!(json["arena_bytes"].as_u64(), Some(sum));
    // Twice the disk, half the time.
    let seconds = |disk: &str| {
        let plan = place.json(&["plan", "tiny.toml", "--json", "--disk", disk]);
        plan["checkpoint"]["disk_seconds"].as_f64().unwrap()
    };
    assert!((seconds("1 GB") / seconds("2 GB") - 2.0).abs() < 1e-9);
    assert!(place.refusal(&["plan", "tiny.toml", "--disk", "fast"]).contains("--disk"));
    assert!(place.refusal(&["plan", "nothing.toml"]).contains("nothing.toml: cannot read"));
}

#[test]
fn a_plan_of_what_is_far_too_large_says_so() {
    let place = Place::new();
    // More gradient and optimizer state in host buffers than any machine here has.
    let model = ["model.width=65536", "model.heads=512", "model.layers=400", "model.dtype=f32"];
    let huge = [&model[..], &["run.snapshots=2"]].concat();
    let mut arguments = vec!["plan", "tiny.toml", "--target", "cpu"];
    arguments.extend(huge.iter().flat_map(|set| ["--set", set]));
    let text = place.prints(&arguments);
    let fits = text.lines().find(|line| line.starts_with("fits ")).unwrap();
    assert!(fits.starts_with("fits       no: ") && fits.ends_with(" in all"), "{fits}");
    assert!(fits.contains("TiB are taken beside arenas") && !fits.contains(" 0 B"), "{fits}");
}

#[test]
fn a_step_takes_no_less_than_its_plan_says() {
    let place = Place::new();
    let larger = ["model.width=256", "model.heads=4", "batch.sequence_length=64", "batch.micro=4"];
    let sets: Vec<&str> = larger.iter().flat_map(|set| ["--set", set]).collect();
    let figure = |arguments: &[&str], key: &str| {
        let json = place.json(&[arguments, &sets, &["--json"]].concat());
        json[key].as_f64().unwrap_or_else(|| panic!("{key}: {json}"))
    };
    // Each is measured in a moment of its own: a machine that is busy in one of them may show
    // another speed, but not always, and not the half of it.
    let kept = (0..8).any(|_| {
        let promised = figure(&["plan", "tiny.toml", "--target", "cpu"], "seconds_per_step");
        let taken = figure(&["bench", "step", "tiny.toml", "--steps", "5"], "step_ms") / 1e3;
        promised <= 1.1 * taken
    });
    assert!(kept, "steps take less than \"at least\"");
}

#[test]
fn a_plan_says_when_training_would_take_another_device() {
    let place = Place::new();
    let said = |more: &[&str]| {
        let output = place.run(&[&["plan", "tiny.toml"], more].concat());
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let wide = said(&["--set", "model.dtype=bf16"]);
    assert!(wide.contains("planned for an h200") && wide.contains("--target cpu"), "{wide}");
    assert_eq!(said(&["--set", "model.dtype=bf16", "--target", "cpu"]), "");
    assert_eq!(said(&[]), "");
}

#[test]
fn numbers_among_arguments_say_what_they_expect() {
    let place = Place::new();
    for (arguments, wanted) in [
        (&["bench", "step", "tiny.toml", "--steps", "0"][..], "at least 1"),
        (&["bench", "step", "tiny.toml", "--steps", "-3"], "at least 1"),
        (&["bench", "step", "tiny.toml", "--steps", "many"], "at least 1"),
        (&["plan", "tiny.toml", "--search", "--rows", "-1"], "at least 0"),
        (&["generate", "run", "--tokens", "0"], "at least 1"),
        (&["generate", "run", "--count", "0"], "at least 1"),
        (&["generate", "run", "--count", "-2"], "at least 1"),
        (&["generate", "run", "--top-k", "-2"], "at least 0"),
        (&["generate", "run", "--seed", "1.5"], "at least 0"),
        (&["generate", "run", "--temperature", "hot"], "expected a number"),
    ] {
        let output = place.run(arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        let [.., option, value] = arguments else { unreachable!("there are two") };
        let said = errors.lines().next().unwrap();
        assert!(
            said.starts_with(&format!("error: invalid value '{value}' for '{option} ")),
            "{said}"
        );
        assert!(said.contains(": expected a ") && said.ends_with(wanted), "{said}");
    }
}

#[test]
fn a_search_gives_arguments_that_plan_and_train_take() {
    let place = Place::new();
    let search = ["plan", "tiny.toml", "--target", "cpu", "--search", "--json"];
    let rows = place.json(&search);
    let rows = rows.as_array().unwrap();
    let row = rows.iter().find(|row| row["ranks"] == 2 && row["same_run"] == true).unwrap();
    let sets: Vec<&str> =
        row["sets"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect();
    let mut arguments = vec!["plan", "tiny.toml", "--json", "--target", "cpu"];
    arguments.extend(sets.iter().flat_map(|set| ["--set", set]));
    assert_eq!(place.json(&arguments)["arena_bytes"], row["arena_bytes"]);
    // What is marked as the same run is.
    place.train("as_is", &["sample.every=0"]);
    place.train("other", &[&sets[..], &["sample.every=0"]].concat());
    assert_eq!(place.digest("as_is"), place.digest("other"));
    let text = place.prints(&search[..5]);
    assert!(text.contains(" --set run.ranks=2") && text.contains("as configured"), "{text}");
    assert!(text.contains("* another micro-batch or number of lanes"), "{text}");
    let rows = place.prints(&[&search[..5], &["--rows", "2"]].concat());
    assert_eq!(rows.lines().count(), 2 + 2 * 2 + 1, "{rows}");
    let refused = |more: &[&str]| {
        let huge =
            ["--set", "model.width=16384", "--set", "model.heads=128", "--set", "model.layers=20"];
        place.refusal(&[&["plan", "tiny.toml", "--target", "h100"], &huge[..], more].concat())
    };
    let said = refused(&["--search"]);
    assert!(said.contains("nothing fits on h100"), "{said}");
    let said = refused(&["--set", "model.recompute=auto"]);
    assert!(said.contains("model.recompute") && said.contains("at least"), "{said}");
}

#[test]
fn every_command_has_help_with_an_example() {
    let place = Place::new();
    let all = place.prints(&["--help"]);
    assert!(all.contains("octet train configs/quickstart.toml"), "{all}");
    let commands = all.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| !line.is_empty());
    let commands: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.len() > 8, "{commands:?}");
    for command in commands.into_iter().filter(|command| *command != "help") {
        let mut arguments = vec![command];
        // Its only kind so far.
        if command == "bench" {
            arguments.push("step");
        }
        arguments.push("--help");
        let help = place.prints(&arguments);
        let example = format!("\n  octet {command} ");
        let alone = format!("\n  octet {command}\n");
        assert!(help.contains(&example) || help.contains(&alone), "{command}: {help}");
    }
}

#[test]
fn a_gpu_that_will_do_is_taken_and_one_that_will_not_is_left_alone_with_a_note() {
    let Some(machine) = Pretended::new("cli::planning", "") else { return };
    let place = Place::new();
    let octet = |arguments: &[&str]| {
        let mut octet = std::process::Command::new(env!("CARGO_BIN_EXE_octet"));
        octet.current_dir(place.path("")).env("OCTET_CUDA_LIBRARIES", &machine.folder);
        octet.env("OCTET_STAND_IN", "memory=80000000000");
        let output = octet.args(arguments).output().unwrap();
        let [out, err] = [output.stdout, output.stderr].map(|b| String::from_utf8(b).unwrap());
        (output.status.code(), out, err)
    };
    let log = |run: &str| std::fs::read_to_string(place.path(run).join("log.jsonl")).unwrap();
    let (code, _, said) = octet(&["train", "tiny.toml", "--set", "run.steps=2", "--run", "taken"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(log("taken").contains("1 rank on CUDA, a GPU each"), "{}", log("taken"));
    // What was begun on a CPU goes on there, whatever has come since.
    let begun = ["train", "tiny.toml", "--run", "begun"];
    let steps =
        |steps| ["--set", steps, "--set", "schedule.steps=4", "--set", "checkpoint.every=2"];
    let (code, _, said) =
        octet(&[&begun[..], &steps("run.steps=2"), &["--set", "run.device=cpu"]].concat());
    assert_eq!(code, Some(0), "{said}");
    let (code, _, said) = octet(&[&begun[..], &steps("run.steps=4")].concat());
    assert_eq!(code, Some(0), "{said}");
    assert!(!log("begun").contains("on CUDA"), "{}", log("begun"));
    // Attention there has no kernel for such heads.
    let wide = ["--set", "model.heads=1", "--set", "model.width=160", "--run", "left"];
    let (code, out, err) =
        octet(&[&["train", "tiny.toml", "--set", "run.steps=2"], &wide[..]].concat());
    let said = out + &err;
    assert_eq!(code, Some(0), "{said}");
    let why = "trained on the CPU, although there is a GPU: ";
    assert!(said.contains(why) && said.contains("no GPU form yet of attention"), "{said}");
    // As many ranks as there are GPUs.
    let (code, _, said) =
        octet(&["train", "tiny.toml", "--set", "run.ranks=2", "--set", "run.device=cuda"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("run.ranks = 2 needs a GPU each, and the driver shows 1"), "{said}");
    let (_, said, _) = octet(&["doctor"]);
    assert!(said.contains("ok           GPU: stand-in, 74.5 GiB, sm_90\n"), "{said}");
}
