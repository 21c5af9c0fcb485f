//! The static gate: every kernel, compiled for every target, held against what its source expects.
//!
//! Refused are kernels that spill registers or use local memory, that the compiler warns about or
//! whose products it has put in a row, and those that lack an instruction that stands beside them:
//!
//! ```text
//! // expects swiglu_bf16: LDG.E.128 STG.E.128
//! // expects matmul_bf16_*: HMMA.16816.F32.BF16 LDSM LDGSTS
//! // expects matmul_tma_* (sm_90a): HGMMA UTMALDG
//! ```
//!
//! An instruction is there if one begins with it, up to a point. A `*` ends a name. The compiler is
//! the one that the product uses, with the product's options; `scripts/cuda_tools` takes it and the
//! disassembler from PyPI.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cuda::find::{Kind, SETTING, Search};
use crate::cuda::nvrtc::{Compiler, INTERMEDIATE, Source};
use crate::cuda::testing::skip;

mod tests;

/// Names the folder with `lib/libnvrtc.so.*`, `bin/cuobjdump` and `bin/ptxas`.
pub(super) const TOOLS: &str = "OCTET_CUDA_TOOLS";

/// Some architecture that has the intermediate form only.
const TRANSLATED: &str = "sm_89";

/// What the compiler is to say about each kernel.
const VERBOSE: [&str; 3] = [
    "--ptxas-options=-v",
    "--ptxas-options=--warn-on-spills",
    "--ptxas-options=--warn-on-local-memory-usage",
];

/// The compiler and the disassembler.
pub(super) struct Tools {
    pub(super) compiler: Compiler,
    folder: PathBuf,
}

impl Tools {
    /// `None`, said aloud, where [`TOOLS`] is not set. Panics if it is and they are not there.
    pub(super) fn here(test: &str) -> Option<Self> {
        let Some(folder) = std::env::var_os(TOOLS).map(PathBuf::from) else {
            skip(test, &format!("{TOOLS} is not set: {TOOLS}=$(scripts/cuda_tools) cargo test"));
            return None;
        };
        let library = folder.join("lib").into_os_string();
        let search = Search::of_environment(&|name| (name == SETTING).then(|| library.clone()));
        let found = search.newest(Kind::Nvrtc, None).unwrap_or_else(|why| panic!("{why}"));
        let compiler = Compiler::new(&found).unwrap_or_else(|why| panic!("{why}"));
        Some(Self { compiler, folder })
    }

    fn tool(&self, name: &str, arguments: &[&Path]) -> Result<String, String> {
        let done = Command::new(self.folder.join("bin").join(name)).args(arguments).output();
        let done = done.map_err(|error| format!("{name}: {error}"))?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (out, err) = (text(done.stdout), text(done.stderr));
        match done.status.success() {
            true => Ok(format!("{out}{err}")),
            false => Err(format!("{name}: {out}{err}")),
        }
    }

    /// What is wrong with a source, compiled for a target.
    pub(super) fn offences(&self, source: &Source<'_>, target: &str) -> Vec<String> {
        match self.built(source, target) {
            Err(why) => vec![why],
            Ok((log, assembly)) => {
                let found = in_log(&log).into_iter().chain(in_assembly(&assembly));
                let missing = missing(source.text, target, &functions(&assembly));
                let found = found.chain(missing);
                found.map(|what| format!("{} for {target}: {what}", source.name)).collect()
            }
        }
    }

    /// The compiler's log and the instructions that it made.
    fn built(&self, source: &Source<'_>, target: &str) -> Result<(String, String), String> {
        let compiled = self.compiler.compile(source, target, &VERBOSE)?;
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let image = folder.path().join("image");
        let mut log = compiled.log;
        if target == INTERMEDIATE {
            let ptx = folder.path().join("ptx");
            let text = compiled.image.strip_suffix(&[0]).unwrap_or(&compiled.image);
            std::fs::write(&ptx, text).map_err(|error| error.to_string())?;
            let architecture = format!("-arch={TRANSLATED}");
            let (verbose, to) = (Path::new("-v"), Path::new("-o"));
            log = self.tool("ptxas", &[Path::new(&architecture), verbose, &ptx, to, &image])?;
        } else {
            std::fs::write(&image, compiled.image).map_err(|error| error.to_string())?;
        }
        let assembly = self.tool("cuobjdump", &[Path::new("-sass"), &image])?;
        Ok((log, assembly))
    }
}

/// Warnings, spills and stack frames that the compiler tells of.
fn in_log(log: &str) -> Vec<String> {
    let mut function = "";
    let mut found = Vec::new();
    for line in log.lines() {
        if let Some((_, name)) = line.split_once("Function properties for ") {
            function = name.trim();
        }
        let remark = ["warning", "serialized", "Performance Loss", "C75", "ignored"];
        if remark.iter().any(|word| line.contains(word)) {
            found.push(line.trim().to_string());
        }
        let parts = line.contains(" bytes stack frame").then(|| line.split(','));
        for part in parts.into_iter().flatten() {
            let (count, what) = part.split_once(" bytes ").unwrap_or((part, ""));
            let count = count.split_whitespace().last().unwrap_or("");
            if count != "0" {
                found.push(format!("{function}: {count} bytes {what}"));
            }
        }
    }
    found
}

/// Instructions by function.
fn functions(assembly: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut functions = BTreeMap::new();
    for part in assembly.split("Function : ").skip(1) {
        let mut lines = part.lines();
        let name = lines.next().unwrap_or("").trim();
        functions.insert(name, lines.filter_map(instruction).collect());
    }
    functions
}

/// `/*0010*/  @P0 LDG.E.128 R4, [R2] ;` holds `LDG.E.128`.
fn instruction(line: &str) -> Option<&str> {
    let (address, rest) = line.trim().strip_prefix("/*")?.split_once("*/")?;
    u64::from_str_radix(address, 16).ok()?;
    let mut words = rest.split_whitespace().filter(|word| !word.starts_with(['@', '{']));
    words.next().filter(|word| word.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// Accesses to local memory.
fn in_assembly(assembly: &str) -> Vec<String> {
    let functions = functions(assembly);
    let local = |(name, instructions): (&str, BTreeSet<&str>)| {
        let local = instructions.iter().find(|i| i.starts_with("LDL") || i.starts_with("STL"));
        local.map(|instruction| format!("{name}: local memory, {instruction}"))
    };
    functions.into_iter().filter_map(local).collect()
}

/// Expected instructions that are not there, and expectations of no function.
fn missing(source: &str, target: &str, functions: &BTreeMap<&str, BTreeSet<&str>>) -> Vec<String> {
    let mut found = Vec::new();
    let lines = source.lines().filter_map(|line| line.trim().strip_prefix("// expects "));
    for line in lines {
        let Some((what, instructions)) = line.split_once(": ") else {
            found.push(format!("no \": \" in // expects {line}"));
            continue;
        };
        let (name, targets) = what.split_once(" (").unwrap_or((what, ""));
        let mut targets = targets.trim_end_matches(')').split(", ").filter(|one| !one.is_empty());
        let stem = name.strip_suffix('*');
        let named = |function: &str| match stem {
            Some(stem) => function.starts_with(stem),
            None => function == name,
        };
        if targets.clone().next().is_some() && !targets.any(|one| one == target) {
            continue;
        }
        let mut functions = functions.iter().filter(|(function, _)| named(function)).peekable();
        if functions.peek().is_none() {
            found.push(format!("no function {name}, of which {instructions} is expected"));
        }
        for (function, made) in functions {
            let is_there = |wanted: &str| {
                made.iter().any(|one| {
                    one.strip_prefix(wanted).is_some_and(|r| r.is_empty() || r.starts_with('.'))
                })
            };
            let lacks = instructions.split_whitespace().filter(|wanted| !is_there(wanted));
            found.extend(lacks.map(|wanted| format!("{function} lacks {wanted}")));
        }
    }
    found
}
