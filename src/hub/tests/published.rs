//! The `config.json` of published models: read as the models that they are, and the recipe that
//! goes on with one.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::super::families::{FAMILIES, family_of, rows_of};
use super::super::keys::Keys;
use super::super::record::computed_keys;
use super::super::table::Part;
use crate::config::Config;
use crate::models::PartConfig;
use crate::objectives::{Ability, ObjectiveConfig, ReplacedToken};

fn published() -> Vec<(Value, usize)> {
    vec![
        // openai-community/gpt2
        (
            json!({
                "model_type": "gpt2", "activation_function": "gelu_new", "attn_pdrop": 0.1,
                "embd_pdrop": 0.1, "initializer_range": 0.02, "layer_norm_epsilon": 1e-5,
                "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024,
                "resid_pdrop": 0.1, "vocab_size": 50257
            }),
            124_439_808,
        ),
        // meta-llama/Llama-3.2-1B
        (
            json!({
                "model_type": "llama", "attention_bias": false, "head_dim": 64,
                "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 8192,
                "max_position_embeddings": 131072, "mlp_bias": false, "num_attention_heads": 32,
                "num_hidden_layers": 16, "num_key_value_heads": 8, "rms_norm_eps": 1e-5,
                "rope_scaling": {
                    "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                    "original_max_position_embeddings": 8192, "rope_type": "llama3"
                },
                "rope_theta": 500000.0, "tie_word_embeddings": true, "vocab_size": 128256
            }),
            1_235_814_400,
        ),
        // mistralai/Mistral-7B-v0.1
        (
            json!({
                "model_type": "mistral", "hidden_act": "silu", "hidden_size": 4096,
                "intermediate_size": 14336, "max_position_embeddings": 32768,
                "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
                "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "sliding_window": 4096,
                "tie_word_embeddings": false, "vocab_size": 32000
            }),
            7_241_732_096,
        ),
        // Qwen/Qwen2.5-0.5B
        (
            json!({
                "model_type": "qwen2", "hidden_act": "silu", "hidden_size": 896,
                "intermediate_size": 4864, "max_position_embeddings": 32768,
                "max_window_layers": 24, "num_attention_heads": 14, "num_hidden_layers": 24,
                "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
                "sliding_window": 32768, "tie_word_embeddings": true,
                "use_sliding_window": false, "vocab_size": 151936
            }),
            494_032_768,
        ),
        // Qwen/Qwen3-0.6B, with rotary positions as newer versions of transformers store them.
        (
            json!({
                "model_type": "qwen3", "attention_bias": false, "head_dim": 128,
                "hidden_act": "silu", "hidden_size": 1024, "intermediate_size": 3072,
                "max_position_embeddings": 40960, "max_window_layers": 28,
                "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
                "rms_norm_eps": 1e-6,
                "rope_parameters": { "rope_theta": 1000000.0, "rope_type": "default" },
                "sliding_window": null, "tie_word_embeddings": true,
                "use_sliding_window": false, "vocab_size": 151936
            }),
            596_049_920,
        ),
    ]
}

/// Of the sizes of bert-base-uncased, with everything it was pretrained with, and of
/// electra-small-discriminator.
fn encoders() -> Vec<(Value, usize)> {
    vec![
        (
            json!({
                "architectures": ["BertForPreTraining"], "model_type": "bert",
                "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12,
                "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu",
                "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
                "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
                "initializer_range": 0.02, "pad_token_id": 0
            }),
            110_106_428,
        ),
        (
            json!({
                "architectures": ["ElectraForPreTraining"], "model_type": "electra",
                "vocab_size": 30522, "embedding_size": 128, "hidden_size": 256,
                "num_hidden_layers": 12, "num_attention_heads": 4, "intermediate_size": 1024,
                "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
                "attention_probs_dropout_prob": 0.1, "max_position_embeddings": 512,
                "type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0
            }),
            13_549_057,
        ),
    ]
}

/// The configuration of a run of this model.
fn config_of(value: &Value) -> Config {
    let text = value.to_string();
    let map: Map<String, Value> = serde_json::from_str(&text).unwrap();
    let keys = Keys::new(Path::new("config.json"), &text, &map);
    let kind = keys.word("model_type", None).unwrap();
    let family = FAMILIES.into_iter().find(|family| family.model_type == kind).unwrap();
    let model = family.model.read(&keys).unwrap();
    assert_eq!(family.model.misfit(&model), Some(None), "{kind}");
    let mut config = Config::default();
    config.objective = match family.class_of(&keys).unwrap().ability {
        Ability::Judges => {
            let generator = PartConfig { family: model.clone(), ..PartConfig::default() };
            config.model.parts.insert("generator".to_owned(), generator);
            ObjectiveConfig::ReplacedToken(ReplacedToken::default())
        }
        ability => ObjectiveConfig::teaching(ability).unwrap(),
    };
    config.model.family = model;
    config.model.vocabulary = Some(keys.whole("vocab_size", None).unwrap());
    config.validate().unwrap();
    Config::parse(&config.to_toml(), Path::new("run"), &[]).unwrap()
}

#[test]
fn published_models_have_their_published_sizes() {
    let published = [published(), encoders()].concat();
    assert_eq!(published.len(), FAMILIES.len());
    for (value, size) in published {
        let config = config_of(&value);
        let (_, class) = family_of(&config).unwrap();
        let rows = rows_of(class.lines, &config).unwrap();
        let found: usize = rows.iter().flat_map(|row| &row.parts).map(Part::elements).sum();
        assert_eq!(found, size, "{}", value["model_type"]);
    }
}

#[test]
fn the_recipe_goes_on_with_the_model_that_it_names() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let recipe = Config::load(&root.join("configs/continue_qwen2.toml"), &[]).unwrap();
    let mut all = published().into_iter().map(|(value, _)| value);
    let qwen2 = all.find(|value| value["model_type"] == "qwen2").unwrap();
    assert_eq!(computed_keys(&recipe), computed_keys(&config_of(&qwen2)));
}
