//! The stage that takes out what stands in the data more than once.
//!
//! Duty: reads the documents of all sources, once for what goes as a whole and once more if parts
//! go, decides, and writes what is left. Decisions are found again after a kill; documents that
//! were written stay. Ownership: `dedupe.json` and `contamination.jsonl`, which stay beside the
//! shards. Prohibition: decides nothing itself.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::json;

use super::{Done, Output, Stages};
use crate::data::clean::{CleanChain, Cleaned, StepReport};
use crate::data::config::SourceConfig;
use crate::data::dedupe::documents::{Gone, Note, Scratch, Search};
use crate::data::dedupe::passages::{PartSearch, PartsGone, without};
use crate::data::dedupe::{DedupeConfig, Samples};
use crate::data::error::DataError;
use crate::data::ordered::Ordered;
use crate::data::prepare::{Stage, Watch};
use crate::data::source::parts::Part;
use crate::data::source::spool::Block;
use crate::data::source::{Corpus, PartCount, Piece};

/// Counts and clusters.
const REPORT: &str = "dedupe.json";
/// The ending of a report that is not whole; what ends like this is removed at the next start.
const UNFINISHED: &str = "tmp";
/// A line for each document and evaluation sample that touch.
const CONTAMINATION: &str = "contamination.jsonl";
/// The step's name in reports.
const STEP: &str = "dedupe";
/// A block of so many bytes is worth packing by itself.
const BLOCK_BYTES: usize = 256 << 10;

/// Whether a file beside the documents is one of this stage's.
pub(super) fn is_ours(name: &Path) -> bool {
    name == Path::new(REPORT) || name == Path::new(CONTAMINATION)
}

/// What documents are held against, and where they came from.
pub(in crate::data::prepare) struct Against<'a> {
    pub(in crate::data::prepare) config: &'a DedupeConfig,
    /// The evaluation sets.
    pub(in crate::data::prepare) sets: Option<&'a Corpus>,
    /// The names of the files of each source.
    pub(in crate::data::prepare) files: &'a [Vec<String>],
}

/// A source of whole documents.
struct Input {
    source: String,
    corpus: Corpus,
    before: Done,
    /// The number of its first document.
    first: u64,
    /// The name of what is left of it.
    output: String,
}

/// What is decided.
struct Decided {
    gone: Gone,
    /// Evaluation samples, and how many of these are too short to be looked for.
    samples: Option<(u32, u64)>,
    parts: Option<PartsGone>,
}

impl Stages<'_> {
    /// Takes what is repeated out of all sources together.
    ///
    /// # Errors
    /// Any [`DataError`].
    pub(in crate::data::prepare) fn dedupe(
        &mut self,
        against: &Against<'_>,
        texts: &[SourceConfig],
        cleaned: Vec<(Corpus, Done)>,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<(Corpus, Done)>, DataError> {
        if against.config.is_empty() {
            return Ok(cleaned);
        }
        let inputs = self.whole_documents(texts, cleaned, watch)?;
        let is_done =
            |input: &Input| self.state.stages.get(&input.output).is_some_and(|done| done.whole);
        // The report comes last: whoever was killed before it decides again, and writes it.
        if !inputs.iter().all(is_done) || !self.folder.join(REPORT).exists() {
            let decided = self.decide(against, &inputs, watch)?;
            for input in &inputs {
                self.rewrite(input, &decided, watch)?;
            }
            self.report(against, &decided, &inputs)?;
        }
        let made = |input: Input| {
            let Input { corpus, mut before, output, .. } = input;
            let done = self.state.stages.get(&output).cloned().unwrap_or_default();
            let mut spooled = done.spooled.clone().expect("a whole stage has an output");
            spooled.path = self.path(&output);
            before.steps.extend(done.steps);
            (corpus.replaced(&spooled), before)
        };
        Ok(inputs.into_iter().map(made).collect())
    }

    /// All sources as whole documents on the disk.
    fn whole_documents(
        &mut self,
        texts: &[SourceConfig],
        cleaned: Vec<(Corpus, Done)>,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Input>, DataError> {
        let (mut inputs, mut first) = (Vec::with_capacity(cleaned.len()), 0);
        for (text, (corpus, before)) in texts.iter().zip(cleaned) {
            let (corpus, before) = match before.spooled {
                Some(_) => (corpus, before),
                None => {
                    let (name, total) = (format!("{}-whole", text.name), corpus.bytes);
                    self.clean(&name, &CleanChain::default(), &corpus, &mut |done| {
                        watch.tell(Stage::Dedupe, done, total)
                    })?
                }
            };
            let documents = before.spooled.as_ref().map_or(0, |spooled| spooled.documents);
            let (source, output) = (text.name.clone(), format!("{}-{STEP}", text.name));
            inputs.push(Input { source, corpus, before, first, output });
            first += documents;
        }
        Ok(inputs)
    }

    fn decide(
        &self,
        against: &Against<'_>,
        inputs: &[Input],
        watch: &mut Watch<'_>,
    ) -> Result<Decided, DataError> {
        let config = against.config;
        let mut touches = Touches::create(&self.folder.join(CONTAMINATION), against)?;
        let samples = touches.samples()?;
        let counts = samples.as_ref().map(|samples| (samples.len(), samples.too_short()));
        let (questions, mut search) = Search::open(config, samples, self.folder)?;
        for (number, input) in inputs.iter().enumerate() {
            let corpus = &input.corpus;
            let worker = || {
                let (questions, mut scratch) = (&questions, Scratch::default());
                move |part: &Part| {
                    let mut notes: Vec<(Note, usize, u64)> = Vec::new();
                    corpus.documents(part, &mut |piece| {
                        let note = questions.note(piece.text, &mut scratch);
                        notes.push((note, piece.file, piece.offset));
                        Ok(())
                    })?;
                    Ok(notes)
                }
            };
            self.over(corpus, 0).run(&worker, &mut |notes, done| {
                for (note, file, offset) in notes.into_iter().flatten() {
                    touches.write((number, &input.source), (file, offset), &note)?;
                    search.push(&note)?;
                }
                watch.tell(Stage::Dedupe, done, corpus.bytes)
            })?;
        }
        touches.finish()?;
        let gone = search.find(self.threads)?;
        let parts = match config.cuts() {
            true => Some(self.decide_parts(config, &gone, inputs, watch)?),
            false => None,
        };
        Ok(Decided { gone, samples: counts, parts })
    }

    fn decide_parts(
        &self,
        config: &DedupeConfig,
        gone: &Gone,
        inputs: &[Input],
        watch: &mut Watch<'_>,
    ) -> Result<PartsGone, DataError> {
        let (questions, mut search) = PartSearch::new(config, self.folder);
        let holds_texts = search.holds_texts();
        for input in inputs {
            let corpus = &input.corpus;
            let worker = || {
                let questions = &questions;
                move |part: &Part| {
                    let mut number = input.first + part.first_document;
                    let mut notes = Vec::new();
                    corpus.documents(part, &mut |piece| {
                        notes.push(gone.reason(number).is_none().then(|| {
                            let text = if holds_texts { piece.text } else { "" };
                            (text.to_owned(), questions.note(piece.text))
                        }));
                        number += 1;
                        Ok(())
                    })?;
                    Ok(notes)
                }
            };
            self.over(corpus, 0).run(&worker, &mut |notes, done| {
                for note in notes.iter().flatten() {
                    search.push(note.as_ref().map(|(text, note)| (text.as_str(), note)))?;
                }
                watch.tell(Stage::Dedupe, done, corpus.bytes)
            })?;
        }
        search.find(self.threads)
    }

    /// Writes what is left of a source.
    fn rewrite(
        &mut self,
        input: &Input,
        decided: &Decided,
        watch: &mut Watch<'_>,
    ) -> Result<(), DataError> {
        let corpus = &input.corpus;
        let mut output = Output::open(self, &input.output)?;
        if output.done.whole {
            return Ok(());
        }
        if output.done.steps.is_empty() {
            output.done.steps = vec![StepReport::new(STEP)];
        }
        let ordered = self.over(corpus, output.done.parts);
        let worker = || move |part: &Part| decided.left(input, part);
        ordered.run(&worker, &mut |left, done| {
            if let Some(left) = left {
                output.take(left)?;
                if output.since >= self.remember_bytes {
                    output.remember(self)?;
                }
            }
            watch.tell(Stage::Dedupe, done, corpus.bytes)
        })?;
        output.done.whole = true;
        output.remember(self)
    }

    fn over<'c>(&self, corpus: &'c Corpus, skip: u64) -> Ordered<'c> {
        // What a stage has written is in whole documents.
        Ordered { corpus, cut: &|_| None, threads: self.threads, skip }
    }

    fn report(
        &self,
        against: &Against<'_>,
        decided: &Decided,
        inputs: &[Input],
    ) -> Result<(), DataError> {
        let step = |input: &Input| self.state.stages[&input.output].steps.clone();
        let sources =
            inputs.iter().map(|input| json!({ "name": input.source, "steps": step(input) }));
        let report = json!({
            "settings": against.config,
            "near_cluster_sizes_log2": decided.gone.cluster_sizes,
            "near_duplicates_of_earlier_data": decided.gone.in_indexes,
            "evaluation_samples": decided.samples.map(|(samples, _)| samples),
            "evaluation_samples_too_short": decided.samples.map(|(_, short)| short),
            "sources": sources.collect::<Vec<_>>(),
        });
        let path = self.folder.join(REPORT);
        let text = serde_json::to_vec_pretty(&report).expect("a report is valid JSON");
        let unfinished = path.with_extension(UNFINISHED);
        std::fs::write(&unfinished, text).map_err(DataError::io(&unfinished, "write"))?;
        std::fs::rename(&unfinished, &path).map_err(DataError::io(&path, "rename"))
    }
}

impl Decided {
    /// What is left of the documents of a part.
    fn left(&self, input: &Input, part: &Part) -> Result<Cleaned, DataError> {
        let (mut block, mut report) = (Block::default(), StepReport::new(STEP));
        let mut number = input.first + part.first_document;
        let mut left = String::new();
        input.corpus.documents(part, &mut |piece| {
            let Piece { text, file, offset, .. } = piece;
            let ranges = match (self.gone.reason(number), &self.parts) {
                (Some(reason), _) => {
                    report.drop(reason, text, file, offset);
                    number += 1;
                    return Ok(());
                }
                (None, Some(parts)) => parts.ranges(number, text),
                (None, None) => Vec::new(),
            };
            number += 1;
            left.clear();
            without(text, &ranges, &mut left);
            if left.trim().is_empty() {
                report.drop("nothing_left", text, file, offset);
                return Ok(());
            }
            report.kept(text.len(), left.len(), !ranges.is_empty());
            block.push(&Piece { text: &left, ..piece });
            Ok(())
        })?;
        let large = block.text_bytes() >= BLOCK_BYTES;
        let packed = if large { block.pack() } else { None };
        Ok(Cleaned { packed, block, reports: vec![report], passed_over: PartCount::default() })
    }
}

/// The report of documents and evaluation samples that touch.
struct Touches<'a> {
    against: &'a Against<'a>,
    /// The file and the place in it of each sample.
    samples: Vec<(usize, u64)>,
    file: Option<BufWriter<File>>,
}

impl<'a> Touches<'a> {
    fn create(path: &Path, against: &'a Against<'a>) -> Result<Self, DataError> {
        let file = match against.sets {
            Some(_) => Some(File::create(path).map_err(DataError::io(path, "create"))?),
            None => None,
        };
        Ok(Self { against, samples: Vec::new(), file: file.map(BufWriter::new) })
    }

    /// Reads the evaluation sets.
    fn samples(&mut self) -> Result<Option<Samples>, DataError> {
        let (Some(sets), Some(config)) = (self.against.sets, &self.against.config.decontaminate)
        else {
            return Ok(None);
        };
        let mut texts: Vec<String> = Vec::new();
        let mut count = PartCount::default();
        sets.for_each_part(&|_| None, &mut || Ok(Part::default()), &mut |part| {
            let read = sets.documents(&part, &mut |piece| {
                match texts.last_mut().filter(|_| !piece.begins) {
                    Some(last) => last.push_str(piece.text),
                    None => {
                        texts.push(piece.text.to_owned());
                        self.samples.push((piece.file, piece.offset));
                    }
                }
                Ok(())
            })?;
            count.add(&read);
            Ok(())
        })?;
        sets.check_bad(&count, true)?;
        Ok(Some(Samples::new(config.words, texts.iter())))
    }

    fn write(
        &mut self,
        (number, source): (usize, &str),
        (file, offset): (usize, u64),
        note: &Note,
    ) -> Result<(), DataError> {
        let (Some(out), Some(sets)) = (&mut self.file, self.against.sets) else { return Ok(()) };
        for touch in &note.touched {
            let (set, at) = self.samples[touch.sample as usize];
            let line = json!({
                "source": source,
                "file": self.against.files[number].get(file),
                "offset": offset,
                "evaluation_file": sets.files[set].name,
                "evaluation_offset": at,
                "sequences": touch.sequences,
            });
            let path = Path::new(CONTAMINATION);
            writeln!(out, "{line}").map_err(DataError::io(path, "write"))?;
        }
        Ok(())
    }

    fn finish(self) -> Result<(), DataError> {
        let Some(mut file) = self.file else { return Ok(()) };
        file.flush().map_err(DataError::io(Path::new(CONTAMINATION), "write"))
    }
}

#[cfg(test)]
mod tests;
