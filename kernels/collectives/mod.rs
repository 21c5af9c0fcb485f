//! What ranks do together.
/// One rank of a group.
pub trait Communicator: Send {
    /// This rank.
    fn rank(&self) -> usize;
}
