//! `octet serve`: a model answers over HTTP, as clients of OpenAI's completions expect it.
//!
//! The same topology as for every look at a run: rank 0 holds one conversation with a [`Crowd`],
//! whose texts come from the [`Desk`] that HTTP requests are brought to. Handlers never wait for
//! the rank and the rank never for a client: a text waits in a queue with a limit, and what is
//! written of it in a channel of its own. What takes long, like the tokens of a long prompt, has
//! threads beside the one that answers.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::failure::Failure;
use crate::look::{Run, converse};
use crate::run_data;
use crate::sampling::{Crowd, Next, Source, Waiting};

mod answer;
mod api;
mod chat;
mod desk;
mod http;
mod queue;
#[cfg(test)]
mod tests;

use desk::Desk;

/// How often a server without work looks whether it is to end.
const NOTICE: Duration = Duration::from_millis(100);

/// How a model is served.
#[derive(Debug, Clone)]
pub struct Serving {
    /// Where, `HOST:PORT`; port 0 picks a free one.
    pub address: String,
    /// What clients must show, if anything.
    pub token: Option<String>,
    /// What clients call the model.
    pub name: String,
    /// Texts that are written at once.
    pub sequences: usize,
    /// Texts that are written or wait, at most.
    pub texts: usize,
}

/// Serves until `stop` is set; what was accepted by then is answered, if that does not take too
/// long. `ready` is told where as soon as answers can come. Gives what a person should know of the
/// checkpoint.
///
/// # Errors
/// [`Failure`]: an address that cannot be listened on or is not this machine's own while no token
/// is set, no good checkpoint, a model that does not write.
pub fn serve(
    run: &Run,
    serving: Serving,
    stop: Arc<AtomicBool>,
    ready: Box<dyn FnOnce(SocketAddr) + Send>,
) -> Result<Vec<String>, Failure> {
    let listener = listen(&serving)?;
    let address = listener.local_addr().map_err(Failure::world)?;
    let (mut look, decoder) = run.writing(serving.sequences)?;
    let tokenizer = Arc::new(run_data::tokenizer(&run.folder)?);
    let template = chat::Template::of(&run.folder, &tokenizer)?;
    let desk = Arc::new(Desk::new(serving, (tokenizer, template), decoder.positions, stop));
    let server = http::Server::start(listener, desk.clone())?;
    let source = Mutex::new(Some((source(desk.clone()), (desk, ready))));
    look.experiment = look.experiment.with_talk(Box::new(move |step| {
        let taken = source.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        let (source, (desk, ready)) = taken?;
        desk.begin();
        ready(address);
        Some(Box::new(Crowd::new(decoder, step, source)))
    }));
    let looked = converse(run, look);
    server.stop();
    looked.map(|looked| looked.notes)
}

/// Listens where it was told to.
fn listen(serving: &Serving) -> Result<TcpListener, Failure> {
    let address = &serving.address;
    let refused = |why: &dyn std::fmt::Display| {
        Failure::user(format!(
            "--address: cannot listen on \"{address}\" ({why}); expected HOST:PORT with a free port"
        ))
    };
    let listener = TcpListener::bind(address).map_err(|why| refused(&why))?;
    let own = listener.local_addr().map_err(Failure::world)?;
    if serving.token.is_none() && !own.ip().is_loopback() {
        return Err(Failure::user(format!(
            "--address: {own} can be reached from other machines, so clients must show a token: \
             expected --token-file, or an address of this machine alone like 127.0.0.1:8000"
        )));
    }
    Ok(listener)
}

/// Takes texts from a desk; without it, nobody does.
struct Writer(Arc<Desk>);

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Texts as they are brought; at the end those that were accepted.
fn source(desk: Arc<Desk>) -> Source {
    let writer = Writer(desk);
    Box::new(move |waiting| {
        let desk = &writer.0;
        if desk.is_over() {
            return Next::End;
        }
        let ending = desk.is_ending();
        let patience = match waiting {
            Waiting::Texts => Duration::ZERO,
            Waiting::Nobody => NOTICE,
        };
        match desk.take(patience) {
            Some(text) => Next::Text(Box::new((text.request, text.listener))),
            None if ending => Next::End,
            None => Next::Nothing,
        }
    })
}
