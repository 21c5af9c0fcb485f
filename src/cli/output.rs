//! What the program says: the only file that writes to stdout and stderr.
//!
//! A thread for each of the two does the writing, so that whoever does not read (a terminal that
//! was stopped with Ctrl-S, a pipe that nobody empties) holds up neither a step nor a signal. There
//! are two ways to speak. [`say`] and [`complain`] tell what goes on: they never wait, and what
//! finds no room is counted and left out. [`out!`] gives the result that a command was asked for:
//! it waits until that is written, until the reader has gone, or until a signal asks to end.
//!
//! The standard library's handles are not used: what stands in their buffer would be waited for
//! again when the process ends.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam::channel::{Receiver, SendTimeoutError, Sender, bounded};
use octet::failure::Failure;

use crate::cli::signals;

/// Texts that wait for a reader: some screens.
const WAITING: usize = 1024;

/// At the end of the process, a reader that takes nothing for so long is not waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often a patient reader is waited for in all.
const ROUNDS: usize = 10;

/// How soon a signal is noticed by somebody who waits to be read.
const NOTICE: Duration = Duration::from_millis(20);

/// Prints a line of a command's result, as `println!` does.
macro_rules! out {
    ($($format:tt)*) => {
        $crate::cli::output::print(format_args!("{}\n", format_args!($($format)*)))
    };
}
pub(crate) use out;

/// Tells how things go, in a line on stdout.
pub(crate) fn say(line: impl fmt::Display) {
    STDOUT.offer(format!("{line}\n"));
}

/// Tells of trouble, in a line on stderr.
pub(crate) fn complain(line: impl fmt::Display) {
    STDERR.offer(format!("{line}\n"));
}

/// Writes a part of a command's result to stdout; what becomes of it shows in [`finish`].
pub(crate) fn print(text: fmt::Arguments<'_>) {
    if !is_unread() {
        STDOUT.deliver(text.to_string());
    }
}

/// Whether the result that was printed is not read any more: more of it is no use.
pub(crate) fn is_unread() -> bool {
    STDOUT.refusal().is_some()
}

/// Gives what was said a moment to be written, and the exit code of a command that ended with
/// `done`: that of a result that could not be written where it would have been 0. A reader who has
/// gone ends this process as it ends every other, by SIGPIPE.
pub(crate) fn finish(done: Result<ExitCode, Failure>) -> ExitCode {
    let refused = STDOUT.refusal().clone();
    let refused = refused.map(|(kind, why)| (kind == ErrorKind::BrokenPipe, why));
    let done = match (done, &refused) {
        (Ok(ExitCode::SUCCESS), Some((false, why))) => {
            Err(Failure::world(format!("cannot write to standard output: {why}")))
        }
        (done, _) => done,
    };
    STDOUT.flush();
    let code = done.unwrap_or_else(|Failure { code, what }| {
        complain(format_args!("octet: {what}"));
        ExitCode::from(code)
    });
    STDERR.flush();
    if refused.is_some_and(|(gone, _)| gone) {
        // SAFETY: sets the disposition of one signal and sends it to this process.
        unsafe {
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            libc::raise(libc::SIGPIPE);
        }
    }
    code
}

static STDOUT: LazyLock<Stream> = LazyLock::new(|| Stream::new(std::io::stdout().as_fd()));
static STDERR: LazyLock<Stream> = LazyLock::new(|| Stream::new(std::io::stderr().as_fd()));

/// One of the two, and the thread that writes to it.
struct Stream {
    texts: Sender<Text>,
    /// Texts that found no room since the last that did.
    left_out: AtomicU64,
    /// Texts written so far.
    written: &'static AtomicU64,
    /// Why a result was not written.
    refused: &'static Mutex<Option<(ErrorKind, String)>>,
}

struct Text {
    text: String,
    /// Told when it is written, or never will be; a result has somebody who waits for it.
    done: Option<Sender<()>>,
}

impl Stream {
    fn new(descriptor: BorrowedFd<'_>) -> Self {
        let (texts, waiting) = bounded(WAITING);
        let written: &AtomicU64 = Box::leak(Box::default());
        let refused: &Mutex<_> = Box::leak(Box::default());
        let file = descriptor.try_clone_to_owned().map(File::from);
        // Without a descriptor or a thread nothing can be said, which is no reason to end.
        if let Ok(file) = file {
            let write = move || write(file, &waiting, written, refused);
            let _mute = std::thread::Builder::new().name("output".to_owned()).spawn(write);
        }
        Self { texts, left_out: AtomicU64::new(0), written, refused }
    }

    fn refusal(&self) -> MutexGuard<'_, Option<(ErrorKind, String)>> {
        lock(self.refused)
    }

    /// Gives a text to the writer if there is room.
    fn offer(&self, text: String) {
        let left_out = self.left_out.swap(0, Ordering::Relaxed);
        let text = match left_out {
            0 => text,
            _ => format!("({left_out} lines were not read in time and are left out)\n{text}"),
        };
        if self.texts.try_send(Text { text, done: None }).is_err() {
            self.left_out.fetch_add(left_out + 1, Ordering::Relaxed);
        }
    }

    /// Gives a text to the writer and waits until it is written or a signal came.
    fn deliver(&self, text: String) {
        let (done, written) = bounded(1);
        let mut text = Text { text, done: Some(done) };
        loop {
            match self.texts.send_timeout(text, NOTICE) {
                Ok(()) => break,
                Err(SendTimeoutError::Timeout(back)) if !signals::is_told() => text = back,
                Err(_) => return,
            }
        }
        while written.recv_timeout(NOTICE).is_err_and(|error| error.is_timeout()) {
            if signals::is_told() {
                return;
            }
        }
    }

    /// Waits while somebody reads what waits.
    fn flush(&self) {
        let (done, written) = bounded(1);
        let end = Text { text: String::new(), done: Some(done) };
        if self.texts.send_timeout(end, PATIENCE).is_err() {
            return;
        }
        for _ in 0..ROUNDS {
            let before = self.written.load(Ordering::Relaxed);
            let timeout = written.recv_timeout(PATIENCE).is_err_and(|error| error.is_timeout());
            if !timeout || self.written.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}

/// The writer: takes texts as they come, for as long as the process lives.
fn write(
    mut file: File,
    texts: &Receiver<Text>,
    written: &AtomicU64,
    refused: &Mutex<Option<(ErrorKind, String)>>,
) {
    let mut gone = false;
    for Text { text, done } in texts {
        let result =
            if gone { Err(ErrorKind::BrokenPipe.into()) } else { file.write_all(text.as_bytes()) };
        written.fetch_add(1, Ordering::Relaxed);
        let Some(done) = done else {
            gone |= result.is_err_and(|error| error.kind() == ErrorKind::BrokenPipe);
            continue;
        };
        if let Err(error) = result
            && !text.is_empty()
        {
            gone |= error.kind() == ErrorKind::BrokenPipe;
            lock(refused).get_or_insert((error.kind(), error.to_string()));
        }
        // Whoever waited may have been told to end.
        let _nobody_waits = done.try_send(());
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
