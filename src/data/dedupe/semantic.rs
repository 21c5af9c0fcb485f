//! Documents that mean the same, by embeddings that somebody made of them.
//!
//! Duty: vectors of length 1 are put into clusters by k-means, and within each cluster a document
//! goes if one before it is closer than the threshold (Abbas et al., "SemDeDup"). Limits: the
//! embeddings in memory, and the comparison of all pairs of a cluster. Prohibition: sums are made
//! in one order whatever the threads, so that the same file always gives the same answer.

use super::bits::Bits;
use super::config::SemanticConfig;
use super::in_partitions;
use super::words::mixed;
use crate::data::error::DataError;

/// Rounds of k-means; fewer if nothing moves any more.
const ROUNDS_MAX: usize = 50;
/// Rows that a thread takes at once.
const ROWS_AT_ONCE: usize = 1024;

/// Vectors of length 1, one for each document.
pub(super) struct Embeddings {
    values: Vec<f32>,
    width: usize,
}

impl Embeddings {
    /// Takes the rows of a table. A row of zeros stays as it is and is like none.
    pub(super) fn new(mut values: Vec<f32>, width: usize) -> Self {
        for row in values.chunks_exact_mut(width) {
            let length = row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            if length > 0.0 {
                row.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
            }
        }
        Self { values, width }
    }

    /// Documents.
    pub(super) fn rows(&self) -> usize {
        self.values.len() / self.width
    }

    fn row(&self, number: usize) -> &[f32] {
        &self.values[number * self.width..(number + 1) * self.width]
    }

    /// The documents that go: those for which one of a lower number in their cluster has at least
    /// the cosine of the settings. Documents in `gone` have gone already.
    ///
    /// # Errors
    /// None of its own.
    pub(super) fn later(
        &self,
        config: &SemanticConfig,
        gone: &Bits,
        threads: usize,
    ) -> Result<Bits, DataError> {
        let clusters = config.clusters.clamp(1, self.rows().max(1));
        let nearest = self.k_means(clusters, config.seed, threads)?;
        let mut members = vec![Vec::new(); clusters];
        for (row, &cluster) in nearest.iter().enumerate() {
            if !gone.contains(row as u64) {
                members[cluster as usize].push(row);
            }
        }
        let found = in_partitions(clusters, threads, &|cluster| {
            let members = &members[cluster];
            let close = |at: usize| {
                let row = self.row(members[at]);
                let is_close = |&before: &usize| dot(self.row(before), row) >= config.cosine;
                members[..at].iter().any(is_close)
            };
            Ok((0..members.len()).filter(|&at| close(at)).map(|at| members[at]).collect::<Vec<_>>())
        })?;
        Ok(found.into_iter().flatten().map(|row| row as u64).collect())
    }

    /// The cluster of each row.
    fn k_means(&self, clusters: usize, seed: u64, threads: usize) -> Result<Vec<u32>, DataError> {
        let rows = self.rows();
        // Rows of distinct numbers, by their hash.
        let mut order: Vec<usize> = (0..rows).collect();
        order.sort_unstable_by_key(|&row| (mixed(seed ^ mixed(row as u64)), row));
        let mut centres: Vec<f32> =
            order.iter().take(clusters).flat_map(|&row| self.row(row).to_vec()).collect();
        let mut nearest = vec![u32::MAX; rows];
        for _ in 0..ROUNDS_MAX {
            let blocks = rows.div_ceil(ROWS_AT_ONCE);
            let found = in_partitions(blocks, threads, &|block| {
                let first = block * ROWS_AT_ONCE;
                let block = first..rows.min(first + ROWS_AT_ONCE);
                Ok(block.map(|row| closest(self.row(row), &centres)).collect::<Vec<u32>>())
            })?
            .concat();
            if found == nearest {
                break;
            }
            nearest = found;
            let mut sums = vec![0f64; centres.len()];
            for (row, &cluster) in nearest.iter().enumerate() {
                let sum = &mut sums[cluster as usize * self.width..][..self.width];
                sum.iter_mut()
                    .zip(self.row(row))
                    .for_each(|(sum, value)| *sum += f64::from(*value));
            }
            for (centre, sum) in
                centres.chunks_exact_mut(self.width).zip(sums.chunks_exact(self.width))
            {
                let length = sum.iter().map(|value| value.powi(2)).sum::<f64>().sqrt();
                // A cluster that has lost all its rows stays where it was.
                if length > 0.0 {
                    centre.iter_mut().zip(sum).for_each(|(to, from)| *to = (from / length) as f32);
                }
            }
        }
        Ok(nearest)
    }
}

/// The centre of the largest cosine, of equal ones the first.
fn closest(row: &[f32], centres: &[f32]) -> u32 {
    let mut best = (f32::NEG_INFINITY, 0);
    for (number, centre) in (0u32..).zip(centres.chunks_exact(row.len())) {
        let cosine = dot(row, centre);
        if cosine > best.0 {
            best = (cosine, number);
        }
    }
    best.1
}

/// The product of two vectors, in sixteen sums that are added at the end.
fn dot(one: &[f32], other: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    let (one, one_rest) = one.as_chunks::<16>();
    let (other, other_rest) = other.as_chunks::<16>();
    for (one, other) in one.iter().zip(other) {
        for i in 0..16 {
            sums[i] += one[i] * other[i];
        }
    }
    let rest: f32 = one_rest.iter().zip(other_rest).map(|(one, other)| one * other).sum();
    sums.iter().sum::<f32>() + rest
}

/// Reads a NumPy file of two dimensions and little-endian 32-bit floats. An error is a sentence
/// about it.
pub(super) fn read_npy(file: &[u8]) -> Result<Embeddings, String> {
    let expected = || "expected a NumPy file (.npy) of two dimensions and '<f4'".to_owned();
    let (length, start) = match file {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, a, b, ..] => {
            (usize::from(u16::from_le_bytes([*a, *b])), 10)
        }
        [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _, a, b, c, d, ..] => {
            (u32::from_le_bytes([*a, *b, *c, *d]) as usize, 12)
        }
        _ => return Err(expected()),
    };
    let header = file.get(start..start + length).ok_or_else(expected)?;
    let header: String = String::from_utf8_lossy(header).split_whitespace().collect();
    if !header.contains("'descr':'<f4'") || !header.contains("'fortran_order':False") {
        return Err(format!("{}, got {header}", expected()));
    }
    let shape = header.split_once("'shape':(").and_then(|(_, rest)| rest.split_once(')'));
    let shape: Option<Vec<usize>> = shape.and_then(|(shape, _)| {
        shape.split(',').filter(|one| !one.is_empty()).map(|one| one.parse().ok()).collect()
    });
    let Some([rows, width]) = shape.as_deref() else { return Err(expected()) };
    let values = &file[start + length..];
    if *width == 0
        || rows.checked_mul(*width).and_then(|all| all.checked_mul(4)) != Some(values.len())
    {
        return Err(format!("its shape is {rows} x {width}, but {} bytes follow", values.len()));
    }
    let values: Vec<f32> =
        values.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
    if values.iter().any(|value| !value.is_finite()) {
        return Err("it holds numbers that are not finite".to_owned());
    }
    Ok(Embeddings::new(values, *width))
}

#[cfg(test)]
mod tests;
