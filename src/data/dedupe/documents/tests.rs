//! Why documents go, when several things are asked.

use super::{Scratch, Search};
use crate::data::dedupe::config::{DedupeConfig, NearConfig};
use crate::data::dedupe::contamination::Samples;

#[test]
fn a_contaminated_document_stands_for_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let sample = "a question of more than eight words that nobody should train on";
    let text = "many words that are the same in all of these documents but for one or two of them";
    let near =
        Some(NearConfig { words: Some(2), bands: Some(50), rows: Some(2), ..Default::default() });
    let config = DedupeConfig { exact: true, near, ..DedupeConfig::default() };
    let samples = Samples::new(9, [sample].into_iter());
    let (questions, mut search) = Search::open(&config, Some(samples), folder.path()).unwrap();
    let contaminated = format!("{text} {sample}");
    let other = format!("{text} again");
    for text in [&contaminated, text, &other, text, "", &contaminated, ""] {
        let note = questions.note(text, &mut Scratch::default());
        search.push(&note).unwrap();
    }
    let gone = search.find(2).unwrap();
    let reasons: Vec<_> = (0..7).map(|number| gone.reason(number)).collect();
    let [touched, near, exact] = ["contaminated", "near_duplicate", "exact_duplicate"].map(Some);
    assert_eq!(reasons, [touched, None, near, exact, None, touched, exact]);
    assert_eq!(gone.cluster_sizes[1], 1);
}
