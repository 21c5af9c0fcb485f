//! Embeddings, and documents that are close in them.

use super::{Embeddings, read_npy};
use crate::data::dedupe::bits::Bits;
use crate::data::dedupe::config::SemanticConfig;
use crate::data::dedupe::words::mixed;

const WIDTH: usize = 24;

/// A direction of its own for each number, and a little aside for each version.
fn row(number: u64, version: u64) -> Vec<f32> {
    let value = |seed: u64| (mixed(seed) as f32 / u64::MAX as f32) - 0.5;
    (0..WIDTH as u64)
        .map(|at| value(number << 32 ^ at) + 0.01 * value(version << 40 ^ at))
        .collect()
}

fn npy(shape: &str, descr: &str, values: &[f32]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    file
}

fn config(clusters: usize, cosine: f32) -> SemanticConfig {
    SemanticConfig { embeddings: "x.npy".into(), clusters, cosine, seed: 1 }
}

#[test]
fn close_documents_go_and_the_first_stays_on_any_threads() {
    let mut rows: Vec<Vec<f32>> = (0..3000).map(|number| row(number, 0)).collect();
    for (at, of) in [(100, 7), (2000, 7), (2999, 1500), (5, 4)] {
        rows[at] = row(of, at as u64 + 1);
        // Length does not count.
        rows[at].iter_mut().for_each(|value| *value *= 3.0);
    }
    let embeddings = read_npy(&npy("(3000, 24)", "<f4", &rows.concat())).unwrap();
    assert_eq!(embeddings.rows(), 3000);
    let later = embeddings.later(&config(20, 0.99), &Bits::default(), 1).unwrap();
    let found: Vec<u64> = (0..3000).filter(|&row| later.contains(row)).collect();
    assert_eq!(found, [5, 100, 2000, 2999]);
    for threads in [2, 8] {
        assert_eq!(embeddings.later(&config(20, 0.99), &Bits::default(), threads).unwrap(), later);
    }
    assert_eq!(embeddings.later(&config(20, 1.01), &Bits::default(), 2).unwrap().count(), 0);
    // What has gone already stands for nobody.
    let mut gone = Bits::default();
    gone.insert(7);
    let later = embeddings.later(&config(20, 0.99), &gone, 2).unwrap();
    assert!(!later.contains(100) && later.contains(2000));
}

#[test]
fn rows_of_zeros_and_few_rows_are_no_trouble() {
    let later = |values: Vec<f32>| {
        Embeddings::new(values, 2).later(&config(1000, 0.9), &Bits::default(), 2).unwrap().count()
    };
    assert_eq!(later(vec![0.0; 8]), 0);
    assert_eq!(later(vec![]), 0);
    assert_eq!(later(vec![1.0, 0.0]), 0);
}

#[test]
fn files_that_are_no_embeddings_are_refused() {
    let values = [1.0f32, 2.0, 3.0, 4.0];
    assert_eq!(read_npy(&npy("(2, 2)", "<f4", &values)).unwrap().rows(), 2);
    for (file, says) in [
        (b"x".to_vec(), "expected a NumPy file"),
        (b"\x93NUMPY\x01\x00\xff\xff".to_vec(), "expected a NumPy file"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec(), "expected a NumPy file"),
        (npy("(2, 2)", "<f8", &values), "got {'descr':'<f8'"),
        (npy("(4,)", "<f4", &values), "expected a NumPy file"),
        (npy("(2, 3)", "<f4", &values), "its shape is 2 x 3, but 16 bytes follow"),
        (npy("(4, 0)", "<f4", &values), "its shape is 4 x 0"),
        (npy("(18446744073709551615, 3)", "<f4", &values), "its shape is"),
        (npy("(2, 2)", "<f4", &[1.0, f32::NAN, 0.0, 0.0]), "not finite"),
    ] {
        let refused = read_npy(&file).err().unwrap();
        assert!(refused.contains(says), "{refused}");
    }
}
