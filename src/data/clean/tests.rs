//! Tests of chains as settings.

use super::CleanChain;

fn read(text: &str) -> Result<CleanChain, String> {
    let table: toml::Table = toml::from_str(&format!("clean = {text}")).unwrap();
    table["clean"].clone().try_into().map_err(|error: toml::de::Error| error.message().to_owned())
}

#[test]
fn names_and_tables_are_steps_and_the_stored_form_says_everything() {
    let chain = read("[\"unicode\", {step = \"length\", min_characters = 3}]").unwrap();
    let names: Vec<&str> = chain.0.iter().map(|step| step.name()).collect();
    assert_eq!(names, ["unicode", "length"]);
    let stored = toml::Value::try_from(&chain).unwrap();
    assert!(stored.to_string().contains("max_characters = 10000000"), "{stored}");
    assert_eq!(stored.try_into::<CleanChain>().unwrap(), chain);
    assert!(chain.validate().is_ok());
}

#[test]
fn mistakes_are_named() {
    for (text, complaint) in [
        ("[\"lenght\"]", "expected one of \"unicode\", \"html\""),
        ("[{step = \"size\"}]", "expected step = one of \"unicode\""),
        ("[{min = 3}]", "got a table without it"),
        ("[3]", "expected a step or a preset, by name or as a table, got 3"),
        ("[{step = \"length\", min = 3}]", "unknown setting min of the step \"length\", expected"),
        ("[{step = \"length\", min_characters = \"x\"}]", "invalid type"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(complaint), "{text}: {error}");
    }
    let chain = read("[{step = \"length\", min_characters = 9, max_characters = 1}]").unwrap();
    let problem = chain.validate().unwrap_err();
    assert_eq!(problem, "length.max_characters: expected at least 9, got 1");
}

#[test]
fn presets_stand_for_steps() {
    let names = |preset: &str| {
        let chain = read(&format!("[\"{preset}\"]")).unwrap();
        assert!(chain.validate().is_ok());
        chain.0.iter().map(|step| step.name()).collect::<Vec<_>>()
    };
    assert_eq!(names("gopher"), ["gopher_repetition", "gopher_quality"]);
    assert_eq!(names("c4"), ["c4"]);
    assert_eq!(names("fineweb").len(), 7);
    assert_eq!(names("dclm"), ["html", "language", "gopher_quality", "gopher_repetition", "lines"]);
    assert_eq!(names("code"), ["unicode", "code", "pii"]);
    // What the preset sets differently is set.
    let fineweb = toml::Value::try_from(read("[\"fineweb\"]").unwrap()).unwrap();
    assert!(fineweb.to_string().contains("terminal_punctuation = false"));
    // A step after one that surveys goes with it.
    let pieces =
        read("[\"unicode\", \"boilerplate\", \"length\", \"boilerplate\"]").unwrap().pieces();
    assert_eq!(pieces.iter().map(|piece| piece.0.len()).collect::<Vec<_>>(), [1, 2, 1]);
}
