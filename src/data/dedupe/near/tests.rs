//! Clusters of near duplicates, with and without earlier data.

use std::path::Path;

use super::super::index::{Index, IndexWriter};
use super::super::minhash::{MinHash, MinHashConfig, Scratch};
use super::super::words::mixed;
use super::{Near, NearFound};

/// Text number `number` of 300 words, of which every 150th is another in another `version`.
fn text(number: u64, version: u64) -> String {
    let word = |at: u64| {
        let changed = if at % 150 == 7 { version } else { 0 };
        let letter = |i: u64| {
            char::from(b'a' + (mixed(number << 20 ^ at ^ changed << 50 ^ i << 40) % 26) as u8)
        };
        (0..6).map(letter).collect::<String>()
    };
    (0..300).map(word).collect::<Vec<_>>().join(" ")
}

fn near(folder: &Path, texts: &[String]) -> Near {
    let minhash = MinHash::new(MinHashConfig::default());
    let (mut scratch, mut keys) = (Scratch::default(), Vec::new());
    let mut near = Near::new(&folder.join("near"));
    for text in texts {
        minhash.keys(text, &mut scratch, &mut keys);
        near.push(&keys).unwrap();
    }
    near
}

fn gone(found: &NearFound) -> Vec<u64> {
    (0..100).filter(|&number| found.dropped.contains(number)).collect()
}

#[test]
fn the_first_of_a_cluster_stays_on_any_threads() {
    let folder = tempfile::tempdir().unwrap();
    let texts = [
        text(1, 0),
        text(2, 0),
        text(1, 1),
        text(3, 0),
        text(1, 2),
        text(2, 1),
        "short".to_owned(),
        "short".to_owned(),
    ];
    let near = near(folder.path(), &texts);
    let found = near.find(&[], 1).unwrap();
    assert_eq!(gone(&found), [2, 4, 5]);
    assert_eq!(found.sizes[..3], [0, 2, 0]);
    for threads in [2, 8] {
        assert_eq!(near.find(&[], threads).unwrap(), found);
    }
}

#[test]
fn what_earlier_data_hold_goes_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("earlier");
    let config = MinHashConfig::default();
    near(folder.path(), &[text(1, 0), text(5, 0)])
        .save(IndexWriter::create(&path, config).unwrap(), &[])
        .unwrap();
    let index = Index::open(&path, config).unwrap();
    let new = near(folder.path(), &[text(2, 0), text(1, 1), text(1, 2), text(2, 1), text(9, 0)]);
    let found = new.find(&[index], 2).unwrap();
    assert_eq!((gone(&found), found.in_indexes), (vec![1, 2, 3], 2));
    // An index that was made with another one holds what both hold.
    let (both, index) = (folder.path().join("both"), Index::open(&path, config).unwrap());
    new.save(IndexWriter::create(&both, config).unwrap(), &[index]).unwrap();
    let index = Index::open(&both, config).unwrap();
    let found =
        near(folder.path(), &[text(9, 1), text(5, 1), text(7, 0)]).find(&[index], 1).unwrap();
    assert_eq!(gone(&found), [0, 1]);
}

#[test]
fn an_index_that_is_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let config = MinHashConfig::default();
    let open = |path: &Path, config| match Index::open(path, config) {
        Ok(_) => panic!("it was opened"),
        Err(refused) => refused.to_string(),
    };
    assert!(open(&path, config).contains("expected an index that `save` wrote"));
    std::fs::write(&path, [7; 100]).unwrap();
    assert!(open(&path, config).contains("expected an index that `save` wrote"));
    near(folder.path(), &[text(1, 0)])
        .save(IndexWriter::create(&path, config).unwrap(), &[])
        .unwrap();
    let other = MinHashConfig { rows: 9, ..config };
    assert!(open(&path, other).contains("rows: 9"), "{}", open(&path, other));
    let whole = std::fs::read(&path).unwrap();
    for at in [48, 79, 80, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        assert!(open(&path, config).contains("it is damaged"), "byte {at}");
    }
    std::fs::write(&path, &whole[..whole.len() - 8]).unwrap();
    assert!(open(&path, config).contains("it is damaged"));
}
