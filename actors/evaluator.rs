//! The evaluator: adds up what workers report on held-out data, in sample order.
//!
//! Parts come in any order from any number of ranks; sums are taken in the order of the parts in
//! f64, so that the result does not depend on who was faster. It touches no device.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::actor::{Actor, Flow, Port};
use crate::contract::{EvaluationTask, Findings, Reading};
use crate::fault::{ActorName, Fault};
use crate::report::EvaluationReport;

/// What the evaluator is told.
#[derive(Debug, Clone, PartialEq)]
pub enum EvaluatorMessage {
    /// An evaluation begins; told before any worker is.
    Begin {
        /// Steps done.
        step: u64,
        /// Number of the task.
        task: usize,
        /// How many parts (micro-batches) will come, from all ranks together.
        parts: u64,
    },
    /// A worker has done one micro-batch.
    Part {
        /// Steps done.
        step: u64,
        /// Number of the task.
        task: usize,
        /// Number of the micro-batch in the held-out data, from 0.
        index: u64,
        /// What the task adds up, of this part: as many numbers in every part.
        sums: Vec<f64>,
    },
    /// The run starts again from a saved state: what was begun will not end.
    Abandon,
}

/// One task, as far as the evaluator knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskInfo {
    /// Its name in reports.
    pub name: String,
    /// What its sums mean.
    pub reading: Reading,
}

impl TaskInfo {
    /// What the evaluator must know of a workload's tasks.
    pub fn of(tasks: &[EvaluationTask]) -> Vec<Self> {
        let info =
            |task: &EvaluationTask| Self { name: task.name.clone(), reading: task.reading.clone() };
        tasks.iter().map(info).collect()
    }
}

/// The actor.
#[derive(Debug)]
pub struct Evaluator {
    tasks: Vec<TaskInfo>,
    parts_limit: u64,
    open: BTreeMap<(u64, usize), Open>,
    reports: Port<EvaluationReport>,
}

#[derive(Debug)]
struct Open {
    parts: Vec<Option<Vec<f64>>>,
    missing: u64,
}

impl Evaluator {
    /// An evaluator of these tasks. `parts_limit` bounds the parts of one evaluation; `reports`
    /// is told each result.
    #[must_use]
    pub fn new(tasks: Vec<TaskInfo>, parts_limit: u64, reports: Port<EvaluationReport>) -> Self {
        Self { tasks, parts_limit, open: BTreeMap::new(), reports }
    }

    fn begin(&mut self, step: u64, task: usize, parts: u64) -> Result<(), String> {
        let name = name_of(&self.tasks, task)?;
        if parts == 0 || parts > self.parts_limit {
            let limit = self.parts_limit;
            return Err(format!("evaluation of {name} has {parts} parts, not 1 to {limit}"));
        }
        let open = Open { parts: vec![None; parts as usize], missing: parts };
        // One evaluation per task at a time: that is the bound on what is held here.
        if let Some((at, _)) = self.open.keys().find(|(_, of)| *of == task) {
            return Err(format!("{name} begins at step {step}, but that of step {at} is not done"));
        }
        self.open.insert((step, task), open);
        Ok(())
    }

    fn part(&mut self, key: (u64, usize), index: u64, sums: Vec<f64>) -> Result<(), String> {
        let (step, task) = key;
        let name = name_of(&self.tasks, task)?;
        let unknown = || format!("part {index} of {name} at step {step} belongs to no evaluation");
        let open = self.open.get_mut(&key).ok_or_else(unknown)?;
        let parts = open.parts.len();
        let place = usize::try_from(index).ok().and_then(|index| open.parts.get_mut(index));
        let place =
            place.ok_or_else(|| format!("{name} has {parts} parts, and no part {index}"))?;
        if place.is_some() {
            return Err(format!("part {index} of {name} at step {step} came twice"));
        }
        *place = Some(sums);
        open.missing -= 1;
        if open.missing == 0 {
            let open = self.open.remove(&key).expect("it was there a line ago");
            self.reports.tell(report(step, &self.tasks[task], &open.parts));
        }
        Ok(())
    }
}

fn name_of(tasks: &[TaskInfo], task: usize) -> Result<&str, String> {
    let info = tasks.get(task);
    info.map(|info| info.name.as_str()).ok_or_else(|| format!("there is no task {task}"))
}

/// Sums go in index order.
fn report(step: u64, task: &TaskInfo, parts: &[Option<Vec<f64>>]) -> EvaluationReport {
    let mut parts = parts.iter().flatten();
    let mut all = parts.next().cloned().unwrap_or_default();
    for part in parts {
        all.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
    }
    let Findings { loss, targets, bits_per_byte, measures } = task.reading.read(&all);
    let (task, perplexity) = (task.name.clone(), loss.exp());
    EvaluationReport { step, task, loss, perplexity, bits_per_byte, targets, measures }
}

impl Actor for Evaluator {
    type Message = EvaluatorMessage;

    fn name(&self) -> ActorName {
        ActorName::Evaluator
    }

    fn apply(&mut self, message: EvaluatorMessage) -> Result<Flow, Fault> {
        let done = match message {
            EvaluatorMessage::Begin { step, task, parts } => self.begin(step, task, parts),
            EvaluatorMessage::Part { step, task, index, sums } => {
                self.part((step, task), index, sums)
            }
            EvaluatorMessage::Abandon => {
                self.open.clear();
                Ok(())
            }
        };
        done.map_err(|what| Fault::ours(ActorName::Evaluator, what))?;
        Ok(Flow::Continue)
    }
}
