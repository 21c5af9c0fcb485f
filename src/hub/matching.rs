//! The tensors of a folder against those that its model must have: every one that is missing,
//! unknown, or of another shape or type is listed, and none is guessed.

use super::source::Found;
use super::table::{Part, Row};
use super::tensors::{Stored, Tensors};
use crate::failure::Failure;

/// Most names of one kind in a message.
const NAMES_MAX: usize = 8;

/// What is wrong with the tensors, by kind.
#[derive(Default)]
struct Wrong {
    missing: Vec<String>,
    unknown: Vec<String>,
    shapes: Vec<String>,
    types: Vec<String>,
}

/// Checks names, shapes and types of all tensors.
///
/// # Errors
/// Bad input: one sentence that lists what does not fit.
pub(super) fn check(found: &Found, rows: &[Row]) -> Result<(), Failure> {
    let mut wrong = Wrong::default();
    let parts = || rows.iter().flat_map(|row| row.parts.iter());
    for part in parts() {
        match found.tensors.get(&part.name) {
            None if may_miss(found, part) => {}
            None => wrong.missing.push(part.name.clone()),
            Some(stored) => wrong.compare(part, stored),
        }
    }
    for (name, stored) in found.tensors.iter() {
        let computed = found.family.computed.iter().any(|end| name.ends_with(end));
        let tied_head = found.is_tied() && name == head(found);
        let known = parts().any(|part| part.name == name);
        if known || computed {
            continue;
        }
        match tied_head {
            true => wrong.compare(embedding(rows), &Stored { ..stored.clone() }),
            false => wrong.unknown.push(name.to_owned()),
        }
    }
    wrong.sentence(found)
}

/// Whether a tensor that is not there is 0.
pub(super) fn may_miss(found: &Found, part: &Part) -> bool {
    found.biases_may_miss && part.name.ends_with(".bias")
}

/// The name of the head's weight.
pub(super) fn head(found: &Found) -> String {
    format!("{}.weight", found.family.head)
}

/// The embedding's tensor.
pub(super) fn embedding(rows: &[Row]) -> &Part {
    let row = rows.iter().find(|row| row.ours == "embedding.weight");
    &row.expect("every model has an embedding").parts[0]
}

impl Wrong {
    fn compare(&mut self, part: &Part, stored: &Stored) {
        if stored.shape != part.shape {
            let Part { name, shape, .. } = part;
            self.shapes.push(format!("{name} is {:?} instead of {shape:?}", stored.shape));
        } else if !stored.dtype.is_some_and(|dtype| dtype.is_float()) {
            self.types.push(format!("{} is {}", part.name, stored.type_name));
        }
    }

    fn sentence(self, found: &Found) -> Result<(), Failure> {
        let kinds = [
            ("missing", self.missing),
            ("unknown", self.unknown),
            ("of another shape", self.shapes),
            ("of a type that is no float of this program", self.types),
        ];
        let kinds = kinds.into_iter().filter(|(_, names)| !names.is_empty());
        let parts: Vec<String> = kinds.map(|(what, names)| listed(what, &names)).collect();
        match parts.is_empty() {
            true => Ok(()),
            false => {
                let path = found.path.display();
                Err(Failure::user(format!("{path}: {}", parts.join("; "))))
            }
        }
    }
}

/// `3 tensors are missing: a, b, c`.
fn listed(what: &str, names: &[String]) -> String {
    let count = names.len();
    let shown = names[..count.min(NAMES_MAX)].join(", ");
    let more = match count.saturating_sub(NAMES_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let verb = if count == 1 { "1 tensor is" } else { &format!("{count} tensors are") };
    format!("{verb} {what}: {shown}{more}")
}

/// Reads a whole tensor as `f32`, every value finite.
///
/// # Errors
/// Bad input: a value that is not; a failure of the world: the file cannot be read.
pub(super) fn read_all(
    tensors: &Tensors,
    name: &str,
    stored: &Stored,
    mut deliver: impl FnMut(usize, &[f32]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    /// Elements that are read at a time.
    const PIECE: usize = 1 << 18;
    let dtype = stored.dtype.expect("types were checked");
    let (mut bytes, mut values) = (Vec::new(), Vec::new());
    let elements = stored.elements();
    for first in (0..elements).step_by(PIECE) {
        let count = PIECE.min(elements - first);
        bytes.resize(count * dtype.bytes(), 0);
        values.resize(count, 0.0);
        tensors.read_bytes(stored, dtype, first, &mut bytes)?;
        super::tensors::widen(dtype, &bytes, &mut values);
        if let Some((at, value)) =
            super::tensors::first_unfit(octet_kernels::dtype::DType::F32, &values)
        {
            let path = tensors.path(stored).display();
            let at = first + at;
            return Err(Failure::user(format!(
                "{path}: expected finite numbers, got {value} in {name}, element {at}"
            )));
        }
        deliver(first, &values)?;
    }
    Ok(())
}
