//! Many texts at once: every run reads the next tokens of all of them.
//!
//! Each text has one cached sequence. A run takes one row of everybody who goes on, then rows of
//! prompts, the longest-waiting first, as far as the program has rows: no text waits for another's
//! prompt. What a text says does not depend on who is beside it: its draws are its own, and a row
//! of a program has the same bits in any company.

use std::collections::VecDeque;

use octet_actors::contract::{Drive, Record, Results, Turn};
use octet_actors::fault::Fault;
use octet_kernels::graph::Program;

use crate::sampling::conversation::{Conversation, Listener, Request};
use crate::sampling::{Decoder, Inputs};

/// What comes next.
pub enum Next {
    /// A text to write.
    Text(Box<(Request, Listener)>),
    /// Nothing now.
    Nothing,
    /// Nothing any more.
    End,
}

/// Where texts come from. It is asked whenever there is a free sequence: if nothing is being
/// written, it may wait for a moment.
pub type Source = Box<dyn FnMut(Waiting) -> Next + Send>;

/// Whether anybody waits for the answer of a [`Source`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Other texts go on.
    Texts,
    /// Nobody.
    Nobody,
}

/// The texts that are being written.
pub struct Crowd {
    decoder: Decoder,
    step: u64,
    source: Source,
    ended: bool,
    /// By cached sequence.
    texts: Vec<Option<Conversation>>,
    /// Sequences in the order in which they had rows last, the longest-waiting first.
    queue: VecDeque<usize>,
    /// Of the run that is under way: sequence, its rows and its answers.
    under_way: Vec<(usize, usize, usize)>,
    logits: Vec<f32>,
}

impl Crowd {
    /// Texts of a model after so many steps.
    pub fn new(decoder: Decoder, step: u64, source: Source) -> Self {
        let texts = (0..decoder.sequences).map(|_| None).collect();
        let (queue, under_way, logits) = (VecDeque::new(), Vec::new(), Vec::new());
        Self { decoder, step, source, ended: false, texts, queue, under_way, logits }
    }

    /// Only this text.
    pub fn of_one(decoder: Decoder, step: u64, request: Request, listener: Listener) -> Self {
        let mut text = Some(Box::new((request, listener)));
        Self::new(decoder, step, Box::new(move |_| text.take().map_or(Next::End, Next::Text)))
    }

    /// Hands the answers of the last run to whom they belong.
    fn hear(&mut self, results: &dyn Results) -> Result<(), Fault> {
        let answers: usize = self.under_way.iter().map(|(_, _, answers)| answers).sum();
        results.read_rows("logits", answers, &mut self.logits)?;
        if let Some(cap) = self.decoder.softcap {
            self.logits.iter_mut().for_each(|z| *z = cap * (*z / cap).tanh());
        }
        let width = self.logits.len() / answers.max(1);
        let mut rest = &self.logits[..];
        for (sequence, rows, answers) in self.under_way.drain(..) {
            let (own, others) = rest.split_at(answers * width);
            rest = others;
            let Some(text) = &mut self.texts[sequence] else { continue };
            if !text.hear(rows, own, self.decoder.positions) {
                self.texts[sequence] = None;
                self.queue.retain(|&other| other != sequence);
            }
        }
        Ok(())
    }

    /// Lets texts begin while there are free sequences.
    fn welcome(&mut self) {
        while !self.ended
            && let Some(free) = self.texts.iter().position(Option::is_none)
        {
            let nobody = self.queue.is_empty();
            match (self.source)(if nobody { Waiting::Nobody } else { Waiting::Texts }) {
                Next::Text(text) => {
                    let (request, listener) = *text;
                    self.texts[free] = Some(Conversation::new(request, self.step, listener));
                    self.queue.push_back(free);
                }
                Next::Nothing => break,
                Next::End => self.ended = true,
            }
        }
    }

    /// Rows and answers of the next run: whoever needs one row has it first.
    fn share(&mut self) {
        let mut rows = self.decoder.rows;
        let unread = |texts: &[Option<Conversation>], sequence: usize| {
            texts[sequence].as_ref().map_or(0, |text| text.unread().0.len())
        };
        let mut order: Vec<usize> = self.queue.iter().copied().collect();
        // Stable: among equals the longest-waiting goes first.
        order.sort_by_key(|&sequence| unread(&self.texts, sequence) > 1);
        for sequence in order {
            let Some(text) = &self.texts[sequence] else { continue };
            let own = text.unread().0.len().min(rows);
            if own == 0 {
                break;
            }
            rows -= own;
            self.under_way.push((sequence, own, own.saturating_sub(text.first_answer())));
            self.queue.retain(|&other| other != sequence);
            self.queue.push_back(sequence);
        }
    }

    fn write(&self, program: &Program, record: &mut Record<'_>) {
        let rows: usize = self.under_way.iter().map(|(_, rows, _)| rows).sum();
        let answers: usize = self.under_way.iter().map(|(_, _, answers)| answers).sum();
        let [tokens, positions, sequences, picked, live, answered] =
            record.fields::<i32, 6>(program, Inputs::NAMES);
        (live[0], answered[0]) = (rows as i32, answers as i32);
        let (mut row, mut answer) = (0, 0);
        for &(sequence, own, own_answers) in &self.under_way {
            let Some(text) = &self.texts[sequence] else { continue };
            let (unread, position) = text.unread();
            for (at, &token) in unread[..own].iter().enumerate() {
                tokens[row + at] = token as i32;
                positions[row + at] = (position + at) as i32;
                sequences[row + at] = sequence as i32;
            }
            for at in own - own_answers..own {
                picked[answer] = (row + at) as i32;
                answer += 1;
            }
            row += own;
        }
        // What lies beyond is neither read nor computed.
        for inputs in [tokens, positions, sequences] {
            inputs[row..].fill(0);
        }
        picked[answer..].fill(0);
    }
}

impl Drive for Crowd {
    fn next(
        &mut self,
        programs: &[Program],
        last: Option<&dyn Results>,
        record: &mut Record<'_>,
    ) -> Result<Turn, Fault> {
        if let Some(results) = last {
            self.hear(results)?;
        }
        self.welcome();
        if self.queue.is_empty() {
            return Ok(if self.ended { Turn::End } else { Turn::Wait });
        }
        self.share();
        self.write(&programs[self.decoder.program.0], record);
        Ok(Turn::Run(self.decoder.program))
    }
}
