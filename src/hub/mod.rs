//! Folders of Hugging Face's libraries, out and in: what a run has learned as a folder that
//! `transformers` loads, and such a folder as a run that can be trained.
//!
//! | Module | Holds |
//! |---|---|
//! | `gpt2`, `llama`, `bert` and others | a family: its names and its `config.json` |
//! | `families` | all of them, and which one a model is of |
//! | `table` | what the names come to for the parameters of a model |
//! | `keys`, `rope` | the keys of a `config.json` |
//! | `export` | a checkpoint to a folder |
//! | `source`, `llmc` | what is to be imported |
//! | `matching` | its tensors against those that the model must have |
//! | `import` | a run made of them |
//! | `opened` | such a folder, or a run, to look at |
//! | `vocabulary` | tokens that are added |
//! | `gguf` | a checkpoint to a file of llama.cpp's |
//! | `tensors`, `reading` | tensors of files, found and read |
//! | `record` | what a run keeps of the folder that it was imported from |
//! | `staging` | a folder that appears whole or not at all |
//! | `card`, `tokenizer`, `special` | what stands beside the tensors |
//!
//! A family that is added brings its file, one line in `families`, and its cases in
//! `scripts/hub_parity`.

mod bert;
mod card;
mod electra;
mod export;
mod families;
mod gguf;
mod gpt2;
mod import;
mod keys;
mod llama;
mod llmc;
mod matching;
mod mistral;
mod opened;
mod qwen2;
mod qwen3;
mod reading;
mod record;
mod rope;
mod source;
mod special;
mod staging;
mod table;
mod tensors;
#[cfg(test)]
mod tests;
mod tokenizer;
mod vocabulary;

pub use export::{Export, Exported, Form, export};
pub use gguf::GgmlType;
pub use import::{Import, Imported, import};
pub use opened::Opened;
pub(crate) use record::FOLDER;
pub use record::{Chat, chat, check};
