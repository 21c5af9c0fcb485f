//! Presets are found by name, and a found card is a target like them.

use crate::dtype::DType;
use crate::graph::Target;
use crate::graph::target::{A100, Gpu, H100, H200};

#[test]
fn every_preset_has_its_own_name_and_peaks_that_make_sense() {
    for gpu in Gpu::PRESETS {
        assert_eq!(Target::named(gpu.name), Some(Target::Gpu(gpu)));
        assert_eq!(Gpu::PRESETS.iter().filter(|other| other.name == gpu.name).count(), 1);
        let peak = |dtype| Target::Gpu(gpu).peaks(dtype).unwrap().flops_per_s;
        assert!(peak(DType::Bf16) > peak(DType::F32), "{}", gpu.name);
        assert!(gpu.eighth_flops_per_s.is_none_or(|eighth| eighth >= peak(DType::Bf16)));
        // What a block can have is what its multiprocessor has less what the driver keeps.
        assert!(gpu.shared_bytes > 48 << 10 && gpu.link_bytes_per_s < gpu.bytes_per_s);
    }
    assert_eq!(Target::named("cpu"), Some(Target::Cpu));
    assert_eq!(Target::named("h999"), None);
    // The same chip with other memory.
    let alike = |gpu: &Gpu| (gpu.architecture, gpu.multiprocessors, gpu.half_flops_per_s);
    assert_eq!(alike(&H100), alike(&H200));
    assert!(H200.bytes_per_s > H100.bytes_per_s);
}

#[test]
fn a_found_card_is_a_target() {
    let found = Gpu::probed(Gpu { name: "half of an a100", multiprocessors: 54, ..A100 });
    let target = Target::Gpu(found);
    assert_eq!((target.name(), target.memory_bytes()), (found.name, Some(A100.memory_bytes)));
    assert_ne!(target, Target::Gpu(&A100));
}
