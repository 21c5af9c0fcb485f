//! Which image a GPU gets.

use super::{COMPILER, Images, Module, exact, fitting};
use crate::cuda::cache::Cache;
use crate::cuda::find::{SETTING, Search, Version};
use crate::cuda::gate::Tools;
use crate::cuda::nvrtc::TARGETS;

const fn version(major: u32, minor: u32) -> Version {
    Version { major, minor, patch: 0 }
}

#[test]
fn a_gpu_gets_code_if_there_is_some_that_it_runs_and_else_what_its_driver_translates() {
    let (old, new) = (version(12, 8), version(13, 0));
    for (architecture, compiler, driver, expected) in [
        ([8, 0], new, new, Some("sm_80")),
        ([8, 9], new, new, Some("sm_80")),
        ([9, 0], new, new, Some("sm_90a")),
        ([10, 0], new, new, Some("sm_100a")),
        // What ends in a letter runs on its own architecture only.
        ([10, 3], new, new, Some("compute_80")),
        ([12, 0], new, version(13, 1), Some("compute_80")),
        ([12, 0], version(13, 1), new, None),
        // Code of a newer minor version runs, of a newer major version does not.
        ([9, 0], version(13, 1), new, Some("sm_90a")),
        ([9, 0], new, old, None),
        ([9, 0], old, new, Some("sm_90a")),
    ] {
        let got = fitting(architecture, compiler, driver);
        assert_eq!(got, expected, "{architecture:?}, built with {compiler}, driver {driver}");
    }
    assert_eq!([exact([8, 6]), exact([9, 0]), exact([12, 1])], ["sm_86", "sm_90a", "sm_121a"]);
}

#[test]
fn without_an_image_and_without_a_compiler_a_sentence_says_what_to_install() {
    let module = Module { name: "f", source: "", images: &[] };
    let nowhere = Search::of_environment(&|name| (name == SETTING).then(|| "/no/such".into()));
    let images = Images::new(nowhere, [9, 0], version(13, 0), Cache::default());
    let said = images.of(&module).unwrap_err().to_string();
    let expected = "device: kernels of f: no NVRTC that will do: expected 12.8 or newer, \
                    libnvrtc.so.13 or libnvrtc.so.12 is nowhere; pip install nvidia-cuda-nvrtc";
    assert_eq!(said, expected);
}

#[test]
fn without_an_image_it_is_compiled_for_the_gpu_that_is_there() {
    let Some(tools) = Tools::here("cuda::images") else { return };
    let folder = tempfile::tempdir().unwrap();
    let source = "extern \"C\" __global__ void f(int* x) { *x = __CUDA_ARCH__; }\n";
    let module = Module { name: "f", source, images: &[] };
    for (architecture, target) in
        [([8, 6], "sm_86-"), ([9, 0], "sm_90a-"), ([99, 0], "compute_80-")]
    {
        let cache = Cache::at(folder.path());
        module.compile(&tools.compiler, &cache, architecture).unwrap();
        let mut names = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name());
        let wanted = format!("f.cu-{target}");
        assert!(names.any(|name| name.to_string_lossy().starts_with(&wanted)), "{wanted}");
    }
}

#[test]
fn a_build_that_had_a_compiler_has_every_image() {
    for module in Module::all() {
        let targets: Vec<&str> = module.images.iter().map(|(target, _)| *target).collect();
        let expected: &[&str] = if COMPILER.is_some() { &TARGETS } else { &[] };
        assert_eq!(targets, expected, "{}", module.name);
        for (target, image) in module.images {
            let is_code = image.starts_with(b"\x7fELF");
            assert_eq!(is_code, *target != "compute_80", "{} for {target}", module.name);
        }
    }
}
