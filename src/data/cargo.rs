//! `data.text = "cargo"`: real text that is on every machine that built this program.
//!
//! Duty: names the `.rs` and `.md` files of the packages below us, as Cargo unpacked them into
//! its registry folder. The same binary must always see the same corpus, and Cargo unpacks
//! more packages on some occasions (tests, `cargo metadata`, other platforms). So the list
//! holds only what every build needs: packages that are reachable from our three manifests'
//! `[dependencies]` through unconditional dependencies, in name order.
//! Prohibition: downloads nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::error::DataError;
use super::source::{Candidate, Skipped, has_extension, walk};

/// The corpus ends with the last file before so many bytes.
pub(super) const CORPUS_BYTES: u64 = 16 << 20;
/// Files above this are generated tables, not something to learn a language from.
const FILE_BYTES: u64 = 256 << 10;

const LOCK: &str = include_str!("../../Cargo.lock");
const MANIFESTS: [&str; 3] = [
    include_str!("../../Cargo.toml"),
    include_str!("../../actors/Cargo.toml"),
    include_str!("../../kernels/Cargo.toml"),
];

/// `$CARGO_HOME/registry/src`, by default below `~/.cargo`.
pub(super) fn registry_folder() -> PathBuf {
    let home = std::env::var_os("CARGO_HOME")
        .filter(|home| !home.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
        .unwrap_or_else(|| PathBuf::from(".cargo"));
    home.join("registry").join("src")
}

/// The files of our packages below `registry`, in order.
pub(super) fn find(registry: &Path, skipped: &mut Skipped) -> Result<Vec<Candidate>, DataError> {
    find_packages(registry, LOCK, &MANIFESTS, skipped)
}

/// A package of the lock file: name and version.
type Package = (String, String);

fn find_packages(
    registry: &Path,
    lock: &str,
    manifests: &[&str],
    skipped: &mut Skipped,
) -> Result<Vec<Candidate>, DataError> {
    let lock = Lock::parse(lock);
    let indexes = index_folders(registry);
    let mut wanted: Vec<Package> = manifests
        .iter()
        .filter_map(|manifest| manifest.parse().ok())
        .flat_map(|manifest: Table| unconditional(&manifest, Optional::Leave))
        .flat_map(|name| lock.versions(&name))
        .collect();
    let mut packages = BTreeMap::new();
    let mut seen = BTreeSet::new();
    while let Some(package) = wanted.pop() {
        if !seen.insert(package.clone()) {
            continue;
        }
        let unpacked = format!("{}-{}", package.0, package.1);
        let folder = indexes.iter().map(|index| index.join(&unpacked)).find(|path| path.is_dir());
        let Some(folder) = folder else { continue };
        wanted.extend(lock.followed(&package, &folder));
        packages.insert(package, folder);
    }
    if packages.is_empty() {
        return Err(DataError::NoPackages { folder: registry.to_owned() });
    }
    let mut found = Vec::new();
    for folder in packages.values() {
        // Names begin with the package, so the folder above is their root.
        let root = folder.parent().unwrap_or(folder);
        let mut ignored = Skipped::default();
        let wanted = |path: &Path| has_extension(path, &["rs", "md"]);
        walk(root, folder, &mut found, &mut ignored, &wanted)?;
    }
    let before = found.len();
    found.retain(|file| fs::metadata(&file.path).is_ok_and(|kind| kind.len() <= FILE_BYTES));
    skipped.large += (before - found.len()) as u64;
    Ok(found)
}

/// `registry/src/*`, one per registry that Cargo knows, in name order.
fn index_folders(registry: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(registry) else { return Vec::new() };
    let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    folders
}

/// What to do with dependencies that a feature switches on.
#[derive(PartialEq)]
enum Optional {
    Leave,
    Take,
}

/// The packages named in a manifest's `[dependencies]`; not `[target.*]`, not for tests.
fn unconditional(manifest: &Table, optional: Optional) -> Vec<String> {
    let Some(Value::Table(dependencies)) = manifest.get("dependencies") else { return Vec::new() };
    dependencies
        .iter()
        .filter(|(_, value)| {
            optional == Optional::Take
                || !value.get("optional").and_then(Value::as_bool).unwrap_or(false)
        })
        .map(|(key, value)| {
            value.get("package").and_then(Value::as_str).unwrap_or(key.as_str()).to_owned()
        })
        .collect()
}

/// Cargo.lock: which packages there are, and which of them each one uses.
struct Lock {
    edges: BTreeMap<Package, Vec<Package>>,
}

impl Lock {
    fn parse(text: &str) -> Self {
        let lock: Table = text.parse().unwrap_or_default();
        let entries = match lock.get("package") {
            Some(Value::Array(entries)) => entries.as_slice(),
            _ => &[],
        };
        let field = |entry: &Value, key: &str| {
            entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let mut lock = Self { edges: BTreeMap::new() };
        for entry in entries {
            if field(entry, "source").starts_with("registry+") {
                lock.edges.insert((field(entry, "name"), field(entry, "version")), Vec::new());
            }
        }
        for entry in entries {
            let used = match entry.get("dependencies") {
                Some(Value::Array(used)) => used.as_slice(),
                _ => continue,
            };
            let targets = used.iter().filter_map(Value::as_str).flat_map(|one| lock.resolve(one));
            let targets: Vec<Package> = targets.collect();
            if let Some(edges) =
                lock.edges.get_mut(&(field(entry, "name"), field(entry, "version")))
            {
                *edges = targets;
            }
        }
        lock
    }

    /// `name` or `name version` of a dependency list.
    fn resolve(&self, reference: &str) -> Vec<Package> {
        let mut words = reference.split(' ');
        let name = words.next().unwrap_or_default();
        match words.next() {
            Some(version) => vec![(name.to_owned(), version.to_owned())],
            None => self.versions(name),
        }
    }

    fn versions(&self, name: &str) -> Vec<Package> {
        self.edges.keys().filter(|package| package.0 == name).cloned().collect()
    }

    /// What `package` uses on every platform: its manifest says unconditional, the lock says
    /// which version, or that the feature is off.
    fn followed(&self, package: &Package, folder: &Path) -> Vec<Package> {
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
        let manifest: Table = manifest.parse().unwrap_or_default();
        let names: BTreeSet<String> =
            unconditional(&manifest, Optional::Take).into_iter().collect();
        let edges = self.edges.get(package).map_or(&[][..], Vec::as_slice);
        edges.iter().filter(|used| names.contains(&used.0)).cloned().collect()
    }
}

#[cfg(test)]
mod tests;
