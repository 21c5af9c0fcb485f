//! Stages over documents, between reading and tokenizing.
//!
//! Duty: takes every source through its chain of steps onto the disk, from where the next stage
//! reads it. What is done is remembered every so often beside the documents, so that a preparation
//! that was killed goes on. Ownership: `chain.json` and the documents in the folder of unfinished
//! files; a stage removes its input when its output is whole. Limits: the documents lie on the
//! disk once, compressed, and twice while a stage rewrites them. Prohibition: no result depends on
//! where a preparation was killed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Stage, Watch};
use crate::data::clean::{Chain, CleanChain, Cleaned, Document, StepReport};
use crate::data::config::SourceConfig;
use crate::data::error::DataError;
use crate::data::ordered::{Ordered, threads};
use crate::data::source::parts::Part;
use crate::data::source::spool::{Block, SpoolWriter, Spooled};
use crate::data::source::{Corpus, PartCount};

pub(super) mod dedupe;

const STATE_FILE: &str = "chain.json";
const EXTENSION: &str = "documents";
/// Bytes of text between two times that what is done is remembered.
const REMEMBER_BYTES: u64 = 64 << 20;
/// Documents of small parts are packed together up to so many bytes.
const BLOCK_BYTES: usize = 256 << 10;

/// What is known of a stage of one source.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(super) struct Done {
    /// Parts of its input that are in its output.
    pub(super) parts: u64,
    /// Its output so far.
    pub(super) spooled: Option<Spooled>,
    /// Whether that is all.
    pub(super) whole: bool,
    /// What each step did.
    pub(super) steps: Vec<StepReport>,
    /// Records that were no documents.
    pub(super) passed_over: PartCount,
}

/// `chain.json`.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct State {
    key: String,
    /// By the name of the output.
    stages: BTreeMap<String, Done>,
}

/// The stages of a preparation, and where they lie.
pub(super) struct Stages<'a> {
    folder: &'a Path,
    state: State,
    threads: usize,
    /// Bytes of text between two times that what is done is remembered.
    remember_bytes: u64,
}

/// Whether what lies in a folder of unfinished files belongs to a preparation with this key.
pub(super) fn belongs(folder: &Path, key: &str) -> bool {
    read(folder).is_some_and(|state| state.key == key)
}

/// Whether a file in that folder is one of this module's.
pub(super) fn is_ours(name: &Path) -> bool {
    name == Path::new(STATE_FILE)
        || name.extension().is_some_and(|end| end == EXTENSION)
        || dedupe::is_ours(name)
}

fn read(folder: &Path) -> Option<State> {
    serde_json::from_slice(&fs::read(folder.join(STATE_FILE)).ok()?).ok()
}

impl<'a> Stages<'a> {
    /// Finds what was done before with the same key.
    pub(super) fn open(folder: &'a Path, key: &str) -> Self {
        let state = read(folder).filter(|state| state.key == key);
        let state = state.unwrap_or_else(|| State { key: key.to_owned(), ..State::default() });
        Self { folder, state, threads: threads(), remember_bytes: REMEMBER_BYTES }
    }

    /// Cleans every source that has a chain. A stage over the documents of all sources, as is
    /// deduplication, takes what this gives and gives the like.
    ///
    /// # Errors
    /// Any [`DataError`].
    pub(super) fn run(
        &mut self,
        texts: &[SourceConfig],
        corpora: Vec<Corpus>,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<(Corpus, Done)>, DataError> {
        let total = corpora.iter().map(|corpus| corpus.bytes).sum();
        let mut before = 0;
        let mut made = Vec::with_capacity(corpora.len());
        for (text, corpus) in texts.iter().zip(corpora) {
            let bytes = corpus.bytes;
            let cleaned = match &text.clean {
                Some(clean) if !clean.is_empty() => {
                    self.clean_all(&text.name, clean, corpus, &mut |done| {
                        watch.tell(Stage::Clean, before + done, total)
                    })?
                }
                _ => (corpus, Done::default()),
            };
            made.push(cleaned);
            before += bytes;
        }
        Ok(made)
    }

    /// Takes a corpus through all pieces of a chain; what all of them did.
    fn clean_all(
        &mut self,
        source: &str,
        clean: &CleanChain,
        mut corpus: Corpus,
        progress: &mut dyn FnMut(u64) -> Result<(), DataError>,
    ) -> Result<(Corpus, Done), DataError> {
        let pieces = clean.pieces();
        let name = |number: usize| format!("{source}-clean-{number}");
        let there = |number: &usize| self.is_whole(&name(*number));
        let begin = (0..pieces.len()).rev().find(there).map_or(0, |number| number + 1);
        let mut all = Done::default();
        for (number, piece) in pieces.iter().enumerate() {
            let done = match number < begin {
                true => self.state.stages.get(&name(number)).cloned().unwrap_or_default(),
                false => {
                    let done;
                    (corpus, done) = self.clean(&name(number), piece, &corpus, progress)?;
                    if number > 0 {
                        self.discard(&name(number - 1))?;
                    }
                    done
                }
            };
            if number + 1 == begin {
                corpus = corpus.replaced(&self.spooled(&name(number), &done));
            }
            all.passed_over.add(&done.passed_over);
            // What is in front of all is in front of the first piece only.
            all.steps.extend(done.steps.into_iter().skip(usize::from(number > 0)));
        }
        Ok((corpus, all))
    }

    /// Where the output of a whole stage lies: the folder may have moved.
    fn spooled(&self, name: &str, done: &Done) -> Spooled {
        let spooled = done.spooled.clone().expect("a whole stage has an output");
        Spooled { path: self.folder.join(format!("{name}.{EXTENSION}")), ..spooled }
    }

    /// Whether a stage is done and its output is there.
    fn is_whole(&self, name: &str) -> bool {
        self.state.stages.get(name).filter(|done| done.whole).is_some_and(|done| {
            let spooled = self.spooled(name, done);
            fs::metadata(&spooled.path).is_ok_and(|file| file.len() == spooled.bytes)
        })
    }

    /// Removes the documents of a stage that another has taken up. That it is whole stays known.
    fn discard(&self, name: &str) -> Result<(), DataError> {
        let path = self.folder.join(format!("{name}.{EXTENSION}"));
        let file = File::options().write(true).open(&path);
        file.and_then(|file| file.set_len(0)).map_err(DataError::io(&path, "write"))
    }

    /// Takes a corpus through a chain into the file `name`; gives that as a corpus.
    ///
    /// # Errors
    /// Any [`DataError`].
    pub(super) fn clean(
        &mut self,
        name: &str,
        clean: &CleanChain,
        corpus: &Corpus,
        progress: &mut dyn FnMut(u64) -> Result<(), DataError>,
    ) -> Result<(Corpus, Done), DataError> {
        let mut output = Output::open(self, name)?;
        if !output.done.whole {
            let chain = Chain::open(clean, corpus, &mut || progress(0))?;
            if output.done.steps.is_empty() {
                output.done.steps = chain.reports();
            }
            let threads = self.threads;
            let skip = output.done.parts;
            let ordered = Ordered { corpus, cut: &Chain::cut, threads, skip };
            let worker = || {
                let (chain, mut document) = (&chain, Document::default());
                move |part: &Part| chain.clean(corpus, part, &mut document)
            };
            ordered.run(&worker, &mut |cleaned, done| {
                if let Some(cleaned) = cleaned {
                    output.take(cleaned)?;
                    corpus.check_bad(&output.done.passed_over, false)?;
                    if output.since >= self.remember_bytes {
                        output.remember(self)?;
                    }
                }
                progress(done)
            })?;
            corpus.check_bad(&output.done.passed_over, true)?;
            output.done.whole = true;
            output.remember(self)?;
        }
        let done = output.done;
        let spooled = done.spooled.as_ref().expect("a whole stage has an output");
        Ok((corpus.replaced(spooled), done))
    }

    /// Where the output of a stage lies.
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.{EXTENSION}"))
    }

    fn save(&self) -> Result<(), DataError> {
        let path = self.folder.join(STATE_FILE);
        let temporary = self.folder.join("chain.tmp");
        let text = serde_json::to_vec(&self.state).expect("a state is valid JSON");
        File::create(&temporary)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_data()))
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(DataError::io(&path, "write"))
    }

    /// Removes the documents and what was known of them.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub(super) fn remove(self) -> Result<(), DataError> {
        let remove = |path: PathBuf| match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(DataError::io(&path, "remove")(error))
            }
            _ => Ok(()),
        };
        remove(self.folder.join(STATE_FILE))?;
        let outputs = self.state.stages.into_values().filter_map(|done| done.spooled);
        outputs.map(|spooled| spooled.path).try_for_each(remove)
    }
}

/// The output of a stage, and what is known of it.
struct Output {
    name: String,
    writer: SpoolWriter,
    done: Done,
    /// Documents of small parts, until they are worth packing.
    gathered: Block,
    /// Bytes of text since what is done was remembered.
    since: u64,
}

impl Output {
    fn open(stages: &Stages<'_>, name: &str) -> Result<Self, DataError> {
        let path = stages.path(name);
        let mut done = stages.state.stages.get(name).cloned().unwrap_or_default();
        // The folder may have moved.
        if let Some(spooled) = &mut done.spooled {
            spooled.path.clone_from(&path);
        }
        let there = fs::metadata(&path).map_or(0, |file| file.len());
        if done.spooled.as_ref().is_none_or(|spooled| there < spooled.bytes) {
            done = Done::default();
        }
        let writer = SpoolWriter::open(&path, done.spooled.as_ref())?;
        Ok(Self { name: name.to_owned(), writer, done, gathered: Block::default(), since: 0 })
    }

    fn take(&mut self, cleaned: Cleaned) -> Result<(), DataError> {
        let Cleaned { packed, mut block, reports, passed_over } = cleaned;
        match packed {
            Some(packed) => {
                self.flush()?;
                self.writer.push(&packed)?;
            }
            None => self.gathered.append(&mut block),
        }
        if self.gathered.text_bytes() >= BLOCK_BYTES {
            self.flush()?;
        }
        self.done.parts += 1;
        self.since += reports[0].bytes_in;
        self.done.steps.iter_mut().zip(&reports).for_each(|(sum, report)| sum.add(report));
        self.done.passed_over.add(&passed_over);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DataError> {
        self.gathered.pack().map_or(Ok(()), |packed| self.writer.push(&packed))
    }

    fn remember(&mut self, stages: &mut Stages<'_>) -> Result<(), DataError> {
        self.flush()?;
        self.done.spooled = Some(self.writer.sync()?);
        self.since = 0;
        stages.state.stages.insert(self.name.clone(), self.done.clone());
        stages.save()
    }
}

#[cfg(test)]
mod tests;
