//! Tests of the classifier: it learns, its file keeps it, and damage is seen.

use super::{Classifier, Quality, train};
use crate::data::clean::testing::{dropped, kept};
use crate::data::clean::{Document, Step};

fn texts() -> Vec<(String, bool)> {
    let of = |i: usize, words: &[&str]| {
        (0..30).map(|j| words[(i * 7 + j * j) % words.len()]).collect::<Vec<_>>().join(" ")
    };
    let good = ["river", "water", "the", "of", "and", "stone", "bridge", "old"];
    let bad = ["buy", "now", "the", "of", "and", "cheap", "offer", "click"];
    let both = |i| [(of(i, &good), true), (of(i, &bad), false)];
    (0..200).flat_map(both).collect()
}

#[test]
fn what_is_learned_is_kept_in_a_file_and_used() {
    let texts = texts();
    let given = || texts.iter().map(|(text, good)| (text.as_str(), *good));
    let trained = train(given(), 12);
    assert_eq!((trained.documents, trained.held_out), ([180, 180], [20, 20]));
    assert!(trained.accuracy.unwrap() > 0.99 && trained.auc.unwrap() > 0.99);
    // The same documents give the same bits.
    assert_eq!(train(given(), 12).classifier, trained.classifier);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model");
    trained.classifier.save(&file).unwrap();
    assert_eq!(Classifier::load(&file).unwrap(), trained.classifier);
    let text = "The old bridge of stone and the river";
    let score = trained.classifier.score(&mut Document::new(text));
    assert!(score > 0.9);
    let at = |min_score| Quality { file: file.clone(), min_score };
    kept(&at(score), text);
    dropped(&at(score + 1e-9), text, "low_score");
    dropped(&at(0.5), "click and buy the cheap offer now", "low_score");
    let mut bytes = std::fs::read(&file).unwrap();
    for damage in [&bytes[..bytes.len() - 1], &bytes[..20], b"none"] {
        std::fs::write(&file, damage).unwrap();
        assert!(at(0.5).open().err().unwrap().to_string().contains("none that octet"));
    }
    bytes[100] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let error = at(0.5).open().err().unwrap();
    assert!(error.is_user_error() && error.to_string().contains("it is damaged"), "{error}");
    assert!(Quality::default().validate().is_err());
}

#[test]
fn one_kind_alone_measures_nothing() {
    let trained = train([("a b", true), ("c d", true)].into_iter(), 8);
    assert_eq!((trained.accuracy, trained.auc), (None, None));
}
