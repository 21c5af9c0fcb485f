//! Data: text folders become tokens, tokens become checksummed shards, shards become samples in
//! an order that depends on nothing but the seed and the data.
//!
//! Duty: everything between `data.text` and the rows of a batch, in the order of the modules:
//! [`config`] names the sources, [`source`] reads documents, [`clean`] changes and drops some,
//! [`dedupe`] finds what stands there twice, [`tokenize`] turns them into token ids, [`shard`]
//! stores them, [`prepare`] runs these steps once and caches the result, [`report`] says what came
//! of it, [`stream`] reads shards as one sequence, [`order`] says which window is sample number i,
//! [`window`] fills the rows of one that is cut from the stream, [`packing`] of one that holds
//! whole documents, [`pairs`] places two texts, [`samples`] joins these for a split, and
//! [`mixture`] says which source a sample comes from. [`measure`] times the hot paths.
//! Ownership: the files below `data.cache`. Prohibition: no threads that outlive a call, no
//! device, no model; nothing here may depend on the number of ranks.

mod cargo;
pub mod clean;
pub mod config;
pub mod dedupe;
pub mod error;
pub mod measure;
pub mod mixture;
pub mod order;
mod ordered;
pub mod packing;
pub mod pairs;
pub mod prepare;
pub mod report;
pub mod samples;
pub mod shard;
pub mod source;
pub mod stream;
pub mod tokenize;
pub mod window;

pub use config::{DataConfig, Packing, SourceConfig, TextSpec, TokenizerSpec};
pub use error::DataError;
pub use mixture::Mixture;
pub use order::{SampleOrder, Windows};
pub use packing::WholeDocuments;
pub use pairs::Pair;
pub use prepare::{
    Counts, Prepared, PreparedSource, Progress, Stage, Watcher, of_shard, prepare, reopen,
    tokenizer_ahead,
};
pub use report::Report;
pub use samples::{Cut, SampleRule, Samples};
pub use shard::{Shard, ShardSummary, ShardWriter};
pub use source::{Corpus, Skipped};
pub use stream::TokenStream;
pub use tokenize::{Encoder, Tokenizer, TokenizerOptions};
pub use window::{IGNORED, WindowLayout, WindowRows, count_targets, fill_window};
