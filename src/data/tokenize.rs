//! Text to token ids and back.
//!
//! Duty: one [`Tokenizer`] for the four spellings of `data.tokenizer`, saved so that a run
//! needs neither the text nor the original file again. A folder gets two files: `tokenizer.json`
//! (Hugging Face's format, for every kind) and `octet_tokenizer.json` (which kind it is).
//! Text never becomes a special token, whatever it spells: only the end of a document, added
//! between documents, does. Prohibition: reads no corpus; `prepare` brings the text.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::DataError;
use characters::Characters;
use hugging_face::{HuggingFace, Memory};

pub mod bpe;
mod characters;
mod hugging_face;
mod merges;
mod split;
mod word_cache;

/// The file with the kind of tokenizer.
const KIND_FILE: &str = "octet_tokenizer.json";
/// The file in Hugging Face's format.
const HUGGING_FACE_FILE: &str = "tokenizer.json";
/// The end of a document of the `bytes` tokenizer.
const BYTES_END_OF_DOCUMENT: u32 = 256;

/// A tokenizer; cheap to share between threads, which encode with one [`Encoder`] each.
pub struct Tokenizer {
    kind: Kind,
}

enum Kind {
    Bytes,
    Characters(Characters),
    HuggingFace(Box<HuggingFace>),
}

/// What stands in [`KIND_FILE`].
#[derive(Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Saved {
    Bytes,
    Characters { characters: String, end_of_document: bool },
    HuggingFace,
}

impl Tokenizer {
    /// One token per byte and one, 256, for the end of a document.
    pub fn bytes() -> Self {
        Self { kind: Kind::Bytes }
    }

    /// One token per distinct character of `alphabet`, in code point order, and one more for
    /// the end of a document if asked for.
    pub fn characters(alphabet: impl IntoIterator<Item = char>, end_of_document: bool) -> Self {
        Self { kind: Kind::Characters(Characters::new(alphabet, end_of_document)) }
    }

    /// Learns byte-level byte pairs from `sample`; see [`bpe::train`].
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] if the trainer gives up.
    pub fn train_bpe(size: usize, sample: &[String]) -> Result<Self, DataError> {
        let name = PathBuf::from(format!("bpe:{size}"));
        let json = bpe::train(size, sample)
            .map_err(|reason| DataError::Tokenizer { path: name.clone(), reason })?;
        Self::from_json(&name, json)
    }

    /// Reads a `tokenizer.json`, or the one in a folder.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] if there is none or it makes no sense, [`DataError::Io`].
    pub fn from_file(path: &Path) -> Result<Self, DataError> {
        let path = if path.is_dir() { path.join(HUGGING_FACE_FILE) } else { path.to_owned() };
        match fs::read(&path) {
            Ok(json) => Self::from_json(&path, json),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(DataError::Tokenizer { path, reason: "there is no such file".to_owned() })
            }
            Err(error) => Err(DataError::io(&path, "read")(error)),
        }
    }

    fn from_json(path: &Path, json: Vec<u8>) -> Result<Self, DataError> {
        let tokenizer = HuggingFace::new(json)
            .map_err(|reason| DataError::Tokenizer { path: path.to_owned(), reason })?;
        Ok(Self { kind: Kind::HuggingFace(Box::new(tokenizer)) })
    }

    /// An encoder with its own memory of words: keep one per thread.
    pub fn encoder(&self) -> Encoder<'_> {
        let memory = match &self.kind {
            Kind::HuggingFace(tokenizer) => tokenizer.memory(),
            _ => None,
        };
        Encoder { tokenizer: self, memory }
    }

    /// Appends the tokens of `text`, without an end of document. For more than a prompt use
    /// [`Tokenizer::encoder`], which gives the same tokens faster.
    ///
    /// # Errors
    /// [`DataError::UnknownCharacter`], or [`DataError::Tokenizer`] from a tokenizer file.
    pub fn encode(&self, text: &str, tokens: &mut Vec<u32>) -> Result<(), DataError> {
        match &self.kind {
            Kind::Bytes => {
                tokens.extend(text.bytes().map(u32::from));
                Ok(())
            }
            Kind::Characters(characters) => characters.encode(text, tokens),
            Kind::HuggingFace(tokenizer) => tokenizer.encode(text, tokens),
        }
    }

    /// The text of `tokens`; bytes that are not UTF-8 become U+FFFD, ends of documents nothing.
    pub fn decode(&self, tokens: &[u32]) -> String {
        String::from_utf8_lossy(&self.decode_bytes(tokens)).into_owned()
    }

    /// The bytes of `tokens`, which may end inside a character. Unknown ids give nothing.
    pub fn decode_bytes(&self, tokens: &[u32]) -> Vec<u8> {
        match &self.kind {
            Kind::Bytes => tokens.iter().filter_map(|&token| u8::try_from(token).ok()).collect(),
            Kind::Characters(characters) => characters.decode(tokens).into_bytes(),
            Kind::HuggingFace(tokenizer) => tokenizer.decode_bytes(tokens),
        }
    }

    /// True if decoding a part of a document's tokens gives exactly that part's bytes.
    pub fn is_byte_exact(&self) -> bool {
        match &self.kind {
            Kind::Bytes | Kind::Characters(_) => true,
            Kind::HuggingFace(tokenizer) => tokenizer.is_byte_exact(),
        }
    }

    /// One more than the largest token id.
    pub fn vocabulary(&self) -> usize {
        match &self.kind {
            Kind::Bytes => 257,
            Kind::Characters(characters) => characters.vocabulary(),
            Kind::HuggingFace(tokenizer) => tokenizer.vocabulary(),
        }
    }

    /// The token behind every document, if this tokenizer has one.
    pub fn end_of_document(&self) -> Option<u32> {
        match &self.kind {
            Kind::Bytes => Some(BYTES_END_OF_DOCUMENT),
            Kind::Characters(characters) => characters.end_of_document(),
            Kind::HuggingFace(tokenizer) => tokenizer.end_of_document(),
        }
    }

    /// blake3 of everything that decides which tokens a text gets.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        match &self.kind {
            Kind::Bytes => hasher.update(b"octet bytes 1"),
            Kind::Characters(characters) => {
                hasher.update(b"octet characters 1");
                hasher.update(&[u8::from(characters.end_of_document().is_some())]);
                hasher.update(characters.alphabet().as_bytes())
            }
            Kind::HuggingFace(tokenizer) => {
                hasher.update(b"octet hugging face 1");
                hasher.update(tokenizer.json())
            }
        };
        *hasher.finalize().as_bytes()
    }

    /// Writes the two files into `folder`, which must exist.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub fn save(&self, folder: &Path) -> Result<(), DataError> {
        let saved = match &self.kind {
            Kind::Bytes => Saved::Bytes,
            Kind::Characters(characters) => Saved::Characters {
                characters: characters.alphabet(),
                end_of_document: characters.end_of_document().is_some(),
            },
            Kind::HuggingFace(_) => Saved::HuggingFace,
        };
        let kind = serde_json::to_vec_pretty(&saved).expect("strings and flags are valid JSON");
        let path = folder.join(HUGGING_FACE_FILE);
        fs::write(&path, self.hugging_face_json()).map_err(DataError::io(&path, "write"))?;
        let path = folder.join(KIND_FILE);
        fs::write(&path, kind).map_err(DataError::io(&path, "write"))
    }

    /// Reads what [`Tokenizer::save`] wrote, or a folder with a `tokenizer.json` only.
    ///
    /// # Errors
    /// As [`Tokenizer::from_file`].
    pub fn load(folder: &Path) -> Result<Self, DataError> {
        let path = folder.join(KIND_FILE);
        let saved = match fs::read(&path) {
            Ok(saved) => saved,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Self::from_file(&folder.join(HUGGING_FACE_FILE));
            }
            Err(error) => return Err(DataError::io(&path, "read")(error)),
        };
        let saved = serde_json::from_slice(&saved)
            .map_err(|error| DataError::Tokenizer { path, reason: error.to_string() })?;
        match saved {
            Saved::Bytes => Ok(Self::bytes()),
            Saved::Characters { characters, end_of_document } => {
                Ok(Self::characters(characters.chars(), end_of_document))
            }
            Saved::HuggingFace => Self::from_file(&folder.join(HUGGING_FACE_FILE)),
        }
    }

    /// The same tokenizer as a Hugging Face `tokenizer.json`, for every kind.
    pub fn hugging_face_json(&self) -> Vec<u8> {
        match &self.kind {
            Kind::Bytes => bpe::bytes_json(),
            Kind::Characters(characters) => characters.hugging_face_json(),
            Kind::HuggingFace(tokenizer) => tokenizer.json().to_vec(),
        }
    }
}

/// Encodes many texts with one [`Tokenizer`], remembering frequent words.
pub struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    memory: Option<Memory>,
}

impl Encoder<'_> {
    /// As [`Tokenizer::encode`]: the same tokens, faster.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode(&mut self, text: &str, tokens: &mut Vec<u32>) -> Result<(), DataError> {
        match (&self.tokenizer.kind, &mut self.memory) {
            (Kind::HuggingFace(tokenizer), Some(memory)) => {
                tokenizer.encode_with(memory, text, tokens)
            }
            _ => self.tokenizer.encode(text, tokens),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
