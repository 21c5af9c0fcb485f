//! Which evaluation samples a document touches.

use super::{Samples, Scratch, Touch};

const QUESTION: &str =
    "What is the capital of the country whose largest river is the Danube, and why is it there?";
const SHORT: &str = "eight words are enough to be a sample";

fn touched(samples: &Samples, text: &str) -> Vec<(u32, u32)> {
    let touched = samples.touched(text, &mut Scratch::default());
    touched.iter().map(|&Touch { sample, sequences }| (sample, sequences)).collect()
}

#[test]
fn samples_are_found_inside_of_documents() {
    let samples = Samples::new(13, [QUESTION, "too short", SHORT, QUESTION].into_iter());
    assert_eq!((samples.len(), samples.too_short()), (4, 1));
    let hidden = format!("filler {} filler", QUESTION.to_uppercase().replace(' ', "\n"));
    // 18 words have 6 sequences of 13.
    assert_eq!(touched(&samples, &hidden), [(0, 6), (3, 6)]);
    assert_eq!(touched(&samples, &format!("and {SHORT}, so")), [(2, 1)]);
    // Twelve words in order are not thirteen.
    let twelve = QUESTION.split(' ').take(12).collect::<Vec<_>>().join(" ");
    assert!(touched(&samples, &format!("{twelve} nothing else")).is_empty());
    let thirteen = QUESTION.split(' ').take(13).collect::<Vec<_>>().join(" ");
    assert_eq!(touched(&samples, &thirteen), [(0, 1), (3, 1)]);
    assert!(touched(&samples, "").is_empty());
}
