//! What comes in beside folders of `transformers`, in which forms, and what a run keeps of it.

use std::fs;
use std::path::Path;

use octet_kernels::dtype::DType;
use serde_json::{Value, json};

use super::{
    Import, Tensor, export_to, folder_of, golden, import, import_to, parameters_of, scratch,
    tensors_in, tensors_of, tokenizer_json, values, write_folder, write_tensors,
};
use crate::config::Config;
use crate::data::Tokenizer;
use crate::hub;

#[test]
fn any_float_comes_in() {
    let golden = golden();
    let case = &golden.cases[0];
    let tensors = tensors_of(&golden, case);
    for (dtype, wanted) in [(DType::F32, "f32"), (DType::Bf16, "bf16"), (DType::F16, "f32")] {
        let place = scratch();
        let [theirs, run, out] = ["theirs", "run", "out"].map(|name| place.path().join(name));
        write_folder(&theirs, &case.config, &[]);
        write_tensors(&theirs.join("model.safetensors"), &tensors, dtype);
        import_to(&theirs, &run).unwrap();
        let config = fs::read_to_string(run.join("config.toml")).unwrap();
        assert!(config.contains(&format!("dtype = \"{wanted}\"")), "{config}");
        export_to(&run, &out).unwrap();
        let stored = tensors_in(&theirs.join("model.safetensors"));
        assert!(stored == tensors_in(&out.join("model.safetensors")), "{dtype}");
    }
}

#[test]
fn a_folder_of_the_model_without_its_head_is_the_same_model() {
    let golden = golden();
    let place = scratch();
    let [whole, bare] = ["whole", "bare"].map(|name| place.path().join(name));
    let case = &golden.cases[0];
    let mut tensors = tensors_of(&golden, case);
    write_folder(&whole, &case.config, &tensors);
    for (name, ..) in &mut tensors {
        *name = name.strip_prefix("transformer.").unwrap().to_owned();
    }
    // What old folders hold beside.
    tensors.push(("h.0.attn.bias".into(), vec![1, 1, 2, 2], vec![1.0, 0.0, 1.0, 1.0]));
    write_folder(&bare, &case.config, &tensors);
    let [a, b] = [("whole", "a"), ("bare", "b")].map(|(from, run)| {
        import_to(&place.path().join(from), &place.path().join(run)).unwrap();
        parameters_of(&place.path().join(run)).1
    });
    assert!(a == b);
}

/// The tensors of GPT-2 as nanoGPT has them.
fn nanogpt(golden: &super::Golden) -> Vec<Tensor> {
    let mut tensors = tensors_of(golden, &golden.cases[0]);
    for (name, shape, values) in &mut tensors {
        let linear = [".c_attn.weight", ".c_proj.weight", ".c_fc.weight"];
        if linear.iter().any(|end| name.ends_with(end)) {
            *values = super::super::table::transposed(values, shape[1]);
            shape.reverse();
        }
    }
    tensors
}

#[test]
fn nanogpt_and_llm_c_give_the_same_model_as_gpt2() {
    let golden = golden();
    let place = scratch();
    let at = |name: &str| place.path().join(name);
    folder_of(&golden, "gpt2", &at("theirs"));
    import_to(&at("theirs"), &at("a")).unwrap();
    let expected = parameters_of(&at("a")).1;
    let mut tensors = nanogpt(&golden);
    let config = json!({
        "n_layer": 3, "n_head": 4, "n_embd": 32, "block_size": 64, "vocab_size": 61, "bias": true,
        "dropout": 0.0
    });
    // nanoGPT stores the head although it is the embedding, under a name of torch.compile's.
    let head = tensors.iter().find(|(name, ..)| name.ends_with("wte.weight")).cloned().unwrap();
    let file = llm_c(&tensors);
    tensors.push(("lm_head.weight".into(), head.1, head.2));
    for (name, ..) in &mut tensors {
        *name = format!("_orig_mod.{name}");
    }
    write_folder(&at("nano"), &config, &tensors);
    import_to(&at("nano"), &at("b")).unwrap();
    assert!(parameters_of(&at("b")).1 == expected);
    fs::write(at("gpt2.bin"), &file).unwrap();
    import_to(&at("gpt2.bin"), &at("c")).unwrap();
    assert!(parameters_of(&at("c")).1 == expected);
    // A head that is another one is no tied head.
    tensors.last_mut().unwrap().2[5] += 1.0;
    write_folder(&at("other"), &config, &tensors);
    let refused = import_to(&at("other"), &at("d")).unwrap_err();
    assert!(refused.what.contains("expected lm_head.weight to be"), "{refused}");
    fs::write(at("short.bin"), &file[..file.len() - 4]).unwrap();
    let refused = import_to(&at("short.bin"), &at("d")).unwrap_err();
    assert!(refused.what.contains("which is not what its header says"), "{refused}");
    assert!(!at("d").exists());
}

/// The file that llm.c's `write_model` makes.
fn llm_c(tensors: &[Tensor]) -> Vec<u8> {
    let mut header = vec![0i32; 256];
    header[..8].copy_from_slice(&[20_240_326, 3, 64, 61, 3, 4, 32, 61]);
    let mut file: Vec<u8> = header.iter().flat_map(|n| n.to_le_bytes()).collect();
    let mut add = |name: &str| {
        let found = tensors.iter().find(|(own, ..)| own == name);
        let (_, _, values) = found.unwrap_or_else(|| panic!("{name}"));
        file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    };
    for name in ["transformer.wte.weight", "transformer.wpe.weight"] {
        add(name);
    }
    for module in ["ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"] {
        for kind in ["weight", "bias"] {
            (0..3).for_each(|block| add(&format!("transformer.h.{block}.{module}.{kind}")));
        }
    }
    add("transformer.ln_f.weight");
    add("transformer.ln_f.bias");
    file
}

#[test]
fn new_tokens_begin_as_the_mean_of_the_others() {
    let golden = golden();
    let place = scratch();
    let [theirs, run, out] = ["theirs", "run", "out"].map(|name| place.path().join(name));
    folder_of(&golden, "llama, grouped, tied", &theirs);
    let json = tokenizer_json("</s>");
    fs::write(theirs.join("tokenizer.json"), json.to_string()).unwrap();
    let job = |tokens: &[&str]| Import {
        from: theirs.clone(),
        run: run.clone(),
        tokens: tokens.iter().map(|token| (*token).to_owned()).collect(),
        ..Import::default()
    };
    // A token that is there is none that can be added.
    for token in ["a", "</s>", ""] {
        let refused = import(&job(&[token]), &|| false).unwrap_err();
        assert!(refused.what.contains("tokenizer.json: "), "{refused}");
        assert!(!run.exists());
    }
    // Two of them have rows already, which are padding.
    let imported = import(&job(&["<|user|>", "<|bot|>"]), &|| false).unwrap();
    assert_eq!((imported.vocabulary, imported.tokens), (61, Some(29)));
    let before = values("model.embed_tokens.weight", &[61, 32], golden.scale);
    let (config, parameters) = parameters_of(&run);
    let after = &parameters["embedding.weight"];
    for column in 0..32 {
        let mean = (0..27).map(|row| f64::from(before[row * 32 + column])).sum::<f64>() / 27.0;
        for row in 0..61 {
            let wanted =
                if row == 27 || row == 28 { mean as f32 } else { before[row * 32 + column] };
            assert_eq!(after[row * 32 + column], wanted, "{row} {column}");
        }
    }
    assert!(config.data.tokenizer.ends_with("run/tokenizer"), "{}", config.data.tokenizer);
    let tokenizer = Tokenizer::load(&run.join("tokenizer")).unwrap();
    assert_eq!(tokenizer.end_of_document(), Some(26));
    export_to(&run, &out).unwrap();
    let json: Value =
        serde_json::from_slice(&fs::read(out.join("tokenizer.json")).unwrap()).unwrap();
    assert_eq!(json["added_tokens"][2]["content"], "<|bot|>");
    assert_eq!(json["added_tokens"][2]["id"], 28);
    // 40 more do not fit: the embedding grows to a multiple of 64.
    fs::remove_dir_all(&run).unwrap();
    let many: Vec<String> = (0..40).map(|i| format!("<|{i}|>")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let imported = import(&job(&many), &|| false).unwrap();
    assert_eq!((imported.vocabulary, imported.tokens), (128, Some(67)));
    let (_, parameters) = parameters_of(&run);
    assert_eq!(parameters["embedding.weight"].len(), 128 * 32);
    assert!(parameters["embedding.weight"][61 * 32..].iter().all(|value| *value != 0.0));
}

#[test]
fn small_files_are_given_back_as_they_came() {
    let place = scratch();
    let [theirs, run, out] = ["theirs", "run", "out"].map(|name| place.path().join(name));
    folder_of(&golden(), "qwen2, tied", &theirs);
    fs::write(theirs.join("tokenizer.json"), tokenizer_json("<|im_end|>").to_string()).unwrap();
    for name in ["tokenizer_config.json", "special_tokens_map.json", "generation_config.json"] {
        fs::write(theirs.join(name), format!("{{\"of\":  \"{name}\"}}")).unwrap();
    }
    fs::write(theirs.join("chat_template.jinja"), "{{ messages }}").unwrap();
    let config = fs::read_to_string(theirs.join("config.json")).unwrap();
    let config = config.replace("\"eos_token_id\": 2", "\"eos_token_id\": 26");
    fs::write(theirs.join("config.json"), config).unwrap();
    import_to(&theirs, &run).unwrap();
    // No usual name ends a document: the model's own end does.
    assert_eq!(Tokenizer::load(&run.join("tokenizer")).unwrap().end_of_document(), Some(26));
    export_to(&run, &out).unwrap();
    for name in [
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "generation_config.json",
        "chat_template.jinja",
    ] {
        assert_eq!(fs::read(out.join(name)).unwrap(), fs::read(theirs.join(name)).unwrap());
    }
    let config: Value =
        serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
    assert_eq!((&config["bos_token_id"], &config["eos_token_id"]), (&json!(1), &json!(26)));
}

#[test]
fn a_run_goes_on_as_the_model_that_it_was_imported_as() {
    let place = scratch();
    let [theirs, run] = ["theirs", "run"].map(|name| place.path().join(name));
    folder_of(&golden(), "llama", &theirs);
    fs::write(theirs.join("tokenizer.json"), tokenizer_json("</s>").to_string()).unwrap();
    import_to(&theirs, &run).unwrap();
    let tokenizer = Tokenizer::load(&run.join("tokenizer")).unwrap();
    let with = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        let config = Config::load(&run.join("config.toml"), &sets).unwrap();
        hub::check(&run, &config, &tokenizer).map_err(|failure| failure.what)
    };
    assert_eq!(with(&[]), Ok(()));
    // How it is trained is free.
    assert_eq!(with(&["model.dtype=bf16", "model.dropout=0.1", "run.seed=5"]), Ok(()));
    let refused = with(&["model.rope_theta=200"]).unwrap_err();
    let wanted = "model.rope_theta: expected 100.0, as in theirs that the run was imported from, \
                  got 200.0";
    assert_eq!(refused, wanted);
    let refused = with(&["model.window=9"]).unwrap_err();
    assert!(refused.starts_with("model.window: expected absent, as in theirs"), "{refused}");
    let config = Config::load(&run.join("config.toml"), &[]).unwrap();
    let refused = hub::check(&run, &config, &Tokenizer::bytes()).unwrap_err();
    assert!(refused.what.starts_with("data.tokenizer: expected the one"), "{refused}");
    // A run that was not imported is anything.
    assert_eq!(hub::check(Path::new("/nowhere"), &config, &tokenizer), Ok(()));
}

#[test]
fn other_models_of_a_recipe_begin_as_it_says() {
    let golden = golden();
    let place = scratch();
    let at = |name: &str| place.path().join(name);
    for (name, case) in [("teacher", 0), ("student", 0)] {
        let case = &golden.cases[case];
        let mut tensors = tensors_of(&golden, case);
        if name == "teacher" {
            tensors.iter_mut().for_each(|(_, _, values)| values.iter_mut().for_each(|v| *v *= 0.5));
        }
        write_folder(&at(name), &case.config, &tensors);
        fs::write(at(name).join("tokenizer.json"), tokenizer_json("<|endoftext|>").to_string())
            .unwrap();
    }
    import_to(&at("teacher"), &at("taught")).unwrap();
    let taught = parameters_of(&at("taught")).1;
    let from = format!("from = \"{}\"\nfrozen = true", at("taught").display());
    let follows = "average_of = \"model\"".to_owned();
    for (run, teacher) in [("from", from), ("follows", follows)] {
        let recipe = at(&format!("{run}.toml"));
        let objective = "[objective]\nkind = \"distillation\"\n";
        fs::write(&recipe, format!("{objective}[model.parts.teacher]\n{teacher}\n")).unwrap();
        let job = Import {
            from: at("student"),
            run: at(run),
            recipe: Some(recipe),
            sets: vec!["batch.sequence_length=16".to_owned()],
            ..Import::default()
        };
        import(&job, &|| false).unwrap();
        let parameters = parameters_of(&at(run)).1;
        let wanted = |name: &str| match run {
            "from" => taught[name].clone(),
            _ => parameters[name].clone(),
        };
        let mut teachers = 0;
        for (name, values) in &parameters {
            let Some(name) = name.strip_prefix("teacher.") else { continue };
            teachers += 1;
            assert!(*values == wanted(name), "{run}: {name}");
        }
        assert_eq!(teachers, taught.len());
        assert!(parameters["embedding.weight"] != taught["embedding.weight"]);
    }
}
