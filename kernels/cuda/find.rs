//! Where NVIDIA's libraries are on this machine, and which of them will do.
//!
//! A machine may hold several of each, and a plain name finds the older: so every candidate is
//! opened by its absolute path and asked for its version, and the newest that will do is taken.
//! Candidates lie in the folders of `OCTET_CUDA_LIBRARIES` alone, if that is set; else where the
//! system's loader looks, where distributions put them, and in Python environments
//! (`site-packages/nvidia/*/lib`): a virtual environment, conda's, those of `PATH`, the user's.
//!
//! The build script looks with this file too: it names its siblings by `super`, and no error type.

use std::collections::BTreeSet;
use std::ffi::{CStr, OsString, c_int};
use std::fmt;
use std::path::{Path, PathBuf};

use super::library::Library;

#[cfg(test)]
mod tests;

/// Names the only folders that are searched, separated by colons.
pub const SETTING: &str = "OCTET_CUDA_LIBRARIES";

/// Where distributions and NVIDIA's installers put them.
const USUAL: [&str; 7] = [
    "/usr/local/cuda/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib/wsl/lib",
    "/run/opengl-driver/lib",
    "/opt/cuda/lib64",
];

/// A library of NVIDIA's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `libcuda`: everything on a GPU.
    Driver,
    /// Compiles our kernels for the GPU that is there, where none were compiled with this program.
    Nvrtc,
    /// Matrix products.
    CublasLt,
    /// Several GPUs.
    Nccl,
}

/// As libraries say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Of the driver, NVRTC and cuBLASLt: of CUDA.
    pub major: u32,
    /// Within that.
    pub minor: u32,
    /// Within that; 0 where a library does not say.
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { major, minor, patch: 0 } => write!(f, "{major}.{minor}"),
            Self { major, minor, patch } => write!(f, "{major}.{minor}.{patch}"),
        }
    }
}

const fn version(major: u32, minor: u32) -> Version {
    Version { major, minor, patch: 0 }
}

impl Kind {
    /// All of them, the driver first.
    pub const ALL: [Self; 4] = [Self::Driver, Self::Nvrtc, Self::CublasLt, Self::Nccl];

    /// As NVIDIA writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Driver => "CUDA driver",
            Self::Nvrtc => "NVRTC",
            Self::CublasLt => "cuBLASLt",
            Self::Nccl => "NCCL",
        }
    }

    /// What it is good for.
    pub const fn purpose(self) -> &'static str {
        match self {
            Self::Driver => "everything on a GPU",
            Self::Nvrtc => "compiles our kernels, unless this program was built with them",
            Self::CublasLt => "faster matrix products",
            Self::Nccl => "several GPUs without peer access",
        }
    }

    /// What to do where none will do.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Driver => "install NVIDIA's driver 570 or newer",
            Self::Nvrtc => "pip install nvidia-cuda-nvrtc",
            Self::CublasLt => "pip install nvidia-cublas",
            Self::Nccl => "pip install nvidia-nccl-cu13",
        }
    }

    /// The oldest that will do. CUDA 12.8 is the first that knows `sm_100a`.
    pub const fn oldest(self) -> Version {
        match self {
            Self::Driver | Self::Nvrtc | Self::CublasLt => version(12, 8),
            Self::Nccl => version(2, 18),
        }
    }

    const fn files(self) -> &'static [&'static str] {
        match self {
            Self::Driver => &["libcuda.so.1"],
            Self::Nvrtc => &["libnvrtc.so.13", "libnvrtc.so.12"],
            Self::CublasLt => &["libcublasLt.so.13", "libcublasLt.so.12"],
            Self::Nccl => &["libnccl.so.2"],
        }
    }

    const fn version_function(self) -> &'static CStr {
        match self {
            Self::Driver => c"cuDriverGetVersion",
            Self::Nvrtc => c"nvrtcVersion",
            Self::CublasLt => c"cublasLtGetVersion",
            Self::Nccl => c"ncclGetVersion",
        }
    }

    /// Whether it must be of the driver's CUDA, or of one before.
    const fn follows_the_driver(self) -> bool {
        matches!(self, Self::Nvrtc | Self::CublasLt)
    }
}

/// A file that could be the library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Absolute.
    pub path: PathBuf,
    /// Or why it will not do.
    pub version: Result<Version, String>,
    library: Option<Library>,
}

/// A library that will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// It stays loaded.
    pub library: Library,
    /// The file that it is.
    pub path: PathBuf,
    /// What it says.
    pub version: Version,
}

/// Where to look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    folders: Vec<PathBuf>,
    /// Whether to ask the system's loader too.
    loader: bool,
}

impl Search {
    /// As this process's environment has it.
    pub fn here() -> Self {
        Self::of_environment(&|name| std::env::var_os(name))
    }

    /// As an environment has it.
    pub fn of_environment(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let paths = |name: &str| -> Vec<PathBuf> {
            variable(name).map_or_else(Vec::new, |list| std::env::split_paths(&list).collect())
        };
        if variable(SETTING).is_some_and(|list| !list.is_empty()) {
            return Self { folders: paths(SETTING), loader: false };
        }
        let mut folders = paths("LD_LIBRARY_PATH");
        let roots = paths("VIRTUAL_ENV").into_iter().chain(paths("CONDA_PREFIX"));
        let pythons = paths("PATH").into_iter().filter(|folder| folder.join("python3").exists());
        let pythons = pythons.filter_map(|folder| folder.parent().map(Path::to_owned));
        let user = variable("HOME").map(|home| Path::new(&home).join(".local"));
        let roots: BTreeSet<PathBuf> =
            roots.chain(pythons).chain(user).chain(["/usr/local".into(), "/usr".into()]).collect();
        folders.extend(roots.iter().flat_map(|root| python_folders(root)));
        folders.extend(USUAL.map(PathBuf::from));
        folders.retain(|folder| folder.is_absolute());
        Self { folders, loader: true }
    }

    /// Every candidate, the newest that will do first. `driver`: of the driver it is to work with.
    pub fn candidates(&self, kind: Kind, driver: Option<Version>) -> Vec<Candidate> {
        let mut seen = BTreeSet::new();
        let mut candidates = Vec::new();
        for path in self.files(kind) {
            let Ok(real) = path.canonicalize() else { continue };
            if seen.insert(real) {
                candidates.push(candidate(kind, path, driver));
            }
        }
        // Equal versions stay in the order of the search.
        candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.version.clone().ok()));
        candidates
    }

    /// The newest that will do.
    ///
    /// # Errors
    /// One sentence: what was looked for, what was found instead, and what to install.
    pub fn newest(&self, kind: Kind, driver: Option<Version>) -> Result<Found, String> {
        let candidates = self.candidates(kind, driver);
        match candidates.first() {
            Some(Candidate { path, version: Ok(version), library: Some(library) }) => {
                Ok(Found { library: *library, path: path.clone(), version: *version })
            }
            _ => Err(format!("no {} that will do: {}", kind.name(), missing(kind, &candidates))),
        }
    }

    fn files(&self, kind: Kind) -> Vec<PathBuf> {
        let in_folder = |folder: &PathBuf| -> Vec<PathBuf> {
            let files = kind.files().iter().map(|name| folder.join(name));
            files.filter(|path| path.exists()).collect()
        };
        let by_loader = kind.files().iter().filter(|_| self.loader).filter_map(|name| {
            let library = Library::open(Path::new(name)).ok()?;
            Library::file_of(library.function(kind.version_function())?)
        });
        self.folders.iter().flat_map(in_folder).chain(by_loader).collect()
    }
}

/// What was looked for, what was found instead, and what to do.
pub fn missing(kind: Kind, candidates: &[Candidate]) -> String {
    let (oldest, remedy) = (kind.oldest(), kind.remedy());
    let found: Vec<String> = candidates.iter().map(Candidate::to_string).collect();
    let found = match found.is_empty() {
        true => format!("{} is nowhere", kind.files().join(" or ")),
        false => format!("found {}", found.join(", ")),
    };
    format!("expected {oldest} or newer, {found}; {remedy}")
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.version {
            Ok(version) => write!(f, "{version} at {path}"),
            Err(why) => write!(f, "{path} ({why})"),
        }
    }
}

/// `nvidia/*/lib` in the packages of the pythons below a root.
fn python_folders(root: &Path) -> Vec<PathBuf> {
    let entries = |folder: PathBuf| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let is_python = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| name.starts_with("python3"))
    };
    let pythons = entries(root.join("lib")).into_iter().filter(is_python);
    let packages = pythons.flat_map(|python| {
        ["site-packages", "dist-packages"].map(|packages| python.join(packages).join("nvidia"))
    });
    packages.flat_map(entries).map(|package| package.join("lib")).collect()
}

/// Opens a file and asks what it is.
fn candidate(kind: Kind, path: PathBuf, driver: Option<Version>) -> Candidate {
    let library = match open(kind, &path) {
        Ok(library) => library,
        Err(why) => return Candidate { path, version: Err(why), library: None },
    };
    let version = ask(kind, library).and_then(|version| {
        let later = driver.filter(|_| kind.follows_the_driver());
        if version < kind.oldest() {
            return Err(format!("{version}, too old"));
        }
        if let Some(driver) = later.filter(|driver| version.major > driver.major) {
            return Err(format!("{version}, too new for a driver of CUDA {driver}"));
        }
        Ok(version)
    });
    Candidate { path, version, library: Some(library) }
}

fn open(kind: Kind, path: &Path) -> Result<Library, String> {
    if kind == Kind::Nvrtc {
        // It opens these by their plain name, which finds what is loaded already.
        let siblings = path.parent().and_then(|folder| std::fs::read_dir(folder).ok());
        for file in siblings.into_iter().flatten().flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            if name.starts_with("libnvrtc-builtins.so.") && !name.contains("alt") {
                Library::open(&file.path())?;
            }
        }
    }
    Library::open(path)
}

fn ask(kind: Kind, library: Library) -> Result<Version, String> {
    let name = kind.version_function();
    let not_it = || format!("lacks {}", name.to_string_lossy());
    let address = library.function(name).ok_or_else(not_it)?;
    let (mut first, mut second): (c_int, c_int) = (0, 0);
    let status = match kind {
        Kind::Driver | Kind::Nccl => {
            // SAFETY: this is the function's signature in NVIDIA's headers.
            let ask: unsafe extern "C" fn(*mut c_int) -> c_int =
                unsafe { std::mem::transmute(address) };
            // SAFETY: it writes one integer that lives longer than the call.
            unsafe { ask(&raw mut first) }
        }
        Kind::Nvrtc => {
            // SAFETY: as above.
            let ask: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int =
                unsafe { std::mem::transmute(address) };
            // SAFETY: as above, two of them.
            unsafe { ask(&raw mut first, &raw mut second) }
        }
        Kind::CublasLt => {
            // SAFETY: as above.
            let ask: unsafe extern "C" fn() -> usize = unsafe { std::mem::transmute(address) };
            // SAFETY: it only returns.
            first = unsafe { ask() } as c_int;
            0
        }
    };
    if status != 0 {
        return Err(format!("does not tell its version: error {status}"));
    }
    let number = first.unsigned_abs();
    Ok(match kind {
        Kind::Driver => version(number / 1000, number % 1000 / 10),
        Kind::Nvrtc => version(number, second.unsigned_abs()),
        // Before 2.9 a version had four digits.
        Kind::Nccl if number < 10_000 => version(number / 1000, number / 100 % 10),
        Kind::CublasLt | Kind::Nccl => {
            Version { major: number / 10_000, minor: number / 100 % 100, patch: number % 100 }
        }
    })
}
