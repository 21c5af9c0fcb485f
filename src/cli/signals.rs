//! SIGINT, SIGTERM and SIGHUP ask to end in order; a second SIGINT or SIGTERM ends at once. SIGUSR1
//! asks a training to save and go on.
//!
//! A terminal that closes may send SIGHUP more than once, so it never counts as the second. Whoever
//! started the program to ignore it (`nohup`) wants the run to go on, and it does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;

use crossbeam::channel::{Receiver, bounded};
use octet::failure::Failure;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::cli::output;

/// Exit code of a process that was told twice.
const IMPATIENT: i32 = 130;

/// A signal that this process listens to has asked to end.
static TOLD: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Whether a signal has asked to end: nobody waits for anything any more.
pub(crate) fn is_told() -> bool {
    TOLD.load(Ordering::Relaxed)
}

/// The signals that end a program in order.
pub(crate) fn ending() -> Vec<i32> {
    // SAFETY: asks for the present action and sets none; all zeros are a value of the struct.
    let ignored = unsafe {
        let mut present: libc::sigaction = std::mem::zeroed();
        libc::sigaction(SIGHUP, std::ptr::null(), &mut present) == 0
            && present.sa_sigaction == libc::SIG_IGN
    };
    let mut signals = vec![SIGINT, SIGTERM];
    signals.extend((!ignored).then_some(SIGHUP));
    signals
}

/// Gives one message at the first signal, and says so; the second ends the process.
pub(crate) fn interrupts(says: &'static str) -> Result<Receiver<()>, Failure> {
    let (told, interrupts) = bounded(1);
    let mut signals = Signals::new(ending()).map_err(Failure::world)?;
    thread::spawn(move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            TOLD.store(true, Ordering::Relaxed);
            output::complain(format_args!("octet: {says}"));
            let _run_is_over = told.send(());
        }
        if signals.any(|signal| signal != SIGHUP) {
            std::process::exit(IMPATIENT);
        }
    });
    Ok(interrupts)
}

/// Gives a message at each SIGUSR1; some that come at once are one.
pub(crate) fn saves() -> Result<Receiver<()>, Failure> {
    let (told, saves) = bounded(1);
    let mut signals = Signals::new([SIGUSR1]).map_err(Failure::world)?;
    thread::spawn(move || {
        for _ in signals.forever() {
            // One that waits already says the same.
            let _waits_already = told.try_send(());
        }
    });
    Ok(saves)
}

/// True from the first signal on; the second ends the process.
pub(crate) fn flag() -> Result<Arc<AtomicBool>, Failure> {
    let told = TOLD.clone();
    for signal in ending() {
        // In this order: the second signal finds the flag set.
        if signal != SIGHUP {
            signal_hook::flag::register_conditional_shutdown(signal, IMPATIENT, told.clone())
                .map_err(Failure::world)?;
        }
        signal_hook::flag::register(signal, told.clone()).map_err(Failure::world)?;
    }
    Ok(told)
}
