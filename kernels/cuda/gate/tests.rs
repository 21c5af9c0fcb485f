//! The gate, held to kernels that must not pass it, and then every kernel to the gate.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Tools, functions, in_log, missing};
use crate::cuda::images::{HEADERS, Module};
use crate::cuda::nvrtc::{Source, TARGETS};

/// Reads 16 bytes at a time, and is fine.
const GOOD: &str = r#"
// expects copy: LDG.E.128 STG.E.128
extern "C" __global__ void copy(const uint4* from, uint4* to) {
    to[threadIdx.x] = from[threadIdx.x];
}
"#;

/// More values alive than a thread of such a block has registers.
const SPILLS: &str = r#"
extern "C" __global__ void __launch_bounds__(1024) sums(const float* from, float* to) {
    float x[160];
#pragma unroll
    for (int i = 0; i < 160; i++) x[i] = from[i * 1024 + threadIdx.x];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 160; i++) to[i * 1024 + threadIdx.x] = x[159 - i] * x[(i * 7) % 160];
}
"#;

/// Registers have no addresses.
const INDEXES: &str = r#"
extern "C" __global__ void turn(const float* from, float* to, int at) {
    float x[64];
#pragma unroll
    for (int i = 0; i < 64; i++) x[i] = from[i];
    x[at & 63] += 1;
    to[threadIdx.x] = x[threadIdx.x & 63];
}
"#;

/// Two bytes at a time where 16 are expected, as the compiler makes of a struct's copy.
const NARROW: &str = r#"
// expects halves: LDG.E.128
extern "C" __global__ void halves(const unsigned short* from, unsigned short* to) {
    to[threadIdx.x] = from[threadIdx.x];
}
"#;

/// Reads an accumulator while the product may still write it.
const SERIAL: &str = r#"
extern "C" __global__ void products(float* to, unsigned long long a, unsigned long long b) {
    float d[4] = {0, 0, 0, 0};
    for (int i = 0; i < 4; i++) {
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
        asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 "
                     "{%0,%1,%2,%3}, %4, %5, 1, 1, 1, 0, 0;"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "l"(a + i), "l"(b));
        d[i & 3] += 1;
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    }
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    for (int i = 0; i < 4; i++) to[threadIdx.x * 4 + i] = d[i];
}
"#;

fn source(text: &str) -> Source<'_> {
    Source { name: "planted.cu", text, headers: &[] }
}

#[test]
fn planted_mistakes_are_found() {
    let Some(tools) = Tools::here("cuda::gate") else { return };
    for target in TARGETS {
        assert_eq!(tools.offences(&source(GOOD), target), [""; 0]);
    }
    let unnamed = GOOD.replace("expects copy", "expects copies");
    let broken = GOOD.replace("uint4*", "uint5*");
    let plants = [
        (SPILLS, "sm_80", "spill"),
        (SPILLS, "compute_80", "spill"),
        (INDEXES, "sm_90a", "bytes stack frame"),
        (INDEXES, "sm_100a", "turn: local memory, "),
        (NARROW, "sm_80", "planted.cu for sm_80: halves lacks LDG.E.128"),
        (NARROW, "compute_80", "planted.cu for compute_80: halves lacks LDG.E.128"),
        (SERIAL, "sm_90a", "serialized"),
        (unnamed.as_str(), "sm_80", "no function copies, of which LDG.E.128 STG.E.128 is expected"),
        (broken.as_str(), "sm_80", "identifier \"uint5\" is undefined"),
    ];
    for (text, target, what) in plants {
        let found = tools.offences(&source(text), target);
        assert!(found.iter().any(|one| one.contains(what)), "{what} is not in {found:#?}");
    }
}

/// Lines as tools print them, so that the reading of them is tested where the tools are not.
#[test]
fn logs_and_assembly_are_read() {
    let log = "ptxas info    : Compiling entry function 'sums' for 'sm_80'\n\
               ptxas info    : Function properties for sums\n\
               ptxas         .     416 bytes stack frame, 412 bytes spill stores, \
               0 bytes spill loads\n\
               ptxas info    : (C7514) Potential Performance Loss: wgmma.mma_async instructions \
               are serialized due to x in function 'y'\n\
               ptxas info    : Used 64 registers, used 1 barriers\n";
    let found = in_log(log);
    assert_eq!(found[..2], ["sums: 416 bytes stack frame", "sums: 412 bytes spill stores"]);
    assert!(found.len() == 3 && found[2].contains("C7514"), "{found:?}");
    let assembly = "\t\tFunction : one\n\t.headerflags @\"x\"\n        \
                    /*0000*/                   MOV R1, c[0x0][0x28] ;   /* 0x00 */\n        \
                    /*0010*/              @!P0 LDG.E.128 R4, [R2] ;     /* 0x01 */\n\
                    \t\tFunction : two\n        \
                    /*0000*/                   LDGSTS.E.BYPASS.128 [R1], [R2] ;\n";
    let functions = functions(assembly);
    assert_eq!(functions["one"].iter().copied().collect::<Vec<_>>(), ["LDG.E.128", "MOV"]);
    let wants = |line: &str| missing(&format!("// expects {line}\n"), "sm_80", &functions);
    assert_eq!(wants("one: LDG.E MOV"), [""; 0]);
    assert_eq!(wants("two: LDG"), ["two lacks LDG"]);
    assert_eq!(wants("*: LDGSTS"), ["one lacks LDGSTS"]);
    assert_eq!(wants("two (sm_90a): HGMMA"), [""; 0]);
    assert_eq!(wants("two (sm_80, sm_90a): HMMA"), ["two lacks HMMA"]);
    assert_eq!(wants("three: HMMA"), ["no function three, of which HMMA is expected"]);
    assert_eq!(wants("nothing"), ["no \": \" in // expects nothing"]);
}

#[test]
fn every_kernel_passes() {
    let Some(tools) = Tools::here("cuda::gate") else { return };
    let jobs: Vec<_> = Module::all().iter().flat_map(|m| TARGETS.map(|t| (m, t))).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        while let Some((module, target)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let name = format!("{}.cu", module.name);
            let source = Source { name: &name, text: module.source, headers: HEADERS };
            found.extend(tools.offences(&source, target));
        }
        found
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let found: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}
