//! What telemetry of a run is told at its start: files, and when it warns and records.

use std::sync::Arc;

use octet_actors::outside::Clock;
use octet_actors::telemetry::metrics::Metrics;
use octet_actors::telemetry::resources::{Floors, Resources};
use octet_actors::telemetry::status::Status;
use octet_actors::telemetry::{Observer, TelemetrySetup};

use super::{FINGERPRINTS, LOG, Place, SUMMARY};
use crate::config::Config;

/// Memory and disk below which telemetry warns.
const FLOORS: Floors = Floors { available_bytes: 1 << 30, free_disk_bytes: 2 << 30 };

/// Makes it, and again for a telemetry that is started again.
pub(super) fn setup(
    config: &Config,
    place: Place,
    clock: &Arc<dyn Clock>,
    (metrics, status): (Metrics, Arc<Status>),
    mut observer: Box<dyn FnMut() -> Observer + Send>,
) -> Box<dyn FnMut() -> TelemetrySetup + Send> {
    let Place { folder, disk, .. } = place;
    let clock = clock.clone();
    let (every, saves) = (config.log.fingerprints, config.checkpoint.every);
    let steps = config.run.steps;
    let due = |step: u64, every: u64| every > 0 && step.is_multiple_of(every);
    Box::new(move || {
        let (path, probed) = (folder.clone(), disk.clone());
        TelemetrySetup {
            log: folder.join(LOG),
            summary: folder.join(SUMMARY),
            fingerprints: folder.join(FINGERPRINTS),
            recorded: Box::new(move |step| due(step, every) || due(step, saves) || step == steps),
            floors: FLOORS,
            probe: Box::new(move || Resources::read(&*probed, &path)),
            metrics: metrics.clone(),
            status: status.clone(),
            observer: observer(),
            clock: clock.clone(),
            disk: disk.clone(),
        }
    })
}
