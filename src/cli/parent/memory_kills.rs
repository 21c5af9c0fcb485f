//! How many processes the kernel has killed for want of memory: what tells such an end from any
//! other of signal 9.
//!
//! Reads the counter of this process's control group, whose limit is what usually kills, or that of
//! the machine where there is none. Decides nothing.

use std::fs;
use std::path::{Path, PathBuf};

/// A counter, and what it showed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MemoryKills {
    file: PathBuf,
    before: u64,
}

impl MemoryKills {
    /// Of this process, as it is now. Where the system does not count, it never grows.
    pub(super) fn here() -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let known = files(&groups).into_iter().find_map(|file| {
            let before = read(&file)?;
            Some(Self { file, before })
        });
        known.unwrap_or(Self { file: PathBuf::new(), before: 0 })
    }

    /// Whether somebody was killed since.
    pub(super) fn has_grown(&self) -> bool {
        read(&self.file).is_some_and(|now| now > self.before)
    }
}

/// Where the counter may be, given `/proc/self/cgroup`: version 2, version 1, the machine. A
/// container may show its own group as the root.
pub(super) fn files(groups: &str) -> Vec<PathBuf> {
    let group = |line: &str, root: &str, file: &str| {
        let path = line.rsplit_once(':')?.1.trim_start_matches('/').to_owned();
        let root = Path::new(root);
        Some([root.join(path).join(file), root.join(file)])
    };
    let second = groups.lines().find(|line| line.starts_with("0::"));
    let first = groups.lines().find(|line| line.contains(":memory:"));
    let second = second.and_then(|line| group(line, "/sys/fs/cgroup", "memory.events"));
    let first = first.and_then(|line| group(line, "/sys/fs/cgroup/memory", "memory.oom_control"));
    let machine = PathBuf::from("/proc/vmstat");
    second.into_iter().chain(first).flatten().chain([machine]).collect()
}

/// The value of the line `oom_kill 3`.
pub(super) fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|n| n.trim().parse().ok())
}

fn read(file: &Path) -> Option<u64> {
    count(&fs::read_to_string(file).ok()?)
}
