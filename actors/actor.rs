//! What an actor is here: a struct, a closed message enum, a synchronous `apply`.
//!
//! Logic knows no mailbox. `host.rs` puts an actor behind actix, tests feed it messages, and the
//! simulation runs all of them on one thread from a seed.

use std::fmt;
use std::sync::Arc;

use crate::fault::{ActorName, Fault};

/// Whether an actor goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Ready for the next message.
    Continue,
    /// Done; drop it.
    Stop,
}

/// State with one owner, changed only by messages.
pub trait Actor: 'static {
    /// The protocol.
    type Message: Send + 'static;

    /// Who it is.
    fn name(&self) -> ActorName;

    /// Takes one message to its end. It never waits for another actor.
    ///
    /// # Errors
    /// A [`Fault`], which its host sends to the supervisor.
    fn apply(&mut self, message: Self::Message) -> Result<Flow, Fault>;
}

/// The receiver is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

/// The right to tell one kind of message to one receiver, without waiting.
pub struct Port<M>(Arc<dyn Fn(M) -> Result<(), Closed> + Send + Sync>);

impl<M> Port<M> {
    /// A port that hands messages to `deliver`.
    pub fn new(deliver: impl Fn(M) -> Result<(), Closed> + Send + Sync + 'static) -> Self {
        Self(Arc::new(deliver))
    }

    /// Tells. A closed receiver is not the teller's failure: whoever owns the receiver notices.
    pub fn tell(&self, message: M) {
        let _closed = (self.0)(message);
    }

    /// Tells, and says whether anybody was there.
    ///
    /// # Errors
    /// [`Closed`].
    pub fn try_tell(&self, message: M) -> Result<(), Closed> {
        (self.0)(message)
    }

    /// A port to the same receiver for another message type.
    pub fn map<N: 'static>(&self, into: impl Fn(N) -> M + Send + Sync + 'static) -> Port<N>
    where
        M: 'static,
    {
        let inner = self.0.clone();
        Port::new(move |message| inner(into(message)))
    }
}

impl<M> Clone for Port<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M> fmt::Debug for Port<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Port")
    }
}
