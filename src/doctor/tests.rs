//! The doctor's eyes.

use std::path::Path;

use super::{Need, Verdict, existing, limit};

#[test]
fn limits_are_those_of_the_process() {
    let text = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = text.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft = line.split_whitespace().nth(3).unwrap();
    let said = limit(libc::RLIMIT_NOFILE).map_or("unlimited".to_string(), |n| n.to_string());
    assert_eq!(said, soft);
}

#[test]
fn what_is_not_there_is_named_with_what_it_would_enable() {
    let machine = super::examine(Path::new("/no/such/folder"));
    assert_eq!(machine.disk, Path::new("/"));
    assert!(machine.gemm_flops_per_s > 1e6 && machine.copy_bytes_per_s > 1e6);
    assert!(machine.page_bytes >= 4096 && machine.cores > 0);
    assert!(machine.available_bytes <= machine.memory_bytes);
    // Memory for snapshots is what every run needs; these tests need it too.
    assert!(machine.can_train());
    for check in &machine.checks {
        assert!(!check.found.is_empty() && !check.purpose.is_empty(), "{check:?}");
    }
    let missing = machine.short_of(Need::Gpu).count();
    let gpu = machine.checks.iter().filter(|check| check.need == Need::Gpu);
    assert_eq!(missing, gpu.filter(|check| check.verdict == Verdict::Missing).count());
    assert_eq!(existing(Path::new("/")), Path::new("/"));
}
