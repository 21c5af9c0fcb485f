//! Collects the kernels of the op folders, and compiles them if NVRTC is here.
//!
//! It never fails for what is missing: without images a program compiles at its first use.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

#[allow(dead_code, unreachable_pub, reason = "the package uses all of it")]
#[path = "cuda"]
mod cuda {
    pub(crate) mod cache;
    pub(crate) mod find;
    pub(crate) mod library;
    pub(crate) mod nvrtc;
}
use cuda::cache::Cache;
use cuda::find::{Kind, Search};
use cuda::nvrtc::{Compiler, Source, TARGETS};

fn main() {
    for input in ["build.rs", "cuda", "ops"] {
        println!("cargo::rerun-if-changed={input}");
    }
    println!("cargo::rerun-if-env-changed={}", cuda::find::SETTING);
    let ops = Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo")).join("ops");
    let output = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    let headers = files(&ops, "cuh");
    let folders = fs::read_dir(&ops).expect("the ops").flatten().map(|entry| entry.path());
    let mut modules: Vec<_> = folders.flat_map(|folder| files(&folder, "cu")).collect();
    modules.sort();
    let compiler = Search::here().newest(Kind::Nvrtc, None).and_then(|it| Compiler::new(&it)).ok();
    let text = generated(&headers, &modules, compiler.as_ref(), &output);
    fs::write(output.join("kernels.rs"), text).expect("the output folder");
}

/// Files of a folder by stem and path.
fn files(folder: &Path, extension: &str) -> Vec<(String, PathBuf)> {
    let paths = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let paths = paths.filter(|path| path.extension().is_some_and(|e| e == extension));
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    paths.map(|path| (stem(&path), path)).collect()
}

/// The tables that `cuda/images.rs` includes.
fn generated(
    headers: &[(String, PathBuf)],
    modules: &[(String, PathBuf)],
    compiler: Option<&Compiler>,
    output: &Path,
) -> String {
    let read = |path: &Path| fs::read_to_string(path).expect("a source");
    let named: Vec<_> =
        headers.iter().map(|(name, path)| (format!("{name}.cuh"), read(path))).collect();
    let included: Vec<_> =
        named.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let mut text = String::from("pub(crate) static HEADERS: &[(&str, &str)] = &[\n");
    for (name, path) in headers {
        writeln!(text, "    (\"{name}.cuh\", include_str!({path:?})),").expect("a string");
    }
    let version = compiler.map(|compiler| compiler.version);
    writeln!(text, "];\npub(crate) static COMPILER: Option<Version> = {version:?};").unwrap();
    text.push_str("pub(crate) static MODULES: &[Module] = &[\n");
    for (name, path) in modules {
        let file = format!("{name}.cu");
        let source = Source { name: &file, text: &read(path), headers: &included };
        writeln!(text, "    Module {{ name: {name:?}, source: include_str!({path:?}), images: &[")
            .unwrap();
        for target in compiler.map_or(&[][..], |_| &TARGETS) {
            let compiler = compiler.expect("there are targets");
            let image = Cache::at(&output.join("cache")).image(compiler, &source, target);
            let image = image.unwrap_or_else(|why| panic!("{why}"));
            let at = output.join(format!("{name}.{target}"));
            fs::write(&at, image).expect("the output folder");
            writeln!(text, "        ({target:?}, include_bytes!({at:?})),").unwrap();
        }
        text.push_str("    ] },\n");
    }
    text + "];\n"
}
