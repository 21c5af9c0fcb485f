//! Tests of the shard format: round trips at both widths, and every kind of damage.

use std::fs;
use std::path::Path;

use super::layout::{CHUNK_BYTES, HEADER_BYTES};
use super::{Shard, ShardWriter, inspect};
use crate::data::DataError;

const TOKENIZER: [u8; 32] = [7; 32];

/// Writes documents of the given lengths; token number i is a mix of i below the vocabulary.
fn write(path: &Path, vocabulary: usize, lengths: &[u64]) -> Vec<u32> {
    let mut writer = ShardWriter::create(path, vocabulary, TOKENIZER).unwrap();
    let mut all = Vec::new();
    for &length in lengths {
        writer.begin_document();
        let first = all.len() as u64;
        let one: Vec<u32> = (first..first + length)
            .map(|i| (i * 2_654_435_761 % vocabulary as u64) as u32)
            .collect();
        writer.push(&one).unwrap();
        all.extend(one);
    }
    let summary = writer.finish().unwrap();
    assert_eq!((summary.tokens, summary.documents), (all.len() as u64, lengths.len() as u64));
    all
}

fn read_all(shard: &Shard) -> Result<Vec<u32>, DataError> {
    let mut out = vec![0; shard.tokens() as usize];
    shard.read(0, &mut out).map(|()| out)
}

#[test]
fn tokens_and_documents_come_back_at_both_widths() {
    let folder = tempfile::tempdir().unwrap();
    for (vocabulary, width) in [(257, 2), (1 << 16, 2), ((1 << 16) + 1, 4)] {
        let path = folder.path().join("a.oct");
        let tokens = write(&path, vocabulary, &[3, 1, 1_000_001, 5]);
        let shard = Shard::open(&path).unwrap();
        assert_eq!(read_all(&shard).unwrap(), tokens);
        let mut part = [0i32; 10];
        shard.read(999_990, &mut part).unwrap();
        let expected: Vec<i32> = tokens[999_990..1_000_000].iter().map(|&t| t as i32).collect();
        assert_eq!(part.as_slice(), expected);
        let starts: Vec<u64> = (0..4).map(|d| shard.document_start(d).unwrap()).collect();
        assert_eq!(starts, [0, 3, 4, 1_000_005]);
        let before: Vec<u64> = [0, 1, 3, 4, 5, 1_000_005, 1_000_006]
            .map(|t| shard.documents_before(t).unwrap())
            .into();
        assert_eq!(before, [0, 1, 1, 2, 3, 3, 4]);
        shard.verify().unwrap();
        let summary = inspect(&path).unwrap();
        assert_eq!(summary.token_bytes, width);
        assert_eq!(summary.file_bytes, fs::metadata(&path).unwrap().len());
        assert_eq!(shard.tokenizer(), TOKENIZER);
    }
}

#[test]
fn an_empty_shard_is_a_shard() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.oct");
    write(&path, 257, &[]);
    let shard = Shard::open(&path).unwrap();
    assert!(read_all(&shard).unwrap().is_empty());
    assert_eq!(shard.documents_before(9).unwrap(), 0);
}

#[test]
fn reading_past_the_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.oct");
    write(&path, 257, &[10]);
    let shard = Shard::open(&path).unwrap();
    for offset in [8, u64::MAX] {
        let error = shard.read(offset, &mut [0u32; 3]).unwrap_err();
        assert!(matches!(error, DataError::OutOfRange { tokens: 10, .. }), "{error}");
    }
}

#[test]
fn a_flipped_bit_is_found_on_first_touch_and_only_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.oct");
    write(&path, 257, &[1_500_000, 2]);
    let good = fs::read(&path).unwrap();
    let chunk_tokens = CHUNK_BYTES / 2;
    // A bit in the tokens of the second chunk.
    let mut bad = good.clone();
    bad[(HEADER_BYTES + CHUNK_BYTES) as usize + 17] ^= 4;
    fs::write(&path, &bad).unwrap();
    let shard = Shard::open(&path).unwrap();
    shard.read(0, &mut vec![0u32; chunk_tokens as usize]).unwrap();
    let error = shard.read(chunk_tokens - 1, &mut [0u32; 2]).unwrap_err();
    assert!(!error.is_user_error());
    let expected = format!(
        "{}: chunk 1 (bytes {} to {}) fails its checksum",
        path.display(),
        HEADER_BYTES + CHUNK_BYTES,
        HEADER_BYTES + 2 * CHUNK_BYTES
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(shard.verify().unwrap_err().to_string(), expected);
    // Damage stays damage when it is read again.
    assert!(shard.read(chunk_tokens, &mut [0u32]).is_err());
    // A bit in the document index.
    let mut bad = good.clone();
    bad[(HEADER_BYTES + 3_000_008) as usize] ^= 1;
    fs::write(&path, &bad).unwrap();
    let shard = Shard::open(&path).unwrap();
    assert!(matches!(shard.documents_before(5), Err(DataError::Chunk { chunk: 2, .. })));
}

#[test]
fn damage_to_header_or_table_is_found_at_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.oct");
    write(&path, 257, &[100]);
    let good = fs::read(&path).unwrap();
    let reason = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let error = Shard::open(&path).err().unwrap();
        assert!(matches!(error, DataError::Shard { .. }), "{error}");
        error.to_string()
    };
    let flipped = |at: usize| {
        let mut bad = good.clone();
        bad[at] ^= 1;
        bad
    };
    assert!(reason(&flipped(0)).contains("does not begin with OCTSHARD"));
    assert!(reason(&flipped(8)).contains("version 0, this program reads 1"));
    for field in [12, 16, 24, 40, 80, 96, 104] {
        assert!(reason(&flipped(field)).contains("its header fails its checksum"), "{field}");
    }
    assert!(reason(&flipped(good.len() - 1)).contains("checksum table"));
    assert!(reason(&good[..good.len() - 1]).contains("where its header says"));
    assert!(reason(&[&good[..], b"x"].concat()).contains("where its header says"));
    assert!(reason(&good[..100]).contains("inside the header"));
    assert!(reason(&[]).contains("inside the header"));
}

#[test]
fn an_unfinished_shard_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.oct");
    let mut writer = ShardWriter::create(&path, 257, TOKENIZER).unwrap();
    writer.push(&[1, 2, 3]).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(!path.exists());
    drop(writer);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
#[should_panic(expected = "below the vocabulary")]
fn a_token_that_does_not_fit_is_our_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = ShardWriter::create(&folder.path().join("a.oct"), 257, TOKENIZER).unwrap();
    let _ = writer.push(&[70_000]);
}
