//! Compiles `.cu` files with g++, once for each state of their sources, and loads them.
//!
//! Results lie in `target/<profile>/emulator`, named by a hash of everything that goes into them.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

/// The emulator's own sources.
const RUNTIME: [&str; 3] = ["runtime.cpp", "checker.cpp", "tensor.cpp"];
/// What they and kernels include, besides the headers of `ops/`.
const HEADERS: [&str; 2] = ["emulator/device.h", "emulator/machine.h"];
/// No contraction: kernels say which products and sums are one operation. Nothing that modules of
/// one name share: each has what it was compiled with.
const OPTIONS: [&str; 7] = [
    "-std=c++17",
    "-O1",
    "-g1",
    "-fPIC",
    "-fno-strict-aliasing",
    "-ffp-contract=off",
    "-fno-gnu-unique",
];
/// The checker's hooks at every access; the options that keep g++ quiet about CUDA.
const KERNEL: [&str; 6] =
    ["-fsanitize=thread", "-DOCTET_EMULATOR", "-Wall", "-Wno-unknown-pragmas", "-x", "c++"];

/// A change of a source: what is planted to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Edit {
    /// The folder of the op whose kernels are changed.
    pub module: &'static str,
    /// Text that stands in its file or in a header that it includes, once.
    pub from: &'static str,
    /// What stands there instead.
    pub to: &'static str,
}

/// A loaded library; never unloaded.
#[derive(Debug, Clone, Copy)]
pub struct Library(*mut c_void);

// SAFETY: a handle of the dynamic linker, which any thread may use.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    fn open(path: &Path, flags: i32) -> Result<Self, String> {
        let name = CString::new(path.to_string_lossy().as_bytes()).expect("a path without NUL");
        // SAFETY: a library that was built here; loading it runs no code of its own.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | flags) };
        if handle.is_null() {
            return Err(format!("{} does not load", path.display()));
        }
        Ok(Self(handle))
    }

    /// The address of what it calls `name`.
    pub fn symbol(self, name: &str) -> Option<*mut c_void> {
        let name = CString::new(name).ok()?;
        // SAFETY: the handle is never closed.
        let address = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        (!address.is_null()).then_some(address)
    }
}

fn sources() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// A file of kernels with the headers of `ops/` that it includes, by name and text.
fn with_headers(name: String, path: &Path) -> Result<Vec<(String, String)>, String> {
    let mut files = vec![(name, text(path)?)];
    let mut at = 0;
    while let Some((_, text_of_one)) = files.get(at) {
        let lines = text_of_one.lines().filter_map(|line| line.strip_prefix("#include \""));
        let names: Vec<String> = lines
            .filter_map(|rest| rest.strip_suffix('"'))
            .filter(|name| name.ends_with(".cuh") && files.iter().all(|(known, _)| known != name))
            .map(str::to_string)
            .collect();
        for name in names {
            let text = text(&sources().join("ops").join(&name))?;
            files.push((name, text));
        }
        at += 1;
    }
    Ok(files)
}

/// `target/<profile>/emulator`, beside the tests that run.
fn results() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let profile = program.parent().and_then(Path::parent).unwrap_or(Path::new("."));
    let folder = profile.join("emulator");
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(folder)
}

fn gxx(arguments: &[&str], folder: &Path) -> Result<(), String> {
    let output = Command::new("g++").args(arguments).current_dir(folder).output();
    let output = output.map_err(|e| format!("g++ does not start: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("g++ {arguments:?}:\n{said}")) }
}

/// Builds `NAME-HASH.so` unless it is there. `build` makes the file that it is given the name of,
/// in a folder of its own.
fn built(
    name: &str,
    of: &impl Hash,
    build: impl Fn(&Path, &str) -> Result<(), String>,
) -> Result<PathBuf, String> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Err("fibers are written for Linux on x86-64".to_string());
    }
    let mut hasher = DefaultHasher::new();
    (OPTIONS, KERNEL, of).hash(&mut hasher);
    for header in HEADERS {
        text(&sources().join(header))?.hash(&mut hasher);
    }
    let file = format!("{name}-{:016x}.so", hasher.finish());
    let results = results()?;
    let path = results.join(&file);
    if !path.exists() {
        // Another process may build the same: whoever is last to rename wins, with the same bytes.
        let own = results.join(format!("{file}.{}", std::process::id()));
        fs::create_dir_all(&own).map_err(|e| format!("{}: {e}", own.display()))?;
        let made = build(&own, &file);
        let moved = made.and_then(|()| {
            fs::rename(own.join(&file), &path).map_err(|e| format!("{}: {e}", path.display()))
        });
        let _ = fs::remove_dir_all(&own);
        moved?;
    }
    Ok(path)
}

/// The emulator itself.
///
/// # Errors
/// Why it is not there: no g++, another machine, or what g++ says.
pub fn runtime() -> Result<Library, String> {
    static RUNTIME_LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();
    let open = || {
        let folder = sources().join("emulator");
        let files: Vec<PathBuf> = RUNTIME.iter().map(|file| folder.join(file)).collect();
        let texts = files.iter().map(|file| text(file)).collect::<Result<Vec<_>, _>>()?;
        let path = built("runtime", &texts, |own, file| {
            let mut arguments = OPTIONS.to_vec();
            let files: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
            arguments.extend(["-O2", "-Wall", "-shared", "-o", file]);
            arguments.extend(files.iter().map(String::as_str));
            gxx(&arguments, own)
        })?;
        // Kernels find the runtime's functions there.
        Library::open(&path, libc::RTLD_GLOBAL)
    };
    RUNTIME_LIBRARY.get_or_init(open).clone()
}

/// The kernels of an op's folder, with a change if one is given.
///
/// # Errors
/// As [`runtime`]; a change of what does not stand there once.
pub fn module(name: &'static str, edit: Option<Edit>) -> Result<Library, String> {
    type Modules = Mutex<HashMap<(&'static str, Option<Edit>), Result<Library, String>>>;
    static MODULES: OnceLock<Modules> = OnceLock::new();
    runtime()?;
    // One at a time: tests that want the same module wait for it, and cores are few.
    let mut modules = MODULES.get_or_init(Modules::default).lock().expect("no panic while held");
    modules.entry((name, edit)).or_insert_with(|| load(name, edit)).clone()
}

fn load(name: &str, edit: Option<Edit>) -> Result<Library, String> {
    let folder = sources();
    let source = format!("{name}.cu");
    let mut files = with_headers(source.clone(), &folder.join(format!("ops/{name}/{source}")))?;
    if let Some(Edit { from, to, .. }) = edit {
        let found: usize = files.iter().map(|(_, text)| text.matches(from).count()).sum();
        if found != 1 {
            return Err(format!(
                "{from:?} stands {found} times in {source} and what it may include"
            ));
        }
        files.iter_mut().for_each(|(_, text)| *text = text.replace(from, to));
    }
    let include = format!("-I{}", folder.join("emulator").display());
    let path = built(name, &files, |own, file| {
        for (file, text) in &files {
            fs::write(own.join(file), text).map_err(|e| e.to_string())?;
        }
        let mut arguments = OPTIONS.to_vec();
        arguments.extend(KERNEL);
        arguments.extend(["-I.", &include, "-c", &source, "-o", "kernel.o"]);
        gxx(&arguments, own)?;
        // Linked apart: with -fsanitize=thread that would bring its own checker.
        gxx(&["-shared", "kernel.o", "-o", file], own)
    })?;
    Library::open(&path, libc::RTLD_LOCAL)
}
