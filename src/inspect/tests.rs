//! Tests of what is recognised. Runs and checkpoints are inspected in `tests/cli`.

use std::fs;

use super::{Inspected, inspect};
use crate::data::ShardWriter;

#[test]
fn a_shard_is_recognised_by_its_first_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("any.name");
    let mut writer = ShardWriter::create(&path, 300, [7; 32]).unwrap();
    writer.begin_document();
    writer.push(&[1, 2, 3]).unwrap();
    writer.finish().unwrap();
    let Inspected::Shard(summary) = inspect(&path).unwrap() else { panic!("not a shard") };
    assert_eq!((summary.tokens, summary.documents, summary.token_bytes), (3, 1, 2));
    // A damaged one is refused with its reason.
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let failure = inspect(&path).unwrap_err();
    assert_eq!(failure.code, 2);
    assert!(failure.what.contains("any.name"), "{failure}");
}

#[test]
fn what_is_none_of_ours_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "some text").unwrap();
    for path in [folder.path().to_owned(), folder.path().join("a.txt"), folder.path().join("b")] {
        let failure = inspect(&path).unwrap_err();
        assert_eq!(failure.code, 2);
        assert!(failure.what.starts_with(&path.display().to_string()), "{failure}");
    }
}
