//! Tests of the corpus of our own packages, on a made registry and on the real one.

use std::fs;
use std::path::Path;

use super::{CORPUS_BYTES, FILE_BYTES, find, find_packages, registry_folder};
use crate::data::source::Skipped;
use crate::data::{Corpus, DataError, TextSpec};

const LOCK: &str = r#"
[[package]]
name = "ours"
version = "0.1.0"
dependencies = ["alpha", "tests-only", "extra"]

[[package]]
name = "alpha"
version = "1.2.3"
source = "registry+https://example"
dependencies = ["beta 2.0.0", "gamma", "windows-only"]

[[package]]
name = "beta"
version = "1.0.0"
source = "registry+https://example"

[[package]]
name = "beta"
version = "2.0.0"
source = "registry+https://example"

[[package]]
name = "gamma"
version = "0.3.0"
source = "registry+https://example"

[[package]]
name = "extra"
version = "0.1.0"
source = "registry+https://example"

[[package]]
name = "tests-only"
version = "0.1.0"
source = "registry+https://example"

[[package]]
name = "windows-only"
version = "0.1.0"
source = "registry+https://example"
"#;

const OURS: &str = r#"
[dependencies]
alpha = "1"
extra = { version = "0.1", optional = true }
[dev-dependencies]
tests-only = "0.1"
"#;

fn unpack(registry: &Path, package: &str, manifest: &str) {
    let folder = registry.join("index-0").join(package);
    fs::create_dir_all(folder.join("src")).unwrap();
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    fs::write(folder.join("src/lib.rs"), format!("// {package}")).unwrap();
}

#[test]
fn only_what_every_build_needs_is_read() {
    let registry = tempfile::tempdir().unwrap();
    let alpha = "[dependencies]\nbeta = \"2\"\n[dependencies.renamed]\npackage = \"gamma\"\n\
                 [target.'cfg(windows)'.dependencies]\nwindows-only = \"0.1\"";
    unpack(registry.path(), "alpha-1.2.3", alpha);
    for package in ["beta-1.0.0", "beta-2.0.0", "gamma-0.3.0", "extra-0.1.0", "tests-only-0.1.0"] {
        unpack(registry.path(), package, "");
    }
    unpack(registry.path(), "windows-only-0.1.0", "");
    let alpha = registry.path().join("index-0/alpha-1.2.3");
    fs::write(alpha.join("README.md"), "read me").unwrap();
    fs::write(alpha.join("table.rs"), vec![b'x'; FILE_BYTES as usize + 1]).unwrap();
    let mut skipped = Skipped::default();
    let found = find_packages(registry.path(), LOCK, &[OURS], &mut skipped).unwrap();
    let names: Vec<&str> = found.iter().map(|file| file.name.as_str()).collect();
    let expected = [
        "alpha-1.2.3/README.md",
        "alpha-1.2.3/src/lib.rs",
        "beta-2.0.0/src/lib.rs",
        "gamma-0.3.0/src/lib.rs",
    ];
    assert_eq!(names, expected);
    assert_eq!(skipped.large, 1);
}

#[test]
fn without_packages_the_error_says_what_to_do() {
    let registry = tempfile::tempdir().unwrap();
    let error = find(registry.path(), &mut Skipped::default()).err().unwrap();
    assert!(matches!(error, DataError::NoPackages { .. }) && error.is_user_error());
    assert!(error.to_string().contains("data.text=PATH"), "{error}");
}

#[test]
fn our_own_packages_are_enough_to_train_on() {
    // Vendored builds have no registry folder; then there is nothing to look at.
    if !registry_folder().is_dir() {
        return;
    }
    let corpus = Corpus::scan(&TextSpec::from("cargo").into(), &mut |_| Ok(())).unwrap();
    assert!(corpus.bytes <= CORPUS_BYTES);
    assert!(corpus.bytes > CORPUS_BYTES - FILE_BYTES, "{} bytes", corpus.bytes);
    assert!(corpus.files.iter().all(|file| !file.name.starts_with("proptest")));
    assert!(corpus.files.is_sorted_by_key(|file| file.name.split('/').next().unwrap().to_owned()));
}
