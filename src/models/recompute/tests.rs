//! The words of `model.recompute`.

use super::RecomputeConfig;

#[test]
fn every_form_reads_back_as_it_was_written() {
    for text in ["none", "norm_activation", "feed_forward", "block", "auto", "block:12,none"] {
        let read: RecomputeConfig = text.parse().unwrap();
        assert_eq!(read.to_string(), text);
    }
    let spaced: RecomputeConfig = "feed_forward: 3, norm_activation".parse().unwrap();
    assert_eq!(spaced.to_string(), "feed_forward:3,norm_activation");
    for wrong in ["", "blocks", "block:x,none", "block,none", "auto:3,none", "block:3", "none:1,"] {
        assert!(wrong.parse::<RecomputeConfig>().is_err(), "{wrong}");
    }
}
