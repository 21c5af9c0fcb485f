//! The tensors of a folder or of a checkpoint: found by name, read in pieces, not believed.
//!
//! Owns open files. Headers are checked against the sizes of their files before anything is read,
//! so that no claim of a file decides how much memory is taken.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use octet_actors::checkpoint::Manifest;
use octet_actors::checkpoint::tensor_header::TensorFileHeader;
use octet_actors::outside::LocalDisk;
use octet_kernels::dtype::DType;

use crate::failure::Failure;

/// A tensor in a file.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    /// The type, by the name that its file gives it.
    pub(super) type_name: String,
    /// The type, if this program knows it.
    pub(super) dtype: Option<DType>,
    /// Dimensions, outermost first.
    pub(super) shape: Vec<usize>,
    /// Which file.
    pub(super) file: usize,
    /// Its first byte there.
    pub(super) at: u64,
}

impl Stored {
    /// Its elements.
    pub(super) fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Tensors by name.
#[derive(Debug, Default)]
pub(super) struct Tensors {
    files: Vec<(PathBuf, File)>,
    tensors: BTreeMap<String, Stored>,
}

impl Tensors {
    /// The parameters and states of a checkpoint. Their bytes are not hashed here.
    ///
    /// # Errors
    /// A sentence about the file that is damaged or cannot be read.
    pub(super) fn of_checkpoint(folder: &Path, manifest: &Manifest) -> Result<Self, Failure> {
        let mut all = Self::default();
        for file in manifest.files.iter().filter(|file| file.name.starts_with("model-")) {
            all.add_safetensors(&folder.join(&file.name))?;
        }
        Ok(all)
    }

    /// Adds what a file of safetensors holds.
    ///
    /// # Errors
    /// The file is damaged, or holds a tensor that another file holds too.
    pub(super) fn add_safetensors(&mut self, path: &Path) -> Result<(), Failure> {
        let header = TensorFileHeader::read(&LocalDisk, path).map_err(Failure::user)?;
        let file = self.open(path)?;
        for tensor in header.tensors {
            let stored = Stored {
                type_name: tensor.type_name,
                dtype: tensor.dtype,
                shape: tensor.shape,
                file,
                at: tensor.bytes.start,
            };
            self.add(tensor.name, stored)?;
        }
        Ok(())
    }

    /// Opens a file that tensors lie in; gives its number.
    ///
    /// # Errors
    /// Bad input: it cannot be opened.
    pub(super) fn open(&mut self, path: &Path) -> Result<usize, Failure> {
        let shown = path.display();
        let refused = |error| Failure::user(format!("{shown}: cannot be opened: {error}"));
        self.files.push((path.to_owned(), File::open(path).map_err(refused)?));
        Ok(self.files.len() - 1)
    }

    /// Adds a tensor.
    ///
    /// # Errors
    /// Bad input: there is one of this name.
    pub(super) fn add(&mut self, name: String, stored: Stored) -> Result<(), Failure> {
        if let Some(other) = self.tensors.get(&name) {
            let [a, b] = [other.file, stored.file].map(|file| self.files[file].0.display());
            return Err(Failure::user(format!("tensor {name} is in {a} and in {b}")));
        }
        self.tensors.insert(name, stored);
        Ok(())
    }

    /// The tensor of this name.
    pub(super) fn get(&self, name: &str) -> Option<&Stored> {
        self.tensors.get(name)
    }

    /// All names with their tensors, in the order of names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Stored)> {
        self.tensors.iter().map(|(name, stored)| (name.as_str(), stored))
    }

    /// The file of a tensor.
    pub(super) fn path(&self, stored: &Stored) -> &Path {
        &self.files[stored.file].0
    }

    /// Gives tensors other names, or none.
    pub(super) fn rename(&mut self, name: impl Fn(&str) -> Option<String>) {
        let old = std::mem::take(&mut self.tensors);
        let renamed = old.into_iter().filter_map(|(old, stored)| Some((name(&old)?, stored)));
        self.tensors = renamed.collect();
    }

    /// Reads elements from number `first` on into `bytes`, as they are stored.
    ///
    /// # Errors
    /// A failure of the world: the file cannot be read.
    pub(super) fn read_bytes(
        &self,
        stored: &Stored,
        dtype: DType,
        first: usize,
        bytes: &mut [u8],
    ) -> Result<(), Failure> {
        let (path, file) = &self.files[stored.file];
        let at = stored.at + (first * dtype.bytes()) as u64;
        file.read_exact_at(bytes, at)
            .map_err(|error| Failure::world(format!("cannot read {}: {error}", path.display())))
    }
}

/// Floats of a stored type as `f32`. Panics for a type that is none.
pub(super) fn widen(dtype: DType, bytes: &[u8], values: &mut [f32]) {
    let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    match dtype {
        DType::F32 => {
            let words = bytes.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
            values.iter_mut().zip(words).for_each(|(v, b)| *v = f32::from_le_bytes(b));
        }
        DType::F64 => {
            let words = bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap()));
            values.iter_mut().zip(words).for_each(|(v, wide)| *v = wide as f32);
        }
        DType::Bf16 => {
            values.iter_mut().zip(pairs()).for_each(|(v, b)| *v = bf16::from_le_bytes(b).into());
        }
        DType::F16 => {
            values.iter_mut().zip(pairs()).for_each(|(v, b)| *v = f16::from_le_bytes(b).into());
        }
        other => panic!("{other} is no float"),
    }
}

/// Appends values as a stored type, rounded to the nearest, to even at a tie. Panics for a type
/// that none of ours is exported as.
pub(super) fn narrow(dtype: DType, values: &[f32], bytes: &mut Vec<u8>) {
    match dtype {
        DType::F32 => bytes.extend(values.iter().flat_map(|v| v.to_le_bytes())),
        DType::Bf16 => bytes.extend(values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes())),
        DType::F16 => bytes.extend(values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes())),
        other => panic!("nothing is exported as {other}"),
    }
}

/// The number and value of the first element that is not finite as this type.
pub(super) fn first_unfit(dtype: DType, values: &[f32]) -> Option<(usize, f32)> {
    let fits = |value: f32| match dtype {
        DType::F16 => f16::from_f32(value).is_finite(),
        DType::Bf16 => bf16::from_f32(value).is_finite(),
        _ => value.is_finite(),
    };
    values.iter().copied().enumerate().find(|(_, value)| !fits(*value))
}
