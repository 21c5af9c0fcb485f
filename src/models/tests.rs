//! Tests of `[model]` as a whole.

use super::{Matmul, ModelConfig};

#[test]
fn vocabularies_are_rounded_up_only_when_large() {
    let model = ModelConfig::default();
    for (tokens, rows) in [(65, 65), (257, 257), (512, 512), (513, 576), (50257, 50304)] {
        assert_eq!(model.padded_vocabulary(tokens), rows);
    }
    let given = ModelConfig { vocabulary: Some(50257), ..model };
    assert_eq!(given.padded_vocabulary(257), 50257);
}

#[test]
fn products_are_in_f32_unless_the_model_says_otherwise() {
    let read = |text: &str| toml::from_str::<ModelConfig>(text).map_err(|e| e.to_string());
    let plain = read("").unwrap();
    assert_eq!(plain.matmul, Matmul::F32);
    let narrow = read("matmul = \"bf16\"").unwrap();
    assert_eq!(narrow.matmul, Matmul::Bf16);
    // It is part of the run's identity, which runs from before there was the key keep.
    assert!(!toml::to_string(&plain).unwrap().contains("matmul"));
    assert!(toml::to_string(&narrow).unwrap().contains("matmul = \"bf16\""));
    let error = read("matmul = \"tf32\"").unwrap_err();
    assert!(error.contains("expected `f32` or `bf16`"), "{error}");
}
