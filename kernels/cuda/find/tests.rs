//! Finding libraries, with libraries that the tests make.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Kind, SETTING, Search, missing};
use crate::cuda::find::Version;
use crate::cuda::library::Library;
use crate::cuda::testing::shared_library;

const NCCL: &str = "libnccl.so.2";

/// A library that says it is of that version, as NCCL says it.
fn nccl(folder: &Path, number: u32) -> Option<PathBuf> {
    let body = format!("extern \"C\" int ncclGetVersion(int* v) {{ *v = {number}; return 0; }}\n");
    library(folder, NCCL, &body)
}

fn library(folder: &Path, name: &str, body: &str) -> Option<PathBuf> {
    fs::create_dir_all(folder).unwrap();
    let source = folder.join(format!("{name}.cpp"));
    fs::write(&source, body).unwrap();
    shared_library("cuda::find", &[&source], &folder.join(name))
}

fn within(folders: &[&Path]) -> Search {
    let list = std::env::join_paths(folders).unwrap();
    Search::of_environment(&|name| (name == SETTING).then(|| list.clone()))
}

fn folders<const N: usize>(root: &TempDir) -> [PathBuf; N] {
    std::array::from_fn(|i| root.path().join(i.to_string()))
}

#[test]
fn the_newest_of_two_is_taken_whichever_comes_first() {
    let root = TempDir::new().unwrap();
    let [old, new] = folders(&root);
    let (Some(old_path), Some(new_path)) = (nccl(&old, 21903), nccl(&new, 22809)) else { return };
    for order in [[&*old, &*new], [&*new, &*old]] {
        let search = within(&order);
        let found = search.newest(Kind::Nccl, None).unwrap();
        assert_eq!((&found.path, found.version.to_string()), (&new_path, "2.28.9".to_string()));
        let all = search.candidates(Kind::Nccl, None);
        let all: Vec<String> = all.iter().map(ToString::to_string).collect();
        let old = format!("2.19.3 at {}", old_path.display());
        assert_eq!(all, [format!("2.28.9 at {}", new_path.display()), old]);
        // Two of one name are loaded beside each other, each as itself.
        let function = found.library.function(c"ncclGetVersion").unwrap();
        assert_eq!(Library::file_of(function), Some(new_path.clone()));
    }
}

#[test]
fn a_link_is_no_second_candidate() {
    let root = TempDir::new().unwrap();
    let [real, link] = folders(&root);
    if nccl(&real, 22809).is_none() {
        return;
    }
    std::os::unix::fs::symlink(&real, &link).unwrap();
    assert_eq!(within(&[&real, &link]).candidates(Kind::Nccl, None).len(), 1);
}

#[test]
fn what_is_broken_or_too_old_is_named_with_what_to_install() {
    let root = TempDir::new().unwrap();
    let [old, text, other, stuck, empty] = folders(&root);
    let unsure = "extern \"C\" int ncclGetVersion(int*) { return 3; }\n";
    let made = [nccl(&old, 2708), library(&other, NCCL, "int x;\n"), library(&stuck, NCCL, unsure)];
    if made.iter().any(Option::is_none) {
        return;
    }
    fs::create_dir_all(&text).unwrap();
    fs::write(text.join(NCCL), "not a library").unwrap();
    let search = within(&[&old, &text, &other, &stuck, &empty]);
    let said = search.newest(Kind::Nccl, None).unwrap_err();
    for part in [
        "no NCCL that will do: expected 2.18 or newer, found ",
        "/0/libnccl.so.2 (2.7, too old)",
        "/1/libnccl.so.2: file too short)",
        "/2/libnccl.so.2 (lacks ncclGetVersion)",
        "/3/libnccl.so.2 (does not tell its version: error 3)",
        "; pip install nvidia-nccl-cu13",
    ] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    // One that works is taken all the same.
    let [.., good] = folders::<6>(&root);
    nccl(&good, 22809).unwrap();
    let found = within(&[&old, &text, &other, &good]).newest(Kind::Nccl, None).unwrap();
    assert_eq!(found.path, good.join(NCCL));
    let nowhere = within(&[&empty]).newest(Kind::CublasLt, None).unwrap_err();
    let expected = "no cuBLASLt that will do: expected 12.8 or newer, libcublasLt.so.13 or \
                    libcublasLt.so.12 is nowhere; pip install nvidia-cublas";
    assert_eq!(nowhere, expected);
}

#[test]
fn a_compiler_newer_than_the_driver_is_passed_over() {
    let root = TempDir::new().unwrap();
    let [new, old] = folders(&root);
    let nvrtc = |major: u32, minor: u32| {
        format!(
            "extern \"C\" int nvrtcVersion(int* a, int* b) {{ *a = {major}; *b = {minor}; \
             return 0; }}\n"
        )
    };
    let (Some(_), Some(fits)) = (
        library(&new, "libnvrtc.so.13", &nvrtc(13, 0)),
        library(&old, "libnvrtc.so.12", &nvrtc(12, 9)),
    ) else {
        return;
    };
    let search = within(&[&new, &old]);
    let version = |major, minor| Some(Version { major, minor, patch: 0 });
    assert_eq!(
        search.newest(Kind::Nvrtc, version(13, 0)).unwrap().path,
        new.join("libnvrtc.so.13")
    );
    assert_eq!(search.newest(Kind::Nvrtc, version(12, 8)).unwrap().path, fits);
    let candidates = search.candidates(Kind::Nvrtc, version(11, 8));
    let said = missing(Kind::Nvrtc, &candidates);
    assert!(said.contains("13.0, too new for a driver of CUDA 11.8"), "{said}");
}

#[test]
fn python_environments_are_searched_unless_the_setting_names_folders() {
    let root = TempDir::new().unwrap();
    let [venv, on_path, elsewhere] = folders(&root);
    let packages = |root: &Path| root.join("lib/python3.12/site-packages/nvidia/nccl/lib");
    let made = [nccl(&packages(&venv), 22809), nccl(&packages(&on_path), 22703)];
    let (Some(active), Some(second)) = (made[0].clone(), made[1].clone()) else { return };
    nccl(&elsewhere, 21903).unwrap();
    fs::create_dir_all(on_path.join("bin")).unwrap();
    fs::write(on_path.join("bin/python3"), "").unwrap();
    let search = |setting: bool| {
        let variable = |name: &str| -> Option<OsString> {
            match name {
                "VIRTUAL_ENV" => Some(venv.clone().into()),
                "PATH" => Some(format!("{}:/no/such", on_path.join("bin").display()).into()),
                SETTING => setting.then(|| elsewhere.clone().into()),
                _ => None,
            }
        };
        Search::of_environment(&variable)
    };
    let ours = |search: &Search| -> Vec<PathBuf> {
        let candidates = search.candidates(Kind::Nccl, None);
        let ours = candidates.into_iter().map(|candidate| candidate.path);
        ours.filter(|path| path.starts_with(root.path())).collect()
    };
    assert_eq!(ours(&search(false)), [active, second]);
    assert_eq!(ours(&search(true)), [elsewhere.join(NCCL)]);
}

#[test]
fn a_function_knows_its_file() {
    let library = Library::open(Path::new("libc.so.6")).unwrap();
    let file = Library::file_of(library.function(c"malloc").unwrap()).unwrap();
    assert!(file.is_absolute() && file.exists(), "{}", file.display());
    assert!(library.function(c"no_such_function").is_none());
    assert!(Library::open(Path::new("libno-such-thing.so.7")).is_err());
}
