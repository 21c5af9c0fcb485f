//! `inspect`, `verify`, `diff` and `doctor`: what reads runs and changes nothing.

use std::fs;

use crate::harness::Place;

/// Flips the last bit of a file.
fn flip(place: &Place, name: &str) {
    let mut bytes = fs::read(place.path(name)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(place.path(name), bytes).unwrap();
}

#[test]
fn everything_of_a_run_can_be_inspected() {
    let place = Place::new();
    place.train("run", &[]);
    let run = place.json(&["inspect", "run", "--json"]);
    assert_eq!(run["kind"], "run");
    assert_eq!(run["config"]["vocabulary"], 257);
    assert_eq!(run["log"]["steps"], 6);
    assert_eq!(run["log"]["tokens"], 6 * 4 * 32);
    assert_eq!(run["log"]["digest"], place.digest("run"));
    let last = place.log("run", "step").pop().unwrap();
    assert_eq!(run["log"]["final_loss"], last["loss"]);
    let steps: Vec<u64> = run["checkpoints"].as_array().unwrap().iter().map(step).collect();
    assert_eq!(steps, [2, 4, 6]);
    let checkpoint = place.json(&["inspect", "run/checkpoints/step-00000006", "--json"]);
    assert_eq!(checkpoint["kind"], "checkpoint");
    assert_eq!(checkpoint["digest"], place.digest("run"));
    assert_eq!(checkpoint["step"], 6);
    let shard = place.json(&["inspect", "cache/train-00000.oct", "--json"]);
    assert_eq!(shard["kind"], "shard");
    assert!(shard["tokens"].as_u64() > Some(1000));
    // As a person reads it.
    let text = place.prints(&["inspect", "run"]);
    assert!(text.contains("steps       6 of 6, 768 tokens"), "{text}");
    assert!(text.contains(&place.digest("run")[..16]), "{text}");
    let text = place.prints(&["inspect", "run/checkpoints/step-00000006"]);
    assert!(text.contains(&place.digest("run")), "{text}");
    assert!(place.prints(&["inspect", "cache/train-00000.oct"]).starts_with("shard "));
    assert!(place.refusal(&["inspect", "text.txt"]).contains("text.txt is not a shard"));
    assert!(place.refusal(&["inspect", "nothing"]).contains("nothing: there is nothing"));
}

fn step(checkpoint: &serde_json::Value) -> u64 {
    checkpoint["step"].as_u64().unwrap()
}

#[test]
fn damage_is_found_and_named() {
    let place = Place::new();
    place.train("run", &[]);
    let good = place.prints(&["verify", "run"]);
    assert!(good.ends_with("3 checkpoints, 0 damaged\n"), "{good}");
    flip(&place, "run/checkpoints/step-00000004/optimizer-00001.safetensors");
    let output = place.run(&["verify", "run"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let damaged: Vec<&str> = text.lines().filter(|line| line.starts_with("damaged")).collect();
    assert_eq!(damaged.len(), 1, "{text}");
    assert!(damaged[0].contains("step-00000004/optimizer-00001.safetensors"), "{text}");
    assert!(text.ends_with("3 checkpoints, 1 damaged\n"), "{text}");
    // One checkpoint alone.
    assert!(place.run(&["verify", "run/checkpoints/step-00000006"]).status.success());
    let bad = place.run(&["verify", "run/checkpoints/step-00000004"]);
    assert_eq!(bad.status.code(), Some(1));
    // The newest good one is found past a damaged one, and the damage is said.
    flip(&place, "run/checkpoints/step-00000006/model-00001.safetensors");
    let output = place.run(&["evaluate", "run", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report[0]["step"], 4);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("step-00000006"), "{said}");
    assert!(place.refusal(&["verify", "nothing"]).contains("no run is there"));
}

#[test]
fn runs_are_told_apart_at_the_step_where_they_part() {
    let place = Place::new();
    place.train("a", &[]);
    place.train("same", &["run.ranks=2", "sample.every=0"]);
    let same = place.json(&["diff", "a", "same", "--json"]);
    assert_eq!(same["parts"], false);
    assert_eq!(same["equal_steps"], 6);
    assert_eq!(same["same_numbers"], true);
    assert_eq!(same["same_data"], true);
    let keys = same["config"].as_array().unwrap().iter();
    let keys: Vec<&str> = keys.map(|key| key["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["run.ranks", "sample.every"]);
    // The same seed at another rate: the first update differs, the first loss does not.
    place.train("rate", &["schedule.learning_rate=2e-3"]);
    let output = place.run(&["diff", "a", "rate", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let rate: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rate["fingerprint"]["step"], 1);
    assert_eq!(rate["fingerprint"]["recorded"], 2, "the first checkpoint");
    assert_eq!(rate["loss"]["step"], 2);
    assert_eq!(rate["checkpoint"], 2);
    assert_eq!(rate["same_numbers"], false);
    let text = String::from_utf8(place.run(&["diff", "a", "rate"]).stdout).unwrap();
    assert!(text.contains("bucket 0: ") && text.contains("weight"), "{text}");
    assert!(text.ends_with("they part after 0 equal steps\n"), "{text}");
    assert!(place.refusal(&["diff", "a", "nothing"]).contains("no run is there"));
}

#[test]
fn the_doctor_says_what_is_there_and_what_is_missing() {
    let place = Place::new();
    let machine = place.json(&["doctor", "--json"]);
    assert!(machine["cores"].as_u64() >= Some(1));
    assert!(machine["disk_bytes"].as_u64() > Some(0));
    assert!(machine["gemm_flops_per_s"].as_f64() > Some(0.0));
    // Every check is a line with its verdict, and what is missing says what it would enable.
    let text = place.prints(&["doctor"]);
    for check in machine["checks"].as_array().unwrap() {
        let [verdict, name] = ["verdict", "name"].map(|key| check[key].as_str().unwrap());
        let begins = |line: &&str| line.starts_with(verdict) && line.contains(&format!(" {name}:"));
        let line = text.lines().find(begins).unwrap_or_else(|| panic!("{name}: {text}"));
        let purpose = check["purpose"].as_str().unwrap();
        assert_eq!(line.contains(purpose), verdict != "ok", "{line}");
    }
    assert_eq!(text.lines().filter(|line| line.starts_with("verdict ")).count(), 3, "{text}");
    assert!(text.contains("runs on the CPU: ready"), "{text}");
}

/// Builds a library that tells a version as the driver and NCCL do, and leaves a line in `marks`
/// when it is loaded and when it is taken away.
fn library(place: &Place, path: &str, version: u32) {
    let code = format!(
        "#include <stdio.h>\n\
         int cuDriverGetVersion(int *v) {{ *v = {version}; return 0; }}\n\
         int ncclGetVersion(int *v) {{ *v = {version}; return 0; }}\n\
         static void mark(const char *what) {{ FILE *f = fopen(\"marks\", \"a\"); \
         fprintf(f, \"%s {path}\\n\", what); fclose(f); }}\n\
         __attribute__((constructor)) static void come(void) {{ mark(\"comes\"); }}\n\
         __attribute__((destructor)) static void go(void) {{ mark(\"goes\"); }}\n"
    );
    fs::write(place.path("library.c"), code).unwrap();
    fs::create_dir_all(place.path(path).parent().unwrap()).unwrap();
    let mut compile = std::process::Command::new("cc");
    compile.current_dir(place.path("")).args(["-shared", "-fPIC", "-o", path, "library.c"]);
    assert!(compile.status().unwrap().success(), "the README asks for a C linker");
}

#[test]
fn the_doctor_says_what_was_found_where_and_unloads_nothing() {
    let place = Place::new();
    let libraries = [
        ("a/libcuda.so.1", 12020),
        ("b/libcuda.so.1", 13000),
        ("a/libnccl.so.2", 21903),
        ("b/libnccl.so.2", 22809),
    ];
    libraries.iter().for_each(|(path, version)| library(&place, path, *version));
    let folders = format!("{}:{}", place.path("a").display(), place.path("b").display());
    let mut doctor = std::process::Command::new(env!("CARGO_BIN_EXE_octet"));
    doctor.current_dir(place.path("")).arg("doctor").env("OCTET_CUDA_LIBRARIES", folders);
    let output = doctor.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let at = |path: &str| place.path(path).display().to_string();
    for line in [
        format!(
            "ok           CUDA driver: 13.0 at {}; not {} (12.2, too old)",
            at(libraries[1].0),
            at(libraries[0].0)
        ),
        format!(
            "ok           NCCL: 2.28.9 at {}; not 2.19.3 at {}",
            at(libraries[3].0),
            at(libraries[2].0)
        ),
        "missing      NVRTC: expected 12.8 or newer, libnvrtc.so.13 or libnvrtc.so.12 is nowhere; \
         pip install nvidia-cuda-nvrtc (compiles our kernels, unless"
            .to_string(),
        // It can be asked for its version and nothing else.
        format!(
            "missing      GPU: device: the library lacks cuInit: 13.0 at {}",
            at(libraries[1].0)
        ),
    ] {
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
    let marks = place.read("marks");
    let comes = marks.lines().take_while(|line| line.starts_with("comes")).count();
    assert_eq!(comes, libraries.len(), "one goes before the last has come: {marks}");
}

#[test]
fn a_benched_step_says_how_fast_it_is_and_where_the_time_goes() {
    let place = Place::new();
    let figures = place.json(&["bench", "step", "tiny.toml", "--steps", "2", "--json"]);
    let number = |key: &str| figures[key].as_f64().unwrap_or_else(|| panic!("{key}: {figures}"));
    assert_eq!(number("tokens"), 4.0 * 32.0);
    assert_eq!(number("steps"), 2.0);
    let tokens_per_s = number("tokens") / number("step_ms") * 1e3;
    assert!((number("tokens_per_s") / tokens_per_s - 1.0).abs() < 1e-9);
    assert!(number("tokens_per_s_best") >= number("tokens_per_s"));
    let share = number("gflops_per_s") / number("peak_gflops_per_s");
    assert!(share > 0.0 && (number("peak_share") / share - 1.0).abs() < 1e-9);
    let ops = figures["ops"].as_array().unwrap();
    let named = |name: &str| ops.iter().find(|op| op["op"] == name).unwrap();
    assert!(named("linear")["gflops_per_s"].as_f64() > Some(0.0));
    assert_eq!(named("(update)")["times"], 1);
    // As a person reads it.
    let text = place.prints(&["bench", "step", "tiny.toml", "--steps", "2"]);
    for part in ["tokens/s ", "GFLOP/s ", " % of the ", "ms a step", "\nlinear "] {
        assert!(text.contains(part), "{part} in {text}");
    }
}
