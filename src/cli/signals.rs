//! SIGINT and SIGTERM: the first asks to end in order, the second ends at once.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use crossbeam::channel::{Receiver, bounded};
use octet::failure::Failure;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Exit code of a process that was told twice.
const IMPATIENT: i32 = 130;

/// Gives one message at the first signal, and says so; the second ends the process.
pub(crate) fn interrupts(says: &'static str) -> Result<Receiver<()>, Failure> {
    let (told, interrupts) = bounded(1);
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(Failure::world)?;
    thread::spawn(move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            eprintln!("octet: {says}");
            let _run_is_over = told.send(());
        }
        if signals.next().is_some() {
            std::process::exit(IMPATIENT);
        }
    });
    Ok(interrupts)
}

/// True from the first signal on; the second ends the process.
pub(crate) fn flag() -> Result<Arc<AtomicBool>, Failure> {
    let told = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the second signal finds the flag set.
        signal_hook::flag::register_conditional_shutdown(signal, IMPATIENT, told.clone())
            .and_then(|_| signal_hook::flag::register(signal, told.clone()))
            .map_err(Failure::world)?;
    }
    Ok(told)
}
