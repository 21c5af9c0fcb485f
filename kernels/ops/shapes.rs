//! What shape rules share: checks of operands.

use crate::dtype::DType;
use crate::shape::Spec;

/// A shape rule's answer.
pub(crate) type Shapes = std::result::Result<Vec<Spec>, String>;

/// The operands as an array. Errs with their number if it is another.
pub(crate) fn operands<'s, const N: usize>(
    inputs: &[&'s Spec],
) -> std::result::Result<[&'s Spec; N], String> {
    inputs.try_into().map_err(|_| format!("{} operands, not {N}", inputs.len()))
}

/// Rows and columns of a float matrix.
pub(crate) fn matrix(spec: &Spec, what: &str) -> std::result::Result<[usize; 2], String> {
    match spec.shape[..] {
        [rows, columns] if spec.dtype.widens_to_f32() => Ok([rows, columns]),
        _ => Err(format!("{what} is {spec}, not a float matrix")),
    }
}

/// Refuses `spec` unless it has this shape and is a float.
pub(crate) fn expect_float(
    spec: &Spec,
    shape: &[usize],
    what: &str,
) -> std::result::Result<(), String> {
    if spec.shape == shape && spec.dtype.widens_to_f32() {
        return Ok(());
    }
    Err(format!("{what} is {spec}, not a float {shape:?}"))
}

/// Refuses what is not copied as 32-bit words: all but `I32` and the floats that ops see as `F32`.
pub(crate) fn expect_words(spec: &Spec, what: &str) -> std::result::Result<(), String> {
    if spec.dtype == DType::I32 || spec.dtype.widens_to_f32() {
        return Ok(());
    }
    Err(format!("{what} is {spec}, neither i32 nor f32 nor a narrower float"))
}

/// Refuses `spec` unless it is an `I32` of this shape.
pub(crate) fn expect_i32(
    spec: &Spec,
    shape: &[usize],
    what: &str,
) -> std::result::Result<(), String> {
    if spec.shape == shape && spec.dtype == DType::I32 {
        return Ok(());
    }
    Err(format!("{what} is {spec}, not i32{shape:?}"))
}
