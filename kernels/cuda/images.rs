//! Our kernels, as images that the driver of a GPU loads.
//!
//! Those that were compiled with this program, if NVRTC was there when it was built; else compiled
//! when they are first used, and kept for the next time. Choosing is a pure function of the GPU's
//! architecture and the driver's version.

use std::borrow::Cow;
use std::cell::OnceCell;

use crate::cuda::cache::Cache;
use crate::cuda::find::{Kind, Search, Version};
use crate::cuda::nvrtc::{Compiler, INTERMEDIATE, Source};
use crate::error::{Error, Result};

#[cfg(test)]
mod tests;

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// `kernels/ops/<name>/<name>.cu`.
#[derive(Debug, Clone, Copy)]
pub struct Module {
    /// As launches name it.
    pub name: &'static str,
    /// CUDA C++.
    pub source: &'static str,
    /// By target.
    images: &'static [(&'static str, &'static [u8])],
}

impl Module {
    /// The module of that name, if any op has kernels there.
    pub fn named(name: &str) -> Option<&'static Self> {
        MODULES.iter().find(|module| module.name == name)
    }

    /// All of them, by name.
    pub fn all() -> &'static [Self] {
        MODULES
    }

    /// What the image that was compiled with this program is for, if one will do.
    fn embedded(&self, architecture: [u32; 2], driver: Version) -> Option<&'static [u8]> {
        let target = fitting(architecture, COMPILER?, driver)?;
        self.images.iter().find(|(name, _)| *name == target).map(|(_, image)| *image)
    }

    /// Compiles it for a GPU. An architecture that the compiler does not know gets PTX.
    pub(crate) fn compile(
        &self,
        compiler: &Compiler,
        cache: &Cache,
        architecture: [u32; 2],
    ) -> Result<Vec<u8>, String> {
        let file = format!("{}.cu", self.name);
        let source = Source { name: &file, text: self.source, headers: HEADERS };
        let known = compiler.knows(architecture);
        let target = if known { exact(architecture) } else { INTERMEDIATE.to_string() };
        cache.image(compiler, &source, &target)
    }
}

/// Which of the targets that images are made for before a GPU is known runs on one; `None` if the
/// driver is too old for that compiler's.
fn fitting([major, minor]: [u32; 2], compiler: Version, driver: Version) -> Option<&'static str> {
    match (major, minor) {
        _ if compiler.major > driver.major => None,
        // Code runs on later architectures of its major number; what ends in a letter on its own.
        (8, _) => Some("sm_80"),
        (9, 0) => Some("sm_90a"),
        (10, 0) => Some("sm_100a"),
        // A driver translates what is no newer than itself.
        _ if compiler > driver => None,
        _ => Some(INTERMEDIATE),
    }
}

/// The target that is this architecture and no other, with all that it has.
fn exact([major, minor]: [u32; 2]) -> String {
    let all = if major >= 9 { "a" } else { "" };
    format!("sm_{major}{minor}{all}")
}

/// Where the images of one kind of GPU come from.
#[derive(Debug, Clone)]
pub struct Images {
    architecture: [u32; 2],
    driver: Version,
    search: Search,
    /// Or why there is none; looked for only where no image was compiled with this program.
    compiler: OnceCell<Result<Compiler, String>>,
    cache: Cache,
}

impl Images {
    /// For GPUs of that architecture under that driver.
    pub fn new(search: Search, architecture: [u32; 2], driver: Version, cache: Cache) -> Self {
        Self { architecture, driver, search, compiler: OnceCell::new(), cache }
    }

    /// Whether there are any: compiled with this program, or by a compiler that is here.
    ///
    /// # Errors
    /// Why there are none, and what to install.
    pub fn obtainable(&self) -> Result<(), String> {
        let mut modules = Module::all().iter();
        if modules.all(|module| module.embedded(self.architecture, self.driver).is_some()) {
            return Ok(());
        }
        self.compiler().as_ref().map(|_| ()).map_err(|why| format!("kernels: {why}"))
    }

    /// The image of a module.
    ///
    /// # Errors
    /// [`Error::Device`] if it can be had nowhere, or does not compile.
    pub fn of(&self, module: &Module) -> Result<Cow<'static, [u8]>> {
        if let Some(image) = module.embedded(self.architecture, self.driver) {
            return Ok(Cow::Borrowed(image));
        }
        let compile = |compiler: &Compiler| {
            module.compile(compiler, &self.cache, self.architecture).map(Cow::Owned)
        };
        let image = self.compiler().as_ref().map_err(Clone::clone).and_then(compile);
        image.map_err(|why| Error::Device(format!("kernels of {}: {why}", module.name)))
    }
    fn compiler(&self) -> &Result<Compiler, String> {
        self.compiler.get_or_init(|| {
            let found = self.search.newest(Kind::Nvrtc, Some(self.driver))?;
            Compiler::new(&found)
        })
    }
}
