//! SIGINT and SIGTERM: the first asks to save and end, the second ends at once.

use std::thread;

use crossbeam::channel::{Receiver, bounded};
use octet::failure::Failure;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Exit code of a process that was told twice.
const IMPATIENT: i32 = 130;

/// Gives one message at the first signal; the second ends the process.
pub(crate) fn interrupts() -> Result<Receiver<()>, Failure> {
    let (told, interrupts) = bounded(1);
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(Failure::world)?;
    thread::spawn(move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            eprintln!("octet: saving; once more ends at once");
            let _run_is_over = told.send(());
        }
        if signals.next().is_some() {
            std::process::exit(IMPATIENT);
        }
    });
    Ok(interrupts)
}
