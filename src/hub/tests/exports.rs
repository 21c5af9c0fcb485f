//! What an export is made of, how it is cut, and that nothing is left of one that fails.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use octet_actors::outside::faulty::{FaultyDisk, Moment, Trouble};
use octet_actors::outside::{Disk, LocalDisk};
use octet_kernels::dtype::DType;
use serde_json::Value;

use super::{
    Export, Form, export, export_job, export_to, folder_of, golden, import_to, names_in, scratch,
    tensors_in,
};
use crate::failure::{INTERRUPTED, USER, WORLD};

/// A run of a case, and the folder that it lies in.
fn run_of(name: &str) -> tempfile::TempDir {
    let place = scratch();
    folder_of(&golden(), name, &place.path().join("theirs"));
    import_to(&place.path().join("theirs"), &place.path().join("run")).unwrap();
    place
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn shards_hold_what_the_index_says() {
    let place = run_of("llama, grouped, tied");
    let [run, whole, cut] = ["run", "whole", "cut"].map(|name| place.path().join(name));
    export_to(&run, &whole).unwrap();
    let job = Export { shard_bytes: 20_000, ..export_job(&run, &cut) };
    let exported = export(&LocalDisk, &job, &|| false).unwrap();
    let names = names_in(&cut);
    let shards: Vec<&String> = names.iter().filter(|name| name.ends_with(".safetensors")).collect();
    assert_eq!(shards.len(), exported.shards);
    assert!(shards.len() > 2, "{shards:?}");
    assert_eq!(shards[0], &format!("model-00001-of-{:05}.safetensors", shards.len()));
    let index = json(&cut.join("model.safetensors.index.json"));
    assert_eq!(index["metadata"]["total_size"], exported.bytes);
    let mut all = BTreeMap::new();
    for shard in shards {
        assert!(fs::metadata(cut.join(shard)).unwrap().len() < 20_000 + 4_000);
        for (name, values) in tensors_in(&cut.join(shard)) {
            assert_eq!(index["weight_map"][&name], **shard);
            all.insert(name, values);
        }
    }
    assert!(all == tensors_in(&whole.join("model.safetensors")));
    // What was cut comes in as what was not.
    let [back, again] = ["back", "again"].map(|name| place.path().join(name));
    import_to(&cut, &back).unwrap();
    export_to(&back, &again).unwrap();
    assert!(all == tensors_in(&again.join("model.safetensors")));
}

#[test]
fn types_are_rounded_to_the_nearest() {
    let place = run_of("gpt2");
    let run = place.path().join("run");
    for (dtype, name, word) in [(DType::Bf16, "bf16", "bfloat16"), (DType::F16, "f16", "float16")] {
        let folder = place.path().join(name);
        let job = Export { form: Form::Transformers(Some(dtype)), ..export_job(&run, &folder) };
        export(&LocalDisk, &job, &|| false).unwrap();
        assert_eq!(json(&folder.join("config.json"))["torch_dtype"], word);
        let wide = tensors_in(&place.path().join("theirs/model.safetensors"));
        for (name, values) in tensors_in(&folder.join("model.safetensors")) {
            for (narrow, wide) in values.iter().zip(&wide[&name]) {
                let nearest = match dtype {
                    DType::Bf16 => half::bf16::from_f32(*wide).to_f32(),
                    _ => half::f16::from_f32(*wide).to_f32(),
                };
                assert_eq!(*narrow, nearest);
            }
        }
    }
}

#[test]
fn a_failure_at_any_moment_leaves_nothing() {
    let place = run_of("gpt2");
    let run = place.path().join("run");
    let job = Export { shard_bytes: 30_000, ..export_job(&run, Path::new("/out/model")) };
    let whole = FaultyDisk::new();
    export(&whole, &job, &|| false).unwrap();
    let operations = whole.operations();
    assert!(operations > 20, "{operations}");
    for operation in 0..operations {
        let disk = FaultyDisk::new();
        disk.plan(Moment::Operation(operation), Trouble::Full);
        let failure = export(&disk, &job, &|| false).unwrap_err();
        assert_eq!(failure.code, WORLD, "{failure}");
        let there = disk.exists(Path::new("/out"));
        let names = if there { disk.list(Path::new("/out")).unwrap() } else { vec![] };
        // The last sync may fail when all of it is there.
        assert!(names.is_empty() || names == ["model"], "operation {operation}: {names:?}");
        if names == ["model"] {
            let listed = |disk: &FaultyDisk| disk.list(Path::new("/out/model")).unwrap();
            assert_eq!(listed(&disk), listed(&whole));
        }
    }
}

#[test]
fn a_crash_leaves_nothing_that_looks_whole_and_the_next_export_clears_it() {
    let place = run_of("gpt2");
    let [run, target] = ["run", "out"].map(|name| place.path().join(name));
    // No process has this number.
    let left = place.path().join(".out.partial-999999999");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("config.json"), "{}").unwrap();
    let stopped = export(&LocalDisk, &export_job(&run, &target), &|| true);
    assert_eq!(stopped.unwrap_err().code, INTERRUPTED);
    assert_eq!(names_in(place.path()), ["run", "theirs"]);
    export_to(&run, &target).unwrap();
    let refused = export_to(&run, &target).unwrap_err();
    assert_eq!(refused.code, USER);
    assert!(refused.what.ends_with("out is there already: name a new folder"), "{refused}");
}

#[test]
fn a_damaged_checkpoint_is_named() {
    let place = run_of("gpt2");
    let [run, target] = ["run", "out"].map(|name| place.path().join(name));
    let file = run.join("checkpoints/step-00000000/model-00001.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    let refused = export_to(&run, &target).unwrap_err();
    assert_eq!(refused.code, USER);
    let wanted = "model-00001.safetensors: tensor positions.weight does not match its hash";
    assert!(refused.what.contains(wanted), "{refused}");
    let one = Export { step: Some(7), ..export_job(&run, &target) };
    let refused = export(&LocalDisk, &one, &|| false).unwrap_err();
    assert_eq!(refused.what, "--step: expected one of the run's (0), got 7");
    assert_eq!(names_in(place.path()), ["run", "theirs"]);
}

#[test]
fn a_model_that_no_family_computes_is_refused_with_what_it_is() {
    let place = run_of("llama");
    let [run, target] = ["run", "out"].map(|name| place.path().join(name));
    let config = fs::read_to_string(run.join("config.toml")).unwrap();
    let other = config.replace("qk_norm = false", "qk_norm = true\nqkv_bias = true");
    let other = other.replacen("qkv_bias = false\n", "", 1);
    fs::write(run.join("config.toml"), other).unwrap();
    let refused = export_to(&run, &target).unwrap_err();
    assert_eq!(refused.code, USER);
    assert!(refused.what.contains("qwen3 (it has no biases)"), "{refused}");
    let next_token = ["z_loss = 0.0", "label_smoothing = 0.0"];
    let masked = config.replace("kind = \"next_token\"", "kind = \"masked\"");
    let masked: Vec<&str> = masked.lines().filter(|line| !next_token.contains(line)).collect();
    fs::write(run.join("config.toml"), masked.join("\n")).unwrap();
    let refused = export_to(&run, &target).unwrap_err();
    assert!(refused.what.contains("llama (it is trained for something else)"), "{refused}");
    let capped =
        format!("{config}\n").replace("[objective]\n", "[objective]\nlogit_softcap = 30.0\n");
    fs::write(run.join("config.toml"), capped).unwrap();
    let refused = export_to(&run, &target).unwrap_err();
    assert!(refused.what.contains("objective.logit_softcap"), "{refused}");
}
