//! Tests of `model.rope_scaling`: every kind reads back, and what makes no sense is refused.

use octet_kernels::graph::Variables;
use octet_kernels::ops::rope;

use super::RopeScaling;
use crate::models::dense::{DenseConfig, Positions};
use crate::models::{Family, ModelSize, Scope};

fn read(table: &str) -> Result<DenseConfig, String> {
    let config: DenseConfig = toml::from_str(&format!("rope_scaling = {table}"))
        .map_err(|error| error.message().to_owned())?;
    config.validate().map_err(|invalid| invalid.problem)?;
    Ok(config)
}

#[test]
fn every_kind_reads_back() {
    // The first is the form of runs from before there were kinds, which is part of their identity.
    for table in [
        "{ factor = 32.0, low_frequency = 1.0, high_frequency = 4.0, original_positions = 8192 }",
        "{ kind = \"linear\", factor = 2.0 }",
        "{ kind = \"dynamic\", factor = 2.0 }",
        "{ kind = \"yarn\", factor = 4.0, original_positions = 64, beta_fast = 32.0, \
         beta_slow = 1.0, truncate = true }",
        "{ kind = \"yarn\", factor = 4.0, original_positions = 64, beta_fast = 9.0, \
         beta_slow = 2.0, attention_factor = 1.5, truncate = false }",
    ] {
        let config = read(table).unwrap();
        let written = toml::Value::try_from(config.rope_scaling).unwrap().to_string();
        assert_eq!(written, table);
    }
    let short = read("{ kind = \"yarn\", factor = 4, original_positions = 64 }").unwrap();
    let RopeScaling::Yarn { beta_fast, beta_slow, attention_factor, truncate, .. } =
        short.rope_scaling.unwrap()
    else {
        panic!("{short:?}")
    };
    assert_eq!((beta_fast, beta_slow, attention_factor, truncate), (32.0, 1.0, None, true));
    let rope::RopeScaling::Yarn { magnitude, .. } = RopeScaling::of_op(short.rope_scaling) else {
        panic!("{short:?}")
    };
    assert_eq!(magnitude, 0.1 * 4f64.ln() + 1.0);
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (table, complaint) in [
        ("{ factor = 8.0 }", "missing field `low_frequency`"),
        ("{ kind = \"yarn\", factor = 8.0 }", "missing field `original_positions`"),
        ("{ kind = \"linear\", factor = 8.0, beta_fast = 1.0 }", "unknown field `beta_fast`"),
        ("{ kind = \"ntk\", factor = 8.0 }", "unknown variant `ntk`"),
        ("{ kind = \"linear\", factor = 0.5 }", "expected a factor of at least 1, got 0.5"),
        (
            "{ kind = \"yarn\", factor = 2, original_positions = 9, beta_fast = 1, beta_slow = 2 }",
            "expected beta_slow above 0 and below beta_fast, got 2 and 1",
        ),
        (
            "{ kind = \"yarn\", factor = 2, original_positions = 9, attention_factor = 0 }",
            "expected attention_factor above 0, got 0",
        ),
        (
            "{ kind = \"yarn\", factor = 2, original_positions = 0 }",
            "expected original_positions of at least 1, got 0",
        ),
    ] {
        let error = read(table).unwrap_err();
        assert!(error.contains(complaint), "{table}: {error}");
    }
}

#[test]
fn positions_are_those_of_the_model_not_of_a_sequence() {
    let config = DenseConfig {
        positions: Positions::Learned,
        max_positions: Some(9),
        ..DenseConfig::default()
    };
    let build = |max_positions| {
        let mut variables = Variables::new();
        let size = ModelSize { vocabulary: 5, max_positions };
        config.build(size, &mut Scope::new(&mut variables)).map_err(|error| error.to_string())?;
        let table = variables.parameters().iter().find(|p| p.name == "positions.weight");
        Ok::<_, String>(table.unwrap().shape[0])
    };
    assert_eq!(build(4), Ok(9));
    assert_eq!(build(9), Ok(9));
    assert!(build(10).unwrap_err().contains("model.max_positions: expected at least 10, got 9"));
}
