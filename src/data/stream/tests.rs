//! Tests of reading several shards as one.

use std::path::{Path, PathBuf};

use super::TokenStream;
use crate::data::{DataError, ShardWriter};

/// Writes documents of the given lengths, cut into shards of `shard_tokens`, and opens them.
/// Tokens count up from 0, modulo 50,000. A document that goes on in the next shard begins only
/// once.
pub(in crate::data) fn stream(folder: &Path, lengths: &[u64], shard_tokens: u64) -> TokenStream {
    TokenStream::open(&write(folder, lengths, shard_tokens)).unwrap()
}

fn write(folder: &Path, lengths: &[u64], shard_tokens: u64) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut writer: Option<ShardWriter> = None;
    let mut next = 0u32;
    for &length in lengths {
        for place in 0..length {
            if writer.as_ref().is_none_or(|one| one.tokens() == shard_tokens) {
                if let Some(full) = writer.take() {
                    full.finish().unwrap();
                }
                paths.push(folder.join(format!("{}.oct", paths.len())));
                writer = Some(ShardWriter::create(paths.last().unwrap(), 50_000, [0; 32]).unwrap());
            }
            let writer = writer.as_mut().unwrap();
            if place == 0 {
                writer.begin_document();
            }
            writer.push(&[next % 50_000]).unwrap();
            next += 1;
        }
    }
    writer.unwrap().finish().unwrap();
    paths
}

#[test]
fn reads_cross_shard_borders() {
    let folder = tempfile::tempdir().unwrap();
    let stream = stream(folder.path(), &[10, 25, 1, 64], 16);
    assert_eq!((stream.len(), stream.documents()), (100, 4));
    for start in 0..100u32 {
        for count in [0, 1, 15, 16, 17, 40] {
            let count = count.min(100 - start);
            let mut out = vec![0u32; count as usize];
            stream.read(start.into(), &mut out).unwrap();
            assert_eq!(out, (start..start + count).collect::<Vec<u32>>());
        }
    }
    let error = stream.read(90, &mut [0u32; 11]).unwrap_err();
    assert!(matches!(error, DataError::OutOfRange { start: 90, end: 101, tokens: 100 }));
    stream.verify().unwrap();
}

#[test]
fn borders_are_where_documents_begin() {
    let folder = tempfile::tempdir().unwrap();
    for shard_tokens in [7, 16, 35, 1000] {
        let lengths = [10, 25, 1, 1, 12, 51];
        let stream = stream(folder.path(), &lengths, shard_tokens);
        let begins = [0, 10, 35, 36, 37, 49];
        for start in 0..100u64 {
            for length in [0, 1, 2, 9, 30, 99] {
                let expected: Vec<u64> =
                    begins.into_iter().filter(|&at| at > start && at <= start + length).collect();
                let mut found = Vec::new();
                stream.for_each_border(start, length, |at| found.push(at)).unwrap();
                assert_eq!(found, expected, "{start} {length} {shard_tokens}");
                assert_eq!(stream.borders(start, length).unwrap(), expected.len() as u64);
            }
        }
    }
}

#[test]
fn a_stream_may_begin_with_what_opens_it() {
    let folder = tempfile::tempdir().unwrap();
    let plain = stream(folder.path(), &[10, 25, 6], 16);
    let opened = stream(folder.path(), &[10, 25, 6], 16).opened_by(777).unwrap();
    assert_eq!((opened.len(), opened.documents()), (42, 3));
    for start in 0..42u64 {
        for count in [0, 1, 2, 15, 30, 42] {
            let count = count.min(42 - start);
            let mut out = vec![0u32; count as usize];
            opened.read(start, &mut out).unwrap();
            let expected =
                (start..start + count).map(|at| if at == 0 { 777 } else { at as u32 - 1 });
            assert_eq!(out, expected.collect::<Vec<u32>>());
            let mut found = Vec::new();
            opened.for_each_border(start, count, |at| found.push(at)).unwrap();
            let within = |&at: &u64| at > start && at <= start + count;
            assert_eq!(found, [1, 11, 36].into_iter().filter(within).collect::<Vec<u64>>());
            assert_eq!(opened.borders(start, count).unwrap(), found.len() as u64);
        }
    }
    assert!(opened.read(41, &mut [0u32; 2]).is_err());
    // One that begins inside a document has no place for it.
    let rest = TokenStream::open(&write(folder.path(), &[10, 25, 6], 16)[1..]).unwrap();
    assert_eq!(rest.opened_by(777).unwrap().len(), plain.len() - 16);
}

#[test]
fn shards_of_different_tokenizers_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    let mut paths = write(folder.path(), &[3], 10);
    let other = folder.path().join("other.oct");
    ShardWriter::create(&other, 50_000, [1; 32]).unwrap().finish().unwrap();
    paths.push(other);
    let error = TokenStream::open(&paths).err().unwrap().to_string();
    assert!(error.contains("another tokenizer"), "{error}");
    assert!(TokenStream::open(&[]).unwrap().is_empty());
}
