//! Between our tensors and theirs: the lines of a family's table, and what they come to for the
//! parameters of one model.
//!
//! A line names a module of ours and the modules of theirs that it is made of; a parameter is a
//! module's `weight` or `bias`. `{}` stands for the number of a block. What a model has decides
//! which lines are used, so a parameter without a line cannot be lost.

use octet_kernels::graph::Parameter;

use crate::failure::Failure;
use crate::models::FamilyConfig;

/// What is done to a tensor of ours to get theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Nothing.
    Same,
    /// Nothing; a row stands for a token, and ours may have more of them.
    Tokens,
    /// Theirs is `[in, out]`, ours `[out, in]`.
    Transposed,
    /// Theirs are the rows of queries, of keys and of values, each a tensor.
    Qkv,
    /// As `Qkv`; queries and keys as those have them who pair neighbours in rotary heads.
    TurnedQkv,
    /// Theirs are the first and the second half of the rows: gate and up.
    Halves,
    /// Theirs has the rows in the reverse order.
    Reversed,
    /// They have none: what it is trained for does not use it.
    Unused,
}

/// A line of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    /// Our module.
    pub(super) ours: &'static str,
    /// Their modules, in the order of our rows.
    pub(super) theirs: &'static [&'static str],
    pub(super) way: Way,
}

/// A line of a table, shorter to write.
pub(super) const fn line(ours: &'static str, theirs: &'static [&'static str], way: Way) -> Line {
    Line { ours, theirs, way }
}

/// A tensor of theirs, made of some rows of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// Its name.
    pub(super) name: String,
    /// Its shape.
    pub(super) shape: Vec<usize>,
    /// How its elements lie.
    pub(super) order: Order,
}

/// How the elements of a tensor of theirs lie, beside ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The same.
    Same,
    /// Stored `[in, out]`.
    Transposed,
    /// In each head of so many rows, the first and the second half take turns.
    Turned(usize),
    /// Rows in the reverse order.
    Reversed,
}

impl Part {
    /// Its elements.
    pub(super) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Elements of a row; 1 for a vector.
    pub(super) fn columns(&self) -> usize {
        self.shape.get(1).copied().unwrap_or(1)
    }
}

/// A tensor of ours and what it is to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Our name.
    pub(super) ours: String,
    /// Our shape.
    pub(super) shape: Vec<usize>,
    /// One below the other.
    pub(super) parts: Vec<Part>,
    /// Whether a row is a token's, so that ours may have more rows than theirs.
    pub(super) tokens: bool,
}

/// What a table comes to for the parameters of a model, in their order.
///
/// # Errors
/// A parameter that the table does not know: the model is none of this family.
pub(super) fn rows(
    lines: &[Line],
    parameters: &[Parameter],
    model: &FamilyConfig,
) -> Result<Vec<Row>, Failure> {
    let heads = Heads::of(model);
    let row = |parameter: &Parameter| -> Result<Row, Failure> {
        let unknown = || Failure::ours(format!("no table has a line for {}", parameter.name));
        let (module, kind) = parameter.name.rsplit_once('.').ok_or_else(unknown)?;
        let (pattern, block) = pattern_of(module);
        let line = lines.iter().find(|line| line.ours == pattern).ok_or_else(unknown)?;
        Ok(expand(line, parameter, kind, &block, heads))
    };
    let rows = parameters.iter().map(row).collect::<Result<Vec<_>, _>>()?;
    Ok(rows.into_iter().filter(|row| !row.parts.is_empty()).collect())
}

/// `blocks.7.attention.qkv` is `blocks.{}.attention.qkv` of block `7`.
fn pattern_of(module: &str) -> (String, String) {
    let numbered = module.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'));
    match numbered {
        Some((block, rest)) => (format!("blocks.{{}}.{rest}"), block.to_owned()),
        None => (module.to_owned(), String::new()),
    }
}

/// How many rows queries, keys and values have.
#[derive(Debug, Clone, Copy)]
struct Heads {
    queries: usize,
    keys: usize,
    rows: usize,
}

impl Heads {
    fn of(model: &FamilyConfig) -> Self {
        match model {
            FamilyConfig::Dense(model) => {
                Self { queries: model.heads, keys: model.kv_heads(), rows: model.head_dim() }
            }
            FamilyConfig::Encoder(model) => {
                let (heads, rows) = (model.heads, model.width / model.heads);
                Self { queries: heads, keys: heads, rows }
            }
        }
    }
}

fn expand(line: &Line, parameter: &Parameter, kind: &str, block: &str, heads: Heads) -> Row {
    let rows = parameter.shape[0];
    let cut = match line.way {
        Way::Same | Way::Tokens | Way::Transposed | Way::Reversed => vec![rows],
        Way::Halves => vec![rows / 2; 2],
        Way::Unused => Vec::new(),
        Way::Qkv | Way::TurnedQkv => {
            let [q, kv] = [heads.queries, heads.keys].map(|count| count * heads.rows);
            vec![q, kv, kv]
        }
    };
    assert_eq!(cut.len(), line.theirs.len(), "tensors of {}", line.ours);
    let whole = cut.is_empty() || cut.iter().sum::<usize>() == rows;
    assert!(whole, "rows of {}", parameter.name);
    let order = |i: usize| match line.way {
        Way::Transposed if parameter.shape.len() == 2 => Order::Transposed,
        Way::TurnedQkv if i < 2 => Order::Turned(heads.rows),
        Way::Reversed => Order::Reversed,
        _ => Order::Same,
    };
    let part = |(i, (module, rows)): (usize, (&&str, usize))| {
        let (mut shape, order) = (parameter.shape.clone(), order(i));
        shape[0] = rows;
        if order == Order::Transposed {
            shape.reverse();
        }
        Part { name: format!("{}.{kind}", module.replace("{}", block)), shape, order }
    };
    Row {
        ours: parameter.name.clone(),
        shape: parameter.shape.clone(),
        parts: line.theirs.iter().zip(cut).enumerate().map(part).collect(),
        tokens: line.way == Way::Tokens,
    }
}

/// A matrix of rows of `columns` elements, column by column.
pub(super) fn transposed(matrix: &[f32], columns: usize) -> Vec<f32> {
    let rows = matrix.len() / columns.max(1);
    let mut out = Vec::with_capacity(matrix.len());
    for column in 0..columns {
        out.extend((0..rows).map(|row| matrix[row * columns + column]));
    }
    out
}

/// Rows of `columns` elements, the last one first.
pub(super) fn reversed(matrix: &[f32], columns: usize) -> Vec<f32> {
    matrix.chunks_exact(columns).rev().flatten().copied().collect()
}

/// Rows of `columns` elements: in each head the first row, the first of the second half, the second
/// row, and so on.
pub(super) fn turned(matrix: &[f32], columns: usize, head_dim: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(matrix.len());
    for head in matrix.chunks_exact(head_dim * columns) {
        let (first, second) = head.split_at(head.len() / 2);
        for (a, b) in first.chunks_exact(columns).zip(second.chunks_exact(columns)) {
            out.extend_from_slice(a);
            out.extend_from_slice(b);
        }
    }
    out
}
