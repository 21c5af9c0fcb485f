//! How a command ends when it does not end well: three kinds of failure, three exit codes.

use std::fmt;
use std::io::ErrorKind;

use octet_actors::fault::{Blame, Fault};
use octet_actors::outside::DiskError;
use octet_actors::resume::ResumeError;
use octet_actors::run_folder::RunFolderError;
use octet_actors::snapshot::SnapshotError;
use octet_actors::web::WebError;

use crate::config::ConfigError;
use crate::data::DataError;

/// Exit code of bad input, and of a run that comes to the same end until somebody changes it.
pub const USER: u8 = 2;
/// Exit code of a broken assertion of ours.
pub const OURS: u8 = 70;
/// Exit code after an interrupt, as shells have it.
pub const INTERRUPTED: u8 = 130;
/// Exit code of a failure of the world that another try may survive.
pub const WORLD: u8 = 75;

/// One sentence, and whose failure it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code: [`USER`], [`WORLD`], [`OURS`] or [`INTERRUPTED`].
    pub code: u8,
    /// What happened and what to do.
    pub what: String,
}

impl Failure {
    /// Bad input.
    pub fn user(what: impl fmt::Display) -> Self {
        Self { code: USER, what: what.to_string() }
    }

    /// Disk, memory, network, a device.
    pub fn world(what: impl fmt::Display) -> Self {
        Self { code: WORLD, what: what.to_string() }
    }

    /// A defect.
    pub fn ours(what: impl fmt::Display) -> Self {
        Self { code: OURS, what: what.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::user(error)
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        match error {
            DataError::Interrupted => Self { code: INTERRUPTED, what: error.to_string() },
            _ if error.is_user_error() => Self::user(error),
            _ => Self::world(error),
        }
    }
}

/// Whether a file system says that it never will, rather than that it cannot now.
pub(crate) fn is_refusal(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
            | ErrorKind::AlreadyExists
            | ErrorKind::NotFound
            | ErrorKind::InvalidInput
            | ErrorKind::InvalidFilename
    )
}

impl From<RunFolderError> for Failure {
    fn from(error: RunFolderError) -> Self {
        match &error {
            // Trying again would be refused again: somebody has to decide.
            RunFolderError::Disk(DiskError { why, .. }) if !is_refusal(why.kind()) => {
                Self::world(error)
            }
            _ => Self::user(error),
        }
    }
}

impl From<ResumeError> for Failure {
    fn from(error: ResumeError) -> Self {
        // Whatever a resume refuses, trying again refuses again: somebody has to decide.
        Self::user(error)
    }
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Self {
        match error {
            // Trying again finds the same memory: somebody has to decide.
            SnapshotError::Size { .. } | SnapshotError::Host { .. } => Self::user(error),
            _ => Self::world(error),
        }
    }
}

impl From<WebError> for Failure {
    fn from(error: WebError) -> Self {
        match error {
            WebError::Address { .. } => Self::user(error),
            _ => Self::world(error),
        }
    }
}

impl From<octet_kernels::error::Error> for Failure {
    fn from(error: octet_kernels::error::Error) -> Self {
        Self::user(error)
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        match fault.blame {
            Blame::World | Blame::Lasting => Self::world(fault),
            Blame::Decided => Self::user(fault),
            Blame::Ours => Self::ours(fault),
        }
    }
}
