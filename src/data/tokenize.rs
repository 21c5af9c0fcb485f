//! Text to token ids and back.
//!
//! Duty: one [`Tokenizer`] for the spellings of `data.tokenizer`, saved so that a run needs
//! neither the text nor the original file again. A folder gets `tokenizer.json` (Hugging Face's
//! format, for every kind), `octet_tokenizer.json` (which kind it is) and, for a file of ranks,
//! `ranks.tiktoken`.
//! Text never becomes a special token, whatever it spells: only the end of a document, added
//! between documents, does. Prohibition: reads no corpus; `prepare` brings the text.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::DataError;
use byte_pairs::Memory;
use characters::Characters;
use hugging_face::HuggingFace;
use tiktoken::Tiktoken;

pub mod bpe;
mod byte_pairs;
mod characters;
mod classes;
mod foreign_files;
mod hugging_face;
mod merges;
pub mod pattern;
mod split;
mod tiktoken;
mod word_cache;

/// What the end of a document is called, in order of preference.
const ENDS_OF_DOCUMENT: [&str; 4] = ["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"];
/// The file of ranks of a tokenizer that was one.
const RANKS_FILE: &str = "ranks.tiktoken";
/// The file with the kind of tokenizer.
const KIND_FILE: &str = "octet_tokenizer.json";
/// The file in Hugging Face's format.
const HUGGING_FACE_FILE: &str = "tokenizer.json";
/// Bytes of a tokenizer file; those of the largest vocabularies that are published have 40 million.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Ids that no token has, beside as many as there are tokens.
const IDS_UNUSED_MAX: usize = 4096;
/// Most names in a sentence about them.
const NAMES_MAX: usize = 8;
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
    Tiktoken(Box<Tiktoken>),
}

/// What the configuration says of a tokenizer beside its name.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenizerOptions<'a> {
    /// `data.split`.
    pub split: Option<&'a str>,
    /// `data.end_of_document`.
    pub end_of_document: Option<&'a str>,
}

/// What stands in [`KIND_FILE`].
#[derive(Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Saved {
    Bytes,
    Characters { characters: String, end_of_document: bool },
    HuggingFace { end_of_document: Option<String> },
    Tiktoken { name: String, split: Option<String>, end_of_document: Option<String> },
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
    /// Those of `poll`.
    pub fn train_bpe(
        size: usize,
        sample: &[String],
        end_of_document: Option<&str>,
        poll: &mut dyn FnMut() -> Result<(), DataError>,
    ) -> Result<Self, DataError> {
        let name = PathBuf::from(format!("bpe:{size}"));
        let end = end_of_document.unwrap_or(bpe::END_OF_DOCUMENT);
        let json = bpe::train(size, sample, end, poll)?;
        Self::from_json(&name, json, Some(end))
    }

    /// Reads a `tokenizer.json`, a file of ranks, a SentencePiece `.model`, a vocabulary of
    /// WordPiece, or a folder that holds a `tokenizer.json` or what [`Tokenizer::save`] wrote.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] if there is none or it makes no sense, [`DataError::Io`].
    pub fn from_file(path: &Path, options: TokenizerOptions<'_>) -> Result<Self, DataError> {
        if path.join(KIND_FILE).is_file() {
            let given =
                [("data.split", options.split), ("data.end_of_document", options.end_of_document)];
            if let Some((key, _)) = given.iter().find(|(_, value)| value.is_some()) {
                let folder = path.display();
                let problem = format!("expected nothing beside {folder}, which already says it");
                return Err(DataError::Config { key, problem });
            }
            return Self::load(path);
        }
        let path = if path.is_dir() { path.join(HUGGING_FACE_FILE) } else { path.to_owned() };
        let file = read_file(&path)?;
        if Tiktoken::recognises(&file) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            return Self::from_ranks(&path, &name, file, options);
        }
        if options.split.is_some() {
            let problem =
                format!("expected only beside a file of ranks; {} is none", path.display());
            return Err(DataError::Config { key: "data.split", problem });
        }
        let json = match foreign_files::to_json(&file) {
            Some(json) => json.map_err(|reason| {
                let path = path.clone();
                DataError::Tokenizer { path, reason }
            })?,
            None => file,
        };
        Self::from_json(&path, json, options.end_of_document)
    }

    /// Reads the bytes of a `tokenizer.json`; the path is for errors only. `end` is
    /// `data.end_of_document`.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] if they make no sense.
    pub(crate) fn from_json(
        path: &Path,
        json: Vec<u8>,
        end: Option<&str>,
    ) -> Result<Self, DataError> {
        let tokenizer = HuggingFace::new(json, end)
            .map_err(|reason| DataError::Tokenizer { path: path.to_owned(), reason })?;
        Ok(Self { kind: Kind::HuggingFace(Box::new(tokenizer)) })
    }

    fn from_ranks(
        path: &Path,
        name: &str,
        ranks: Vec<u8>,
        options: TokenizerOptions<'_>,
    ) -> Result<Self, DataError> {
        let tokenizer = Tiktoken::new(name, ranks, options.split, options.end_of_document)
            .map_err(|reason| DataError::Tokenizer { path: path.to_owned(), reason })?;
        Ok(Self { kind: Kind::Tiktoken(Box::new(tokenizer)) })
    }

    /// An encoder with its own memory of words: keep one per thread.
    pub fn encoder(&self) -> Encoder<'_> {
        let memory = match &self.kind {
            Kind::HuggingFace(tokenizer) => tokenizer.fast().map(|_| Memory::new()),
            Kind::Tiktoken(_) => Some(Memory::new()),
            Kind::Bytes | Kind::Characters(_) => None,
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
            Kind::Tiktoken(tokenizer) => tokenizer.encode(None, text, tokens),
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
            Kind::Tiktoken(tokenizer) => tokenizer.decode_bytes(tokens),
        }
    }

    /// UTF-8 bytes of text that each token stands for inside a document: the end of a document has
    /// none. Where decoding depends on what stands before, those of the token behind another.
    pub fn token_bytes(&self) -> Vec<u32> {
        let length = |token| match &self.kind {
            Kind::HuggingFace(tokenizer) => tokenizer.bytes_inside(token),
            _ => self.decode_bytes(&[token]).len(),
        };
        (0..self.vocabulary() as u32).map(|token| length(token) as u32).collect()
    }

    /// True if decoding a part of a document's tokens gives exactly that part's bytes.
    pub fn is_byte_exact(&self) -> bool {
        match &self.kind {
            Kind::Bytes | Kind::Characters(_) | Kind::Tiktoken(_) => true,
            Kind::HuggingFace(tokenizer) => tokenizer.is_byte_exact(),
        }
    }

    /// What its file asks for and does not get, as a sentence.
    pub fn note(&self) -> Option<&'static str> {
        match &self.kind {
            Kind::HuggingFace(tokenizer) if tokenizer.drops_merges() => Some(
                "the tokenizer's file asks for dropout, which is switched off: the same text has \
                 the same tokens",
            ),
            _ => None,
        }
    }

    /// One more than the largest token id.
    pub fn vocabulary(&self) -> usize {
        match &self.kind {
            Kind::Bytes => 257,
            Kind::Characters(characters) => characters.vocabulary(),
            Kind::HuggingFace(tokenizer) => tokenizer.vocabulary(),
            Kind::Tiktoken(tokenizer) => tokenizer.vocabulary(),
        }
    }

    /// The token behind every document, if this tokenizer has one.
    pub fn end_of_document(&self) -> Option<u32> {
        match &self.kind {
            Kind::Bytes => Some(BYTES_END_OF_DOCUMENT),
            Kind::Characters(characters) => characters.end_of_document(),
            Kind::HuggingFace(tokenizer) => tokenizer.end_of_document().map(|(_, id)| id),
            Kind::Tiktoken(tokenizer) => tokenizer.end_of_document().map(|(_, id)| id),
        }
    }

    /// The special token of this name, if this tokenizer has one.
    pub fn id_of(&self, name: &str) -> Option<u32> {
        match &self.kind {
            Kind::Bytes | Kind::Characters(_) | Kind::Tiktoken(_) => None,
            Kind::HuggingFace(tokenizer) => tokenizer.special(name),
        }
    }

    /// Whether it has a token of this name that is no special one: a text may spell it.
    pub fn spells(&self, name: &str) -> bool {
        match &self.kind {
            // Their tokens are shorter than any name.
            Kind::Bytes | Kind::Characters(_) => false,
            Kind::HuggingFace(tokenizer) => tokenizer.spells(name),
            Kind::Tiktoken(tokenizer) => (0..tokenizer.vocabulary() as u32)
                .any(|token| tokenizer.decode_bytes(&[token]) == name.as_bytes()),
        }
    }

    /// The last place at which `text` may be cut without changing a token, whatever follows it;
    /// `None` if there is none, or if it is not known.
    pub fn last_cut(&self, text: &str) -> Option<usize> {
        match &self.kind {
            Kind::Bytes | Kind::Characters(_) => Some(text.len()),
            Kind::HuggingFace(tokenizer) => tokenizer.fast()?.splitter.last_cut(text),
            Kind::Tiktoken(tokenizer) => tokenizer.fast().splitter.last_cut(text),
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
                hasher.update(b"octet hugging face 2");
                let end = tokenizer.end_of_document().map_or(u32::MAX, |(_, id)| id);
                hasher.update(&end.to_le_bytes());
                hasher.update(tokenizer.json())
            }
            Kind::Tiktoken(tokenizer) => {
                hasher.update(b"octet tiktoken 1");
                let regex = tokenizer.pattern().regex();
                hasher.update(&(regex.len() as u64).to_le_bytes()).update(regex.as_bytes());
                let end = tokenizer.end_of_document().map_or(u32::MAX, |(_, id)| id);
                hasher.update(&end.to_le_bytes());
                hasher.update(&(tokenizer.vocabulary() as u64).to_le_bytes());
                hasher.update(tokenizer.ranks())
            }
        };
        *hasher.finalize().as_bytes()
    }

    /// Writes its files into `folder`, which must exist.
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
            Kind::HuggingFace(tokenizer) => Saved::HuggingFace {
                end_of_document: tokenizer.end_of_document().map(|(name, _)| name.to_owned()),
            },
            Kind::Tiktoken(tokenizer) => {
                let path = folder.join(RANKS_FILE);
                fs::write(&path, tokenizer.ranks()).map_err(DataError::io(&path, "write"))?;
                let (name, split) = tokenizer.given();
                Saved::Tiktoken {
                    name: name.to_owned(),
                    split: split.map(str::to_owned),
                    end_of_document: tokenizer.end_of_document().map(|(end, _)| end.to_owned()),
                }
            }
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
                let path = folder.join(HUGGING_FACE_FILE);
                return Self::from_file(&path, TokenizerOptions::default());
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
            Saved::HuggingFace { end_of_document: end } => {
                let options = TokenizerOptions { end_of_document: end.as_deref(), split: None };
                Self::from_file(&folder.join(HUGGING_FACE_FILE), options)
            }
            Saved::Tiktoken { name, split, end_of_document: end } => {
                let options =
                    TokenizerOptions { end_of_document: end.as_deref(), split: split.as_deref() };
                let path = folder.join(RANKS_FILE);
                let ranks = fs::read(&path).map_err(DataError::io(&path, "read"))?;
                Self::from_ranks(&path, &name, ranks, options)
            }
        }
    }

    /// The same tokenizer as a Hugging Face `tokenizer.json`, for every kind.
    pub fn hugging_face_json(&self) -> Vec<u8> {
        match &self.kind {
            Kind::Bytes => bpe::bytes_json(),
            Kind::Characters(characters) => characters.hugging_face_json(),
            Kind::HuggingFace(tokenizer) => tokenizer.json().to_vec(),
            Kind::Tiktoken(tokenizer) => tokenizer.hugging_face_json(),
        }
    }
}

/// Encodes many texts with one [`Tokenizer`], remembering frequent words.
pub struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    memory: Option<Memory>,
}

impl Encoder<'_> {
    /// The tokenizer that it encodes with.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.tokenizer
    }

    /// As [`Tokenizer::encode`]: the same tokens, faster.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode(&mut self, text: &str, tokens: &mut Vec<u32>) -> Result<(), DataError> {
        match (&self.tokenizer.kind, &mut self.memory) {
            (Kind::HuggingFace(tokenizer), Some(memory)) => {
                tokenizer.encode_with(memory, text, tokens)
            }
            (Kind::Tiktoken(tokenizer), memory) => tokenizer.encode(memory.as_mut(), text, tokens),
            _ => self.tokenizer.encode(text, tokens),
        }
    }
}

/// The bytes of a tokenizer file.
fn read_file(path: &Path) -> Result<Vec<u8>, DataError> {
    let refuse = |reason: String| Err(DataError::Tokenizer { path: path.to_owned(), reason });
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            refuse("there is no such file".to_owned())
        }
        Err(error) => Err(DataError::io(path, "read")(error)),
        // Reading a pipe may take for ever.
        Ok(file) if !file.is_file() => refuse("expected a file".to_owned()),
        Ok(file) if file.len() > FILE_BYTES_MAX => {
            let (got, most) = (file.len(), FILE_BYTES_MAX);
            refuse(format!("expected at most {most} bytes, got {got}"))
        }
        Ok(_) => fs::read(path).map_err(DataError::io(path, "read")),
    }
}

/// Refuses ids that would make tables of nothing: models have a row for every number.
fn check_ids(tokens: usize, last: u32) -> Result<(), String> {
    let most = 2 * tokens + IDS_UNUSED_MAX;
    if last as usize > most {
        return Err(format!(
            "expected ids up to {most} at most of a vocabulary of {tokens} tokens, got {last}"
        ));
    }
    Ok(())
}

/// The token behind every document: the special token called `wanted`, or the first of the usual
/// names. `id_of` finds every other token; of these only what has a usual name counts, for a word
/// that is learned stands in texts too.
fn end_of_document(
    wanted: Option<&str>,
    specials: &[(u32, String)],
    id_of: &dyn Fn(&str) -> Option<u32>,
) -> Result<Option<(String, u32)>, String> {
    let special = |name: &str| specials.iter().find(|(_, one)| one == name).map(|&(id, _)| id);
    let find = |name: &str| {
        let usual = || if ENDS_OF_DOCUMENT.contains(&name) { id_of(name) } else { None };
        special(name).or_else(usual).map(|id| (name.to_owned(), id))
    };
    let Some(name) = wanted else {
        return Ok(ENDS_OF_DOCUMENT.iter().find_map(|name| find(name)));
    };
    let found = find(name);
    if found.is_none() {
        let names = specials.iter().take(NAMES_MAX).map(|(_, name)| format!("\"{name}\""));
        let names = names.collect::<Vec<_>>().join(", ");
        let known = match specials.len() {
            0 => "it has none".to_owned(),
            1..=NAMES_MAX => format!("it has {names}"),
            more => format!("it has {names} and {} more", more - NAMES_MAX),
        };
        let got = match id_of(name) {
            Some(_) => format!("\"{name}\" is a learned word, which texts hold too"),
            None => format!("got \"{name}\""),
        };
        return Err(format!(
            "data.end_of_document: expected one of its special tokens ({known}), {got}"
        ));
    }
    Ok(found)
}

#[cfg(test)]
pub(super) mod tests;
