//! House rules as a test: what can be checked about how the code is written is checked here.
//!
//! A file that honestly needs more says so in its header and stands in the list of its rule.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use octet::config::Config;
use octet::plan::machine::Machine;
use octet::plan::{DISK_BYTES_PER_S, plan};
use octet_kernels::graph::Target;

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;
/// A toy graph that needs more shows that the walls stand in the wrong place.
const WIDTH_LINES_MAX: usize = 80;

/// Files that may be longer, with the reason in their headers.
const LONG_FILES: [&str; 0] = [];
/// Integration tests that need a process of their own, with the reason in their headers.
const INNER_TEST_FOLDERS: [&str; 1] = ["kernels/tests"];

/// A disk is shared by nature: its model for tests has a lock.
const MAY_LOCK: [&str; 1] = ["actors/outside/faulty.rs"];

struct Source {
    name: String,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        self.name.ends_with("tests.rs")
            || self.name.contains("/tests/")
            || self.name.starts_with("tests/")
    }

    /// Lines of code with string literals, characters and comments blanked out.
    fn code(&self) -> impl Iterator<Item = (usize, String)> {
        self.text.lines().enumerate().map(|(i, line)| (i + 1, blank(line)))
    }
}

/// Removes comments and the contents of string literals, as far as a line shows them.
fn blank(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match (quoted, c) {
            (true, '\\') => drop(chars.next()),
            (_, '"') => quoted = !quoted,
            (true, _) => {}
            (false, '/') if chars.peek() == Some(&'/') => break,
            (false, _) => out.push(c),
        }
    }
    out
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn collect(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in ["src", "actors", "kernels", "tests"] {
        collect(&root().join(folder), "rs", &mut paths);
    }
    paths.sort();
    assert!(paths.len() > 50, "only {} files: the walk is broken", paths.len());
    let relative = |path: &Path| path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
    paths
        .iter()
        .map(|path| Source { name: relative(path), text: fs::read_to_string(path).unwrap() })
        .collect()
}

/// Fails with every offence at once.
fn forbid(offences: Vec<String>) {
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

fn offences(mut check: impl FnMut(&Source, &mut Vec<String>)) {
    let mut found = Vec::new();
    for source in sources() {
        check(&source, &mut found);
    }
    forbid(found);
}

#[test]
fn files_and_lines_have_their_limits() {
    offences(|source, found| {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX && !LONG_FILES.contains(&source.name.as_str()) {
            found.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", source.name));
        }
        for (i, line) in source.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                found.push(format!("{}:{}: {columns} columns", source.name, i + 1));
            }
        }
    });
    let mut of_gpus = Vec::new();
    for extension in ["cu", "cuh", "cpp", "h"] {
        collect(&root().join("kernels"), extension, &mut of_gpus);
    }
    assert!(of_gpus.len() > 40, "only {} files: the walk is broken", of_gpus.len());
    let lines = |path: &PathBuf| fs::read_to_string(path).unwrap().lines().count();
    let long = of_gpus.iter().filter(|path| lines(path) > FILE_LINES_MAX);
    forbid(
        long.map(|path| format!("{}: more than {FILE_LINES_MAX} lines", path.display())).collect(),
    );
}

#[test]
fn functions_have_their_limit() {
    offences(|source, found| {
        let lines: Vec<&str> = source.text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let code = blank(line);
            let words: Vec<&str> = code.split_whitespace().collect();
            let is_function = words.iter().position(|&w| w == "fn").is_some_and(|at| {
                let before = ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe"];
                words[..at].iter().all(|w| before.contains(w))
            });
            if !is_function {
                continue;
            }
            let signature = lines[i..].iter().find(|l| l.ends_with('{') || l.ends_with(';'));
            if signature.is_none_or(|l| l.ends_with(';')) {
                continue;
            }
            let close = format!("{}}}", " ".repeat(indent));
            let Some(length) = lines[i..].iter().position(|l| *l == close) else { continue };
            if length + 1 > FUNCTION_LINES_MAX {
                let at = format!("{}:{}", source.name, i + 1);
                found.push(format!("{at}: {} lines in a function", length + 1));
            }
        }
    });
}

#[test]
fn every_file_says_what_it_is_for() {
    offences(|source, found| {
        if !source.text.starts_with("//! ") {
            found.push(format!("{}: no `//!` header", source.name));
        }
    });
}

/// Packages whose documentation is held to saying more than names do.
const DOCUMENTED: [&str; 1] = ["kernels/"];
/// What a sentence has beside its words.
const ARTICLES: [&str; 12] =
    ["the", "a", "an", "it", "of", "thi", "that", "their", "all", "in", "for", "to"];

/// The words of a name or a sentence, in lower case and singular.
fn words(text: &str) -> BTreeSet<String> {
    let mut spaced = String::new();
    for c in text.chars() {
        if c.is_uppercase() && spaced.ends_with(char::is_lowercase) {
            spaced.push(' ');
        }
        spaced.extend(c.to_lowercase());
    }
    let singular = |word: &str| word.trim_end_matches('s').to_string();
    let words = spaced.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
    words.map(singular).filter(|w| !ARTICLES.contains(&w.as_str())).collect()
}

/// The name that a line of code declares.
fn declared(code: &str) -> &str {
    let keywords = ["pub", "crate", "super", "const", "unsafe", "async", "fn", "struct", "enum"];
    let more = ["trait", "type", "static", "mod", "mut", "impl"];
    let names = code.split(|c: char| !c.is_alphanumeric() && c != '_');
    let is_name =
        |word: &&str| !word.is_empty() && !keywords.contains(word) && !more.contains(word);
    names.into_iter().find(is_name).unwrap_or("")
}

#[test]
fn a_comment_says_more_than_the_name() {
    offences(|source, found| {
        if !DOCUMENTED.iter().any(|package| source.name.starts_with(package)) {
            return;
        }
        let lines: Vec<&str> = source.text.lines().map(str::trim).collect();
        let is_doc = |i: usize| lines.get(i).is_some_and(|line| line.starts_with("///"));
        for i in 0..lines.len() {
            let alone = is_doc(i) && !is_doc(i + 1) && (i == 0 || !is_doc(i - 1));
            let item =
                lines[(i + 1).min(lines.len())..].iter().find(|line| !line.starts_with("#["));
            let Some(item) = item.filter(|_| alone) else { continue };
            if words(&lines[i][3..]).is_subset(&words(declared(item))) {
                found.push(format!("{}:{}: {} says its name", source.name, i + 1, lines[i]));
            }
        }
    });
    let filler = ["/// The slot.", "pub slot: usize,"];
    assert!(words(filler[0]).is_subset(&words(declared(filler[1]))), "the rule sees nothing");
}

#[test]
fn tests_stand_in_a_file_of_their_own() {
    offences(|source, found| {
        for (line, code) in source.code() {
            if code.trim_start().starts_with("mod tests {") {
                found.push(format!("{}:{line}: tests in line", source.name));
            }
            if code.contains("#[test]") && !source.is_test() {
                found.push(format!("{}:{line}: a test outside a tests file", source.name));
            }
        }
        let inner = source.name.contains("/tests/") && source.name.starts_with("kernels/");
        if inner && !INNER_TEST_FOLDERS.iter().any(|folder| source.name.starts_with(folder)) {
            found.push(format!("{}: an integration test outside tests/", source.name));
        }
    });
}

#[test]
fn nothing_is_left_over_and_nothing_is_hidden() {
    let banned = ["todo!(", "dbg!(", "unimplemented!(", "#[ignore"];
    offences(|source, found| {
        for (line, code) in source.code() {
            for word in banned.iter().filter(|word| code.contains(**word)) {
                found.push(format!("{}:{line}: {word}", source.name));
            }
            let wildcard = code.trim_start().starts_with("use ") || code.contains("pub use ");
            if wildcard && code.contains("::*") {
                found.push(format!("{}:{line}: a wildcard import", source.name));
            }
        }
    });
}

#[test]
fn one_file_writes_to_the_terminal() {
    // Whatever else writes there waits for whoever reads it, and panics when nobody does.
    let prints = ["println!(", "print!(", "io::stdout()", "io::stderr()"];
    offences(|source, found| {
        // A build script talks to cargo so.
        let front = ["src/cli/output.rs", "kernels/build.rs"].contains(&source.name.as_str());
        let front = front || source.is_test() || source.name.ends_with("testing.rs");
        for (line, code) in source.code().filter(|_| !front) {
            for word in prints.iter().filter(|word| code.contains(**word)) {
                let instead = "cli::output has out!, say and complain";
                found.push(format!("{}:{line}: {word} ({instead})", source.name));
            }
        }
    });
}

#[test]
fn the_runtime_knows_no_model_and_has_no_lock() {
    let words = ["vocab", "expert", "logits", "image"];
    let locks = ["Mutex", "RwLock"];
    offences(|source, found| {
        let locks: &[&str] = if MAY_LOCK.contains(&source.name.as_str()) { &[] } else { &locks };
        for (line, code) in source.code().filter(|_| source.name.starts_with("actors/")) {
            for word in words.iter().chain(locks).filter(|word| code.contains(**word)) {
                found.push(format!("{}:{line}: {word}", source.name));
            }
        }
    });
}

#[test]
fn actix_is_known_in_three_places() {
    offences(|source, found| {
        let web = source.name.starts_with("actors/web");
        let host = source.name.starts_with("actors/host");
        let web = web || source.name == "src/serve/http.rs";
        for (line, code) in source.code() {
            let (actix, actix_web) = (code.contains("actix::"), code.contains("actix_web::"));
            if (actix && !host && !web) || (actix_web && !web) {
                found.push(format!("{}:{line}: actix", source.name));
            }
        }
    });
}

#[test]
fn the_packages_depend_in_one_direction() {
    let manifest = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    assert!(!manifest("kernels/Cargo.toml").contains("octet-actors"));
    assert!(!manifest("kernels/Cargo.toml").contains("octet-trainer"));
    assert!(!manifest("actors/Cargo.toml").contains("octet-trainer"));
    let no_config_parser = |text: &str| text.lines().all(|line| !line.starts_with("nccl"));
    assert!(no_config_parser(&manifest("Cargo.toml")), "`nccl` is a configuration parser");
}

#[test]
fn the_graphs_of_the_width_test_stay_small() {
    offences(|source, found| {
        let shared = source.name.ends_with("/harness.rs") || source.name.ends_with("/main.rs");
        let lines = source.text.lines().count();
        if source.name.starts_with("tests/width/") && !shared && lines > WIDTH_LINES_MAX {
            found.push(format!("{}: {lines} lines, at most {WIDTH_LINES_MAX}", source.name));
        }
    });
}

#[test]
fn every_recipe_parses_and_plans() {
    let mut recipes = Vec::new();
    collect(&root().join("configs"), "toml", &mut recipes);
    assert!(!recipes.is_empty(), "no recipes: the walk is broken");
    for path in recipes {
        let config = Config::load(&path, &[]).unwrap_or_else(|e| panic!("{e}"));
        // As many rows as a tokenizer of some thousand tokens asks for, where none is given.
        let vocabulary = config.model.vocabulary.unwrap_or(config.model.padded_vocabulary(4096));
        let plan = plan(&config, vocabulary, &Machine::gpus(Target::H200), 1, DISK_BYTES_PER_S);
        let plan = plan.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let parts: usize = plan.arena.iter().map(|part| part.bytes).sum();
        assert!(plan.parameters > 0 && parts <= plan.arena_bytes, "{}", path.display());
    }
}

#[test]
fn every_op_has_a_cpu_run_and_helpers_know_no_device() {
    let ops = root().join("kernels/ops");
    let folders = fs::read_dir(&ops).unwrap().flatten().map(|entry| entry.path());
    let folders: Vec<PathBuf> = folders.filter(|path| path.is_dir()).collect();
    assert!(folders.len() > 30, "only {} ops: the walk is broken", folders.len());
    let lonely = folders.iter().filter(|path| !path.join("cpu.rs").exists());
    forbid(lonely.map(|path| format!("{}: no cpu.rs", path.display())).collect());
    offences(|source, found| {
        let helper = source.name.strip_prefix("kernels/ops/").is_some_and(|n| !n.contains('/'));
        // What an op is names the run of every backend.
        let names_runs = ["/mod.rs", "/gradient_op.rs", "/tests.rs"];
        let helper = helper && !names_runs.iter().any(|name| source.name.ends_with(name));
        for (line, code) in source.code().filter(|_| helper) {
            if code.contains("cpu::") || code.contains("CpuRun") {
                found.push(format!("{}:{line}: a helper of all backends uses one", source.name));
            }
        }
    });
}

#[test]
fn kinds_of_objectives_are_known_to_their_registry_alone() {
    let registry = fs::read_to_string(root().join("src/objectives/mod.rs")).unwrap();
    let kinds: Vec<(&str, &str)> = registry
        .lines()
        .filter_map(|line| line.trim().split_once(" => "))
        .filter_map(|(tag, variant)| Some((tag, variant.split_once('(')?.0)))
        .filter(|(tag, _)| tag.starts_with('"'))
        .collect();
    assert!(kinds.len() >= 5, "{kinds:?}");
    offences(|source, found| {
        let outside = source.name.starts_with("src/") && !source.name.starts_with("src/objectives");
        if !outside || source.is_test() {
            return;
        }
        for (number, line) in source.text.lines().enumerate() {
            let named = |name: &str| line.split(|c: char| !c.is_alphanumeric()).any(|w| w == name);
            if kinds.iter().any(|(tag, variant)| line.contains(tag) || named(variant)) {
                found.push(format!("{}:{}: a kind of objective: {line}", source.name, number + 1));
            }
        }
    });
}
