//! Text from a model: prompts go through its decode program, then tokens are drawn one by one.
//!
//! Duty: the conversation with rank 0 and the draw, both pure functions of seed, step and logits.
//! Prohibition: prints nothing and writes no file; whoever asks is told the text.

use octet_actors::contract::ProgramId;
use octet_kernels::dtype::DType;
use octet_kernels::error::{Error, Result};
use octet_kernels::graph::{Goal, Graph, Layout, Policy, Program, Variables};

use crate::composition::Writer;
use crate::models::{KvCaches, WriterRows};

mod conversation;
mod crowd;
mod sampler;
#[cfg(test)]
mod tests;

pub(crate) use conversation::spelled;
pub use conversation::{End, Ended, Heard, Listener, Request, Scores, read_prompt};
pub use crowd::{Crowd, Next, Source, Waiting};
pub use sampler::{Place, Sampler, Scored};

/// Rows of the program besides one for each sequence: so many tokens of prompts are read at once.
const PROMPT_ROWS: usize = 32;

/// The program that texts are written with, in a workload that has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decoder {
    /// Reads up to `rows` tokens of any sequences.
    pub program: ProgramId,
    /// Its rows.
    pub rows: usize,
    /// Texts at once.
    pub sequences: usize,
    /// Tokens that the caches hold of each.
    pub positions: usize,
    /// Bound of the logits: `cap · tanh(z / cap)`.
    pub softcap: Option<f32>,
}

/// The inputs of the program.
struct Inputs;

impl Inputs {
    /// Four times `i32[rows]`; how many of the first three are there, and how many of the fourth.
    const NAMES: [&str; 6] = ["tokens", "positions", "sequences", "picked", "rows", "answers"];
}

impl Decoder {
    /// Compiles the program over these caches; it becomes number `program`.
    ///
    /// # Errors
    /// [`octet_kernels::error::Error`] when model and caches do not fit together.
    pub fn compile(
        writer: &Writer,
        caches: &KvCaches,
        variables: &Variables,
        layout: &Layout,
        policy: Policy,
        program: ProgramId,
    ) -> Result<(Self, Program)> {
        let missing = || Error::Plan(format!("{}: does not write text", writer.part.shown()));
        let model = writer.part.model().writer().ok_or_else(missing)?;
        let KvCaches { sequences, positions, .. } = *caches;
        let rows = sequences + PROMPT_ROWS.min(positions) - 1;
        let mut g = Graph::new(variables);
        let [tokens, at, of, picked, live, answered] = Inputs::NAMES;
        let columns = [tokens, at, of, picked].map(|name| g.input(name, &[rows], DType::I32));
        let [live, answered] = [live, answered].map(|name| g.input(name, &[], DType::I32));
        let live = [live, live, live, answered];
        let [tokens, at, of, picked] = std::array::from_fn(|i| g.with_live(columns[i], live[i]));
        let input = WriterRows { tokens, positions: at, sequences: of, picked };
        let logits = model.decode(&mut g, caches, &input)?;
        g.fetch("logits", logits);
        let compiled = Program::compile("decode", g, &Goal::Forward, policy, layout)?;
        let softcap = writer.writes.softcap;
        Ok((Self { program, rows, sequences, positions, softcap }, compiled))
    }
}
