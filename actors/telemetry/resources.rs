//! Memory and disk of the machine, and when to warn about them.
//!
//! Reads; decides nothing. What a system does not tell is `None`, never zero.

#[cfg(test)]
mod tests;

use std::fs;
use std::path::Path;

use crate::outside::Disk;
use crate::units::size;

/// One look at the machine, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resources {
    /// Resident memory of this process.
    pub resident_bytes: Option<u64>,
    /// Memory that this process can still take, within its container's limit.
    pub available_bytes: Option<u64>,
    /// Free space for us on the disk of the run folder.
    pub free_disk_bytes: Option<u64>,
}

impl Resources {
    /// Looks. `folder` says which file system of the disk.
    #[must_use]
    pub fn read(disk: &dyn Disk, folder: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(path).ok();
        let machine = text("/proc/meminfo").and_then(|t| kilobytes(&t, "MemAvailable:"));
        // Version 2 of control groups, then version 1; a bare machine has neither.
        let container = room_in_container(
            text("/sys/fs/cgroup/memory.max").as_deref(),
            text("/sys/fs/cgroup/memory.current").as_deref(),
            text("/sys/fs/cgroup/memory.stat").as_deref(),
        )
        .or_else(|| {
            room_in_container(
                text("/sys/fs/cgroup/memory/memory.limit_in_bytes").as_deref(),
                text("/sys/fs/cgroup/memory/memory.usage_in_bytes").as_deref(),
                text("/sys/fs/cgroup/memory/memory.stat").as_deref(),
            )
        });
        Self {
            resident_bytes: text("/proc/self/status").and_then(|t| kilobytes(&t, "VmRSS:")),
            available_bytes: machine.into_iter().chain(container).min(),
            free_disk_bytes: disk.free_space(folder).ok(),
        }
    }
}

/// The value of a line `KEY   123 kB`, in bytes.
fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

/// What a container's limit leaves. Cached file pages count as used there, but they can go.
fn room_in_container(
    limit: Option<&str>,
    used: Option<&str>,
    statistics: Option<&str>,
) -> Option<u64> {
    let limit: u64 = limit?.trim().parse().ok()?;
    let used: u64 = used?.trim().parse().ok()?;
    let value = |key: &str| -> Option<u64> {
        let mut words = statistics?.lines().map(str::split_whitespace);
        words.find_map(|mut line| (line.next()? == key).then(|| line.next()?.parse().ok())?)
    };
    let cached = value("file").or_else(|| value("total_cache")).or_else(|| value("cache"));
    let kept = used.saturating_sub(cached.unwrap_or(0));
    // A limit beyond any memory is no limit.
    (limit < 1 << 60).then(|| limit.saturating_sub(kept))
}

/// Below these a warning is due, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floors {
    /// For memory that can still be taken.
    pub available_bytes: u64,
    /// For free disk: two checkpoints is a good floor, since one is written beside another.
    pub free_disk_bytes: u64,
}

/// Warns once when a floor is crossed, and again only after a recovery to 1.25 times the floor.
#[derive(Debug)]
pub struct Watch {
    floors: Floors,
    warned_memory: bool,
    warned_disk: bool,
}

impl Watch {
    /// A watch that has not warned yet.
    #[must_use]
    pub fn new(floors: Floors) -> Self {
        Self { floors, warned_memory: false, warned_disk: false }
    }

    /// The warnings that are due now.
    pub fn look(&mut self, resources: &Resources) -> Vec<String> {
        let memory = (resources.available_bytes, self.floors.available_bytes);
        let disk = (resources.free_disk_bytes, self.floors.free_disk_bytes);
        let mut warnings = Vec::new();
        if is_due(memory, &mut self.warned_memory) {
            warnings.push(sentence("memory is running out", memory));
        }
        if is_due(disk, &mut self.warned_disk) {
            warnings.push(sentence("the disk of the run folder is running out", disk));
        }
        warnings
    }
}

fn is_due((left, floor): (Option<u64>, u64), warned: &mut bool) -> bool {
    let Some(left) = left else { return false };
    let due = left < floor && !*warned;
    if left < floor {
        *warned = true;
    } else if left >= floor.saturating_add(floor / 4) {
        *warned = false;
    }
    due
}

fn sentence(what: &str, (left, floor): (Option<u64>, u64)) -> String {
    let left = size(left.unwrap_or(0));
    format!("{what}: {left} left, and {} is the least to go on with", size(floor))
}
