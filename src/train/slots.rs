//! The snapshot slots of a run: in memory that the parent keeps, or in a file.

use std::os::fd::RawFd;
use std::path::Path;
use std::sync::Arc;

use octet_actors::outside::LocalDisk;
use octet_actors::snapshot::{SnapshotLayout, SnapshotSlots};
use octet_actors::telemetry::resources::Resources;

use crate::config::Config;
use crate::experiment::Experiment;
use crate::failure::Failure;
use crate::plan::memory::Memory;

/// As many as an earlier engine has made, or as are to be.
pub(super) fn open(
    (parents, folder): (Option<RawFd>, &Path),
    experiment: &Experiment,
    config: &Config,
    layout: &SnapshotLayout,
) -> Result<Arc<SnapshotSlots>, Failure> {
    let bytes = layout.bytes();
    let available = Resources::read(&LocalDisk, folder).available_bytes;
    let made = parents.and_then(|fd| SnapshotSlots::count_of(fd, bytes));
    let count = match made.or(config.run.snapshots) {
        Some(count) => count,
        None => Memory::of(experiment, &config.run)?.slots_within(bytes, available),
    };
    if count == 0 {
        parents.map_or(Ok(()), SnapshotSlots::take_none)?;
        return Ok(SnapshotSlots::on_disk(folder, bytes)?);
    }
    let slots = match parents {
        Some(fd) => SnapshotSlots::from_fd(fd, bytes, count)?,
        None => SnapshotSlots::create_some(bytes, count)?,
    };
    slots.take_pages(available)?;
    Ok(slots)
}
