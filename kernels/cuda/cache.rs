//! Compiled kernels in a folder, by all that an image depends on: source, headers, options, target
//! and compiler. Safe for ranks and runs that start at once: whoever is last to rename a file
//! leaves the same bytes.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::nvrtc::{Compiler, OPTIONS, Source};

#[cfg(test)]
mod tests;

/// Of the hash that ends a file, by which one that was torn or changed is known.
const SEAL_BYTES: usize = size_of::<u64>();

/// A folder of images; without one everything is compiled each time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// In that folder, which is made when it is needed.
    pub fn at(folder: &Path) -> Self {
        Self { folder: Some(folder.to_owned()) }
    }

    /// Of the user: below `XDG_CACHE_HOME`, or `.cache` at home.
    pub fn of_user() -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let home = || variable("HOME").map(|home| Path::new(&home).join(".cache"));
        let folder = variable("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
        Self { folder: folder.map(|folder| folder.join("octet/kernels")) }
    }

    /// The image for a target, compiled unless it is there. A folder that cannot be written costs
    /// time and is no error.
    ///
    /// # Errors
    /// The compiler's log.
    pub fn image(
        &self,
        compiler: &Compiler,
        source: &Source<'_>,
        target: &str,
    ) -> Result<Vec<u8>, String> {
        let path = self.folder.as_ref().map(|folder| {
            let key = hash(&(source, OPTIONS, target, compiler.version));
            folder.join(format!("{}-{target}-{key:016x}", source.name))
        });
        if let Some(image) = path.as_deref().and_then(read) {
            return Ok(image);
        }
        let image = compiler.compile(source, target, &[])?.image;
        if let Some(path) = path {
            drop(write(&path, &image));
        }
        Ok(image)
    }
}

fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// The image, if it is there and whole.
fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = fs::read(path).ok()?;
    let seal = bytes.split_off(bytes.len().checked_sub(SEAL_BYTES)?);
    (seal == hash(&bytes).to_le_bytes()).then_some(bytes)
}

/// Under a name of its own first: nobody reads half a file.
fn write(path: &Path, image: &[u8]) -> std::io::Result<()> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    let sealed = [image, &hash(&image.to_vec()).to_le_bytes()].concat();
    let done = fs::write(&temporary, sealed).and_then(|()| fs::rename(&temporary, path));
    if done.is_err() {
        drop(fs::remove_file(&temporary));
    }
    done
}
