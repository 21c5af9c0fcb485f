//! Where requests are brought to: what is served, how much is accepted, and who hears of it.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};

use crate::data::Tokenizer;
use crate::sampling::{Ended, Heard, Listener, Request, Scored};
use crate::serve::Serving;
use crate::serve::chat::Template;
use crate::serve::queue::Queue;

/// How long texts may go on when the server is to end.
const GRACE: Duration = Duration::from_secs(20);

/// A text that is to be written.
pub(super) struct Text {
    /// What it is to be.
    pub(super) request: Request,
    /// Who hears of it.
    pub(super) listener: Listener,
    told: UnboundedSender<(usize, Event)>,
}

impl Text {
    /// Whether its client is still there.
    pub(super) fn is_awaited(&self) -> bool {
        !self.told.is_closed()
    }
}

/// What is heard of one of the texts of a request.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    /// A token with its score.
    Token(Scored),
    /// Some more text.
    Piece(String),
    /// The model gives no finite logit.
    Diverged,
    /// There is no more.
    End(Ended),
}

/// Events with the number of their text.
pub(super) type Events = UnboundedReceiver<(usize, Event)>;

/// Why nothing is accepted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// As many texts wait as may.
    Busy,
    /// The server ends.
    Ending,
}

/// Shared by all handlers.
pub(super) struct Desk {
    pub(super) serving: Serving,
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) template: Option<Template>,
    /// Tokens of a prompt and its continuation, at most.
    pub(super) positions: usize,
    token: Option<blake3::Hash>,
    queue: Queue,
    held: Arc<AtomicUsize>,
    ready: AtomicBool,
    answers: AtomicU64,
    ending: Ending,
}

/// When texts must end.
#[derive(Clone)]
struct Ending {
    stop: Arc<AtomicBool>,
    since: Arc<OnceLock<Instant>>,
}

impl Ending {
    fn is_told(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn is_over(&self) -> bool {
        self.is_told() && self.since.get_or_init(Instant::now).elapsed() > GRACE
    }
}

/// The place of one text; free again when it is dropped.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Desk {
    pub(super) fn new(
        serving: Serving,
        (tokenizer, template): (Arc<Tokenizer>, Option<Template>),
        positions: usize,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let token = serving.token.as_ref().map(|token| blake3::hash(token.as_bytes()));
        let (held, ready) = (Arc::default(), AtomicBool::new(false));
        let ending = Ending { stop, since: Arc::default() };
        let (queue, answers) = (Queue::default(), AtomicU64::new(0));
        Self { serving, tokenizer, template, positions, token, queue, held, ready, answers, ending }
    }

    /// Answers come from now on.
    pub(super) fn begin(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// The server is to end.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.is_told()
    }

    /// It is to end now.
    pub(super) fn is_over(&self) -> bool {
        self.ending.is_over()
    }

    /// Answers come, and more is accepted.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed) && !self.ending.is_told()
    }

    /// Whether a client may be served that shows this. Takes as long for any token.
    pub(super) fn admits(&self, shown: Option<&str>) -> bool {
        let Some(token) = &self.token else { return true };
        // Equality of these digests does not depend on where they differ.
        shown.is_some_and(|shown| blake3::hash(shown.as_bytes()) == *token)
    }

    /// The number of the next answer.
    pub(super) fn number(&self) -> u64 {
        self.answers.fetch_add(1, Ordering::Relaxed)
    }

    /// Texts that are written or wait.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Why so many texts would not be accepted now, if they would not.
    pub(super) fn is_full_for(&self, more: usize) -> Option<Full> {
        if self.ending.is_told() {
            return Some(Full::Ending);
        }
        let fits = || self.held() + more <= self.serving.texts;
        if !fits() {
            self.queue.forget_the_gone();
        }
        (!fits()).then_some(Full::Busy)
    }

    /// Accepts all of these texts, or none.
    pub(super) fn accept(&self, requests: Vec<Request>) -> Result<Events, Full> {
        let more = requests.len();
        if let Some(full) = self.is_full_for(more) {
            return Err(full);
        }
        // Others may have come meanwhile.
        let fits = |held: usize| Some(held + more).filter(|&all| all <= self.serving.texts);
        self.held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .map_err(|_held| Full::Busy)?;
        let (told, events) = unbounded();
        let text = |(number, request)| {
            let (place, told) = (Place(self.held.clone()), told.clone());
            let listener = listener((number, told.clone()), place, self.ending.clone());
            Text { request, listener, told }
        };
        self.queue.bring(requests.into_iter().enumerate().map(text).collect());
        Ok(events)
    }

    /// The next text to write; waits for one, at most so long.
    pub(super) fn take(&self, patience: Duration) -> Option<Text> {
        self.queue.take(patience)
    }

    /// Nobody writes any more: whoever waits hears so.
    pub(super) fn close(&self) {
        self.queue.close();
    }
}

/// Hands on what is heard, until nobody listens any more.
fn listener(
    (number, told): (usize, UnboundedSender<(usize, Event)>),
    place: Place,
    ending: Ending,
) -> Listener {
    Box::new(move |heard| {
        let _held_by_this_closure = &place;
        let event = match heard {
            Heard::Token(scored) => Event::Token(scored),
            Heard::Piece(piece) => Event::Piece(piece.to_owned()),
            Heard::Diverged => Event::Diverged,
            Heard::End(ended) => Event::End(ended),
        };
        let gone = told.unbounded_send((number, event)).is_err();
        if gone || ending.is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
}
