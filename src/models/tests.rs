//! Tests of `[model]` as a whole.

use super::ModelConfig;

#[test]
fn vocabularies_are_rounded_up_only_when_large() {
    let model = ModelConfig::default();
    for (tokens, rows) in [(65, 65), (257, 257), (512, 512), (513, 576), (50257, 50304)] {
        assert_eq!(model.padded_vocabulary(tokens), rows);
    }
    let given = ModelConfig { vocabulary: Some(50257), ..model };
    assert_eq!(given.padded_vocabulary(257), 50257);
}
