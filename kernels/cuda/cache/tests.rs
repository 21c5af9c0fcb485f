//! What is kept, and what is compiled again.

use std::fs;
use std::path::PathBuf;

use super::{Cache, read, write};
use crate::cuda::gate::Tools;
use crate::cuda::nvrtc::Source;

fn files(folder: &std::path::Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn what_is_torn_or_changed_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/image");
    assert_eq!(read(&path), None);
    write(&path, b"an image").unwrap();
    assert_eq!(read(&path).unwrap(), b"an image");
    let whole = fs::read(&path).unwrap();
    for damaged in [&whole[..whole.len() - 1], &whole[..4], &[], &[&whole[..], b"x"].concat()] {
        fs::write(&path, damaged).unwrap();
        assert_eq!(read(&path), None, "{} of {} bytes", damaged.len(), whole.len());
    }
    assert_eq!(files(path.parent().unwrap()), [path]);
}

#[test]
fn ranks_that_write_at_once_leave_one_whole_image() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let image = vec![7; 1 << 16];
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    write(&path, &image).unwrap();
                    assert_eq!(read(&path).as_ref(), Some(&image));
                }
            });
        }
    });
    assert_eq!(files(folder.path()), [path]);
}

#[test]
fn an_image_is_kept_by_all_that_it_depends_on() {
    let Some(tools) = Tools::here("cuda::cache") else { return };
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path());
    let text = "#include \"a.cuh\"\nextern \"C\" __global__ void f(int* x) { *x = A; }\n";
    let image = |text: &str, header: &str, target: &str| {
        let source = Source { name: "f.cu", text, headers: &[("a.cuh", header)] };
        cache.image(&tools.compiler, &source, target).unwrap()
    };
    let one = "#define A 1\n";
    let first = image(text, one, "sm_80");
    // What is kept is what is taken: the file is the only thing that can be other.
    let path = files(folder.path()).remove(0);
    write(&path, b"kept").unwrap();
    assert_eq!(image(text, one, "sm_80"), b"kept");
    fs::write(&path, b"torn").unwrap();
    assert_eq!(image(text, one, "sm_80"), first);
    for (text, header, target) in [
        (text, "#define A 2\n", "sm_80"),
        (text, one, "sm_90a"),
        (&text.replace("f(", "g("), one, "sm_80"),
    ] {
        assert_ne!(image(text, header, target), first);
    }
    assert_eq!(files(folder.path()).len(), 4);
    // Where nothing can be kept, everything is compiled.
    let source = Source { name: "f.cu", text, headers: &[("a.cuh", one)] };
    let nowhere = Cache::at(&path.join("below/a/file"));
    assert_eq!(nowhere.image(&tools.compiler, &source, "sm_80").unwrap(), first);
}
