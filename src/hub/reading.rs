//! One tensor of a checkpoint from its first element to its last, hashed on the way.

use octet_actors::snapshot::digest::{CHUNK_BYTES, TensorHasher};
use octet_kernels::dtype::DType;

use super::export::{Damage, Source};
use super::table::{Order, Part, Row, reversed, transposed, turned};
use super::tensors::{Stored, Tensors, first_unfit, widen};
use crate::failure::{Failure, INTERRUPTED};

/// Takes values that were read.
type Sink<'a> = dyn FnMut(&[f32]) -> Result<(), Failure> + 'a;

/// A parameter on its way.
pub(super) struct Reading<'a> {
    tensors: &'a Tensors,
    stored: &'a Stored,
    dtype: DType,
    name: &'a str,
    hash: &'a str,
    hasher: TensorHasher,
    /// Elements that were read into `chunk` so far, this chunk's included.
    read: usize,
    bytes: Vec<u8>,
    values: Vec<f32>,
    /// Elements of `values` that were given.
    given: usize,
}

impl<'a> Reading<'a> {
    /// Begins the parameter of a row.
    pub(super) fn new(
        source: &'a Source,
        tensors: &'a Tensors,
        row: &'a Row,
    ) -> Result<Self, Damage> {
        let folder = source.folder.display();
        let name = row.ours.as_str();
        let entry = source.manifest.tensors.iter().find(|entry| entry.name == name);
        let (Some(entry), Some(stored)) = (entry, tensors.get(name)) else {
            return Err(Damage::Checkpoint(format!("{folder}: has no tensor {name}")));
        };
        let dtype = stored.dtype.filter(|dtype| dtype.is_float());
        let Some(dtype) = dtype.filter(|_| stored.shape == row.shape) else {
            let what = format!("{} {:?}", stored.type_name, stored.shape);
            let wanted = &row.shape;
            return Err(Damage::Checkpoint(format!(
                "{folder}: its tensor {name} is {what}, and this run's is {wanted:?}"
            )));
        };
        Ok(Self {
            tensors,
            stored,
            dtype,
            name,
            hash: &entry.blake3,
            hasher: TensorHasher::new(name, dtype, &stored.shape),
            read: 0,
            bytes: Vec::new(),
            values: Vec::new(),
            given: 0,
        })
    }

    /// Gives a part, which is the next one, in the order in which its elements lie, piece by piece
    /// where that is ours. Every value must be finite as this type.
    ///
    /// # Errors
    /// [`Damage`]: a value that is not, a file that cannot be read, `stop`, and those of `sink`.
    pub(super) fn part(
        &mut self,
        part: &Part,
        dtype: DType,
        stop: &dyn Fn() -> bool,
        sink: &mut Sink<'_>,
    ) -> Result<(), Damage> {
        let (mut left, mut whole) = (part.elements(), Vec::new());
        while left > 0 {
            if stop() {
                let what = "the export was interrupted; nothing of it was kept".to_owned();
                return Err(Failure { code: INTERRUPTED, what }.into());
            }
            let values = self.next(left)?;
            left -= values.len();
            if let Some((_, value)) = first_unfit(dtype, values) {
                return Err(self.unfit(dtype, value).into());
            }
            match part.order {
                Order::Same => sink(values)?,
                _ => whole.extend_from_slice(values),
            }
        }
        match part.order {
            Order::Same => {}
            Order::Transposed => sink(&transposed(&whole, part.shape[0]))?,
            Order::Turned(head_dim) => sink(&turned(&whole, part.columns(), head_dim))?,
            Order::Reversed => sink(&reversed(&whole, part.columns()))?,
        }
        Ok(())
    }

    fn unfit(&self, dtype: DType, value: f32) -> Failure {
        let (name, path) = (self.name, self.tensors.path(self.stored).display());
        Failure::user(match value.is_finite() {
            true => format!("--dtype {dtype}: {value} of {name} in {path} is beyond its range"),
            false => format!("{path}: {name} holds {value}, so there is no model to export"),
        })
    }

    /// The next elements: at least one, at most so many.
    fn next(&mut self, most: usize) -> Result<&[f32], Damage> {
        if self.given == self.values.len() {
            let left = self.stored.elements() - self.read;
            let count = left.min(CHUNK_BYTES / self.dtype.bytes());
            self.bytes.resize(count * self.dtype.bytes(), 0);
            self.values.resize(count, 0.0);
            self.tensors.read_bytes(self.stored, self.dtype, self.read, &mut self.bytes)?;
            self.hasher.chunk(&self.bytes);
            widen(self.dtype, &self.bytes, &mut self.values);
            self.read += count;
            self.given = 0;
        }
        let given = self.given;
        self.given = self.values.len().min(given + most);
        Ok(&self.values[given..self.given])
    }

    /// Compares the hash, once all elements were given.
    pub(super) fn finish(self) -> Result<(), Damage> {
        if self.hasher.finish().to_hex().as_str() == self.hash {
            return Ok(());
        }
        let path = self.tensors.path(self.stored).display();
        let name = self.name;
        Err(Damage::Checkpoint(format!("{path}: tensor {name} does not match its hash")))
    }
}
