//! The compiler, where it is there.

use super::{INTERMEDIATE, Source, TARGETS};
use crate::cuda::gate::Tools;

const TEXT: &str = "extern \"C\" __global__ void f(float* x) { x[0] = x[1] * x[2] + x[3]; }\n";

#[test]
fn every_target_gets_its_kind_of_image() {
    let Some(tools) = Tools::here("cuda::nvrtc") else { return };
    let source = Source { name: "f.cu", text: TEXT, headers: &[] };
    for target in TARGETS {
        let image = tools.compiler.compile(&source, target, &[]).unwrap().image;
        let is_code = image.starts_with(b"\x7fELF");
        assert_eq!(is_code, target != INTERMEDIATE, "{target}");
        assert_eq!(tools.compiler.compile(&source, target, &[]).unwrap().image, image, "{target}");
    }
    let ptx = tools.compiler.compile(&source, INTERMEDIATE, &[]).unwrap().image;
    let ptx = String::from_utf8(ptx).unwrap();
    // Products and sums are fused where a source says so: a CPU's run is held to the same bits.
    assert!(ptx.contains("mul.rn.f32") && ptx.contains("add.rn.f32"), "{ptx}");
    assert!(!ptx.contains("fma."), "{ptx}");
    assert!(ptx.ends_with('\0'), "the driver reads PTX up to a zero byte");
    assert!(tools.compiler.knows([9, 0]) && !tools.compiler.knows([99, 0]));
}

#[test]
fn a_refusal_says_file_line_and_what() {
    let Some(tools) = Tools::here("cuda::nvrtc") else { return };
    let source = Source { name: "f.cu", text: "int f(\n", headers: &[] };
    let said = tools.compiler.compile(&source, "sm_80", &[]).unwrap_err();
    assert!(said.starts_with("f.cu for sm_80: NVRTC: ") && said.contains("f.cu(1)"), "{said}");
    let source = Source { text: TEXT, ..source };
    let said = tools.compiler.compile(&source, "sm_1", &[]).unwrap_err();
    assert!(said.contains("--gpu-architecture"), "{said}");
}
