//! Which documents go, by all that is asked of them.
//!
//! Duty: what is noted of a document, on any thread, and the decision when all were noted in order.
//! A document that holds evaluation samples goes first and stands for no other. Prohibition: reads
//! no text of the data.

use std::fs;
use std::path::{Path, PathBuf};

use super::Samples;
use super::bits::Bits;
use super::config::{DedupeConfig, NearConfig, SemanticConfig};
use super::contamination::{self, Touch};
use super::exact::{Fingerprint, Repeated, fingerprint};
use super::index::{Index, IndexWriter};
use super::minhash::{self, MinHash};
use super::near::Near;
use super::semantic::{Embeddings, read_npy};
use crate::data::error::DataError;

/// What is asked of each document.
pub(in crate::data) struct Questions {
    samples: Option<Samples>,
    exact: bool,
    minhash: Option<MinHash>,
}

/// What was answered so far.
pub(in crate::data) struct Search {
    exact: Option<Repeated>,
    near: Option<(Near, Vec<Index>, NearConfig)>,
    semantic: Option<(Embeddings, SemanticConfig)>,
    contaminated: Bits,
    documents: u64,
}

/// What is noted of a document.
#[derive(Default)]
pub(in crate::data) struct Note {
    /// Evaluation samples that it holds.
    pub(in crate::data) touched: Vec<Touch>,
    exact: Fingerprint,
    keys: Vec<u64>,
}

/// What one thread keeps while it works.
#[derive(Default)]
pub(in crate::data) struct Scratch {
    samples: contamination::Scratch,
    near: minhash::Scratch,
}

/// Documents that go, by reason.
#[derive(Debug, Default, PartialEq)]
pub(in crate::data) struct Gone {
    reasons: Vec<(&'static str, Bits)>,
    /// Clusters of near duplicates by size: number i counts 2^i to 2^(i+1) - 1.
    pub(in crate::data) cluster_sizes: Vec<u64>,
    /// Near duplicates of earlier data.
    pub(in crate::data) in_indexes: u64,
}

impl Gone {
    /// Why a document goes, if it does.
    pub(in crate::data) fn reason(&self, document: u64) -> Option<&'static str> {
        let of = |(_, documents): &&(&str, Bits)| documents.contains(document);
        self.reasons.iter().find(of).map(|&(reason, _)| reason)
    }
}

impl Questions {
    /// What has to be known of a document.
    pub(in crate::data) fn note(&self, text: &str, scratch: &mut Scratch) -> Note {
        let mut note = Note::default();
        if let Some(samples) = &self.samples {
            note.touched = samples.touched(text, &mut scratch.samples);
        }
        if note.touched.is_empty() {
            if self.exact {
                note.exact = fingerprint(text);
            }
            if let Some(minhash) = &self.minhash {
                minhash.keys(text, &mut scratch.near, &mut note.keys);
            }
        }
        note
    }
}

impl Search {
    /// Opens what the settings name. `folder` is for what does not fit into memory.
    ///
    /// # Errors
    /// [`DataError::Config`] for a file that is not what it should be, [`DataError::Io`].
    pub(in crate::data) fn open(
        config: &DedupeConfig,
        samples: Option<Samples>,
        folder: &Path,
    ) -> Result<(Questions, Self), DataError> {
        let near = match &config.near {
            Some(near) => {
                let open = |path: &PathBuf| Index::open(path, near.minhash());
                let indexes = near.against.iter().map(open).collect::<Result<_, _>>()?;
                Some((Near::new(&folder.join("near.tmp")), indexes, near.clone()))
            }
            None => None,
        };
        let semantic = match &config.semantic {
            Some(semantic) => {
                let path = &semantic.embeddings;
                let file = fs::read(path).map_err(DataError::io(path, "read"))?;
                let embeddings = read_npy(&file).map_err(|reason| DataError::Config {
                    key: "data.dedupe.semantic.embeddings",
                    problem: format!("{}: {reason}", path.display()),
                })?;
                Some((embeddings, semantic.clone()))
            }
            None => None,
        };
        let minhash = config.near.as_ref().map(|near| MinHash::new(near.minhash()));
        let questions = Questions { samples, exact: config.exact, minhash };
        let exact = config.exact.then(|| Repeated::new(&folder.join("exact.tmp")));
        let (contaminated, documents) = (Bits::default(), 0);
        Ok((questions, Self { exact, near, semantic, contaminated, documents }))
    }

    /// Takes the note of the next document.
    ///
    /// # Errors
    /// [`DataError::Io`]; [`DataError::Config`] for too many documents.
    pub(in crate::data) fn push(&mut self, note: &Note) -> Result<(), DataError> {
        let number = self.documents;
        self.documents += 1;
        let contaminated = !note.touched.is_empty();
        if contaminated {
            self.contaminated.insert(number);
        }
        if let Some(exact) = self.exact.as_mut().filter(|_| !contaminated) {
            exact.push(note.exact, number)?;
        }
        match &mut self.near {
            Some((near, ..)) => near.push(&note.keys),
            None => Ok(()),
        }
    }

    /// Decides.
    ///
    /// # Errors
    /// [`DataError::Io`]; [`DataError::Config`] for embeddings of other documents.
    pub(in crate::data) fn find(self, threads: usize) -> Result<Gone, DataError> {
        let Self { exact, near, semantic, contaminated, documents } = self;
        let mut gone = Gone::default();
        let mut all = contaminated.clone();
        gone.reasons.push(("contaminated", contaminated));
        if let Some(exact) = exact {
            let later = exact.later(threads)?;
            all.extend(&later);
            gone.reasons.push(("exact_duplicate", later));
        }
        if let Some((near, indexes, config)) = near {
            let found = near.find(&indexes, threads)?;
            (gone.cluster_sizes, gone.in_indexes) = (found.sizes, found.in_indexes);
            all.extend(&found.dropped);
            gone.reasons.push(("near_duplicate", found.dropped));
            if let Some(path) = &config.save {
                near.save(IndexWriter::create(path, config.minhash())?, &indexes)?;
            }
        }
        if let Some((embeddings, config)) = semantic {
            let rows = embeddings.rows();
            if rows as u64 != documents {
                let problem = format!(
                    "{}: expected {documents} rows, one for each document, got {rows}",
                    config.embeddings.display()
                );
                return Err(DataError::Config { key: "data.dedupe.semantic.embeddings", problem });
            }
            let later = embeddings.later(&config, &all, threads)?;
            gone.reasons.push(("semantic_duplicate", later));
        }
        Ok(gone)
    }
}

#[cfg(test)]
mod tests;
