//! Speeds by the processor's own clock, so that what else the machine does hardly counts.
//!
//! Duty: tokenizing beside the library that reads the same file, and what looks for repetition.
//! Prohibition: measures with one thread only.

use std::path::Path;

use serde::Serialize;

use crate::data::config::DataConfig;
use crate::data::dedupe::DedupeConfig;
use crate::data::dedupe::documents::{Scratch, Search};
use crate::data::error::DataError;
use crate::data::source::Corpus;
use crate::data::tokenize::Tokenizer;

/// Bytes of text that are measured with.
const TEXT_BYTES_MAX: usize = 16 << 20;
/// The library is many times slower: it gets the first so many bytes.
const LIBRARY_BYTES_MAX: usize = 4 << 20;
/// A document of more is measured in pieces, at lines.
const DOCUMENT_BYTES: usize = 4 << 10;

/// Megabytes of text per second of the processor's time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CpuSpeeds {
    /// Tokenizing.
    pub tokenize: f64,
    /// Tokenizing by crate `tokenizers`.
    pub library: f64,
    /// Documents of those that both have tokenized whose tokens differ.
    pub differing: usize,
    /// Fingerprints of whole documents.
    pub exact: f64,
    /// Keys of near duplicates.
    pub near: f64,
}

/// Measures with text of a configuration. Nothing stays in `folder`.
///
/// # Errors
/// As the preparation's.
pub fn cpu_speeds(
    config: &DataConfig,
    tokenizer: &Tokenizer,
    folder: &Path,
) -> Result<CpuSpeeds, DataError> {
    let documents = documents(config)?;
    let (mut encoder, mut tokens) = (tokenizer.encoder(), Vec::new());
    let tokenize = speed(&documents, |text| {
        tokens.clear();
        encoder.encode(text, &mut tokens)
    })?;
    let unusable = |error: tokenizers::Error| DataError::Tokenizer {
        path: "crate tokenizers".into(),
        reason: error.to_string(),
    };
    let mut library =
        tokenizers::Tokenizer::from_bytes(tokenizer.hugging_face_json()).map_err(unusable)?;
    library.set_encode_special_tokens(true);
    let mut before = 0;
    let of_library = documents.iter().take_while(|text| {
        before += text.len();
        before <= LIBRARY_BYTES_MAX
    });
    let of_library: Vec<String> = of_library.cloned().collect();
    let mut differing = 0;
    let by_library =
        speed(&of_library, |text| library.encode_fast(text, false).map(drop).map_err(unusable))?;
    for text in &of_library {
        tokens.clear();
        encoder.encode(text, &mut tokens)?;
        let theirs = library.encode_fast(text.as_str(), false).map_err(unusable)?;
        differing += usize::from(theirs.get_ids() != tokens);
    }
    let noting = |dedupe: &DedupeConfig| -> Result<f64, DataError> {
        let (questions, _) = Search::open(dedupe, None, folder)?;
        let mut scratch = Scratch::default();
        speed(&documents, |text| {
            std::hint::black_box(questions.note(text, &mut scratch));
            Ok(())
        })
    };
    let exact = noting(&DedupeConfig { exact: true, ..DedupeConfig::default() })?;
    let near = noting(&DedupeConfig { near: Some(Default::default()), ..DedupeConfig::default() })?;
    Ok(CpuSpeeds { tokenize, library: by_library, differing, exact, near })
}

/// Pieces of the text, about as long as pages are.
fn documents(config: &DataConfig) -> Result<Vec<String>, DataError> {
    let (mut all, mut bytes) = (Vec::new(), 0);
    for text in config.texts() {
        let corpus = Corpus::scan(&text, &mut |_| Ok(()))?;
        corpus.for_each(&mut |text, _| {
            let mut rest = text;
            while !rest.is_empty() && bytes < TEXT_BYTES_MAX {
                let enough = rest.floor_char_boundary(DOCUMENT_BYTES);
                let end = rest[enough..].find('\n').map_or(rest.len(), |at| enough + at + 1);
                let (document, after) = rest.split_at(end);
                all.push(document.to_owned());
                bytes += document.len();
                rest = after;
            }
            Ok(())
        })?;
    }
    Ok(all)
}

/// The speed of the second of two times.
fn speed(
    documents: &[String],
    mut work: impl FnMut(&str) -> Result<(), DataError>,
) -> Result<f64, DataError> {
    let mut seconds = 0.0;
    for _ in 0..2 {
        let before = cpu_seconds();
        documents.iter().try_for_each(|text| work(text))?;
        seconds = cpu_seconds() - before;
    }
    Ok(documents.iter().map(String::len).sum::<usize>() as f64 / seconds / 1e6)
}

/// User time of this thread.
fn cpu_seconds() -> f64 {
    // SAFETY: all zeros are a value of the structure, which the call fills.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage
    };
    usage.ru_utime.tv_sec as f64 + usage.ru_utime.tv_usec as f64 / 1e6
}
