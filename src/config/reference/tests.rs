//! What the reference says is what is read: its keys, their defaults, their bounds.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Key, Section, find, sections};
use crate::config::Config;
use crate::config::load::keys_of_kinds;

fn all() -> Vec<(Section, Key)> {
    let keys =
        |section: Section| section.keys.clone().into_iter().map(move |k| (section.clone(), k));
    sections().into_iter().flat_map(keys).collect()
}

/// Whether all kinds of a section are listed in [`super::SOURCES`]: those of others have files of
/// their own, of which some may come before their line there.
fn is_listed(name: &str) -> bool {
    !["model.", "objective."].iter().any(|section| name.starts_with(section))
}

#[test]
fn every_key_that_is_read_stands_in_it_and_no_other() {
    let mut read: BTreeSet<String> = keys_of_kinds().into_iter().collect();
    let written: BTreeSet<String> = all().into_iter().map(|(_, key)| key.name).collect();
    // Deeper ones are read by the structs of which the reference is made.
    let shallow = |name: &&String| name.matches('.').count() == 1;
    let shown: BTreeSet<String> = written.iter().filter(shallow).cloned().collect();
    let step = |name: &&String| name.starts_with("data.clean.");
    assert!(written.iter().filter(step).count() > 40, "{written:?}");
    for deep in ["data.dedupe.near.words", "data.sources.weight", "model.rope_scaling.factor"] {
        assert!(written.contains(deep), "{deep}: {written:?}");
    }
    read.retain(|name| !shown.contains(name) && is_listed(name));
    assert!(read.is_empty(), "they are read, and not in the reference: {read:?}");
    let read: BTreeSet<String> = keys_of_kinds().into_iter().collect();
    let more: Vec<_> = shown.iter().filter(|name| !read.contains(*name)).collect();
    assert!(more.is_empty(), "they are in the reference, and not read: {more:?}");
}

#[test]
fn every_key_says_what_it_is() {
    for (_, key) in all() {
        let Key { name, form, doc, default, .. } = &key;
        assert!(doc.len() > 6 && doc.ends_with(['.', '`']), "{name}: {doc:?}");
        let words = !form.contains(['<', '>']) && !form.contains("::");
        assert!(words && !form.is_empty(), "{name} is of a type without words: {form}");
        assert!(default.as_deref() != Some(""), "{name}");
    }
    assert!(sections().iter().all(|section| section.doc.ends_with('.')));
}

/// Whether a configuration with this key alone is accepted, whatever other keys say of it.
fn takes(key: &Key, value: &str) -> Result<(), String> {
    let mut sets = vec![format!("{}={value}", key.name)];
    if let Some((tag, kind)) = key.of.as_deref().and_then(|of| of.split_once(" = ")) {
        sets.insert(0, format!("{tag}={}", kind.trim_matches('"')));
    }
    match Config::parse("", Path::new("x.toml"), &sets) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Keys that are refused by values of others, which say why.
const BESIDE_OTHERS: &[&str] =
    &["schedule.decay_steps", "schedule.decay_fraction", "objective.random_share"];

#[test]
fn bounds_are_said_as_they_are_held() {
    let (mut checked, mut silent) = (0, Vec::new());
    for (_, key) in all() {
        let plain = key.name.matches('.').count() == 1 && !BESIDE_OTHERS.contains(&&*key.name);
        let listed = is_listed(&key.name) || key.of.is_some();
        let number = matches!(key.form.as_str(), "whole number" | "number");
        if !(plain && listed && number) {
            continue;
        }
        let doc = key.doc.to_lowercase();
        let mut says = |words: &[&str]| {
            if !words.iter().any(|word| doc.contains(word)) {
                silent.push(format!("{}: one of {words:?} in {:?}", key.name, key.doc));
            }
        };
        let refused = |value: &str| {
            // Tables of lists are not set key by key.
            let own = |why: String| why.contains(&format!("{}: expected", key.name));
            takes(&key, value).err().is_some_and(own)
        };
        if refused("0") {
            says(&["at least", "above 0", "from 1", "from 2"]);
            checked += 1;
        }
        if key.form == "number" && refused("1.5") && !refused("1") {
            says(&["at most 1", "from 0 to 1"]);
            checked += 1;
        }
        if key.form == "number" && refused("1") && !refused("0.5") {
            says(&["below 1"]);
            checked += 1;
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
    assert!(checked > 20, "{checked}");
}

#[test]
fn a_key_a_table_and_a_section_are_found_and_what_is_near_is_named() {
    let one = find("checkpoint.keep").unwrap();
    assert_eq!((one.len(), one[0].keys.len(), one[0].name.as_str()), (1, 1, "checkpoint"));
    assert_eq!(one[0].keys[0].default.as_deref(), Some("3"));
    assert!(find("[recovery]").unwrap()[0].keys.len() >= 6);
    assert!(find("data.dedupe.near").unwrap()[0].keys.len() >= 6);
    // Of both families.
    let of: Vec<_> = find("model.layers").unwrap()[0].keys.iter().map(|k| k.of.clone()).collect();
    assert_eq!(of, ["dense", "encoder"].map(|f| Some(format!("model.family = \"{f}\""))));
    assert_eq!(find("schedule.lr").unwrap_err().as_deref(), Some("schedule.learning_rate"));
    assert_eq!(find("learning_rte").unwrap_err().as_deref(), Some("schedule.learning_rate"));
}
