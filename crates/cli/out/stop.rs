//! Ctrl-C and SIGTERM: the first one stops the run after the current image, and what is finished is
//! kept; a second one stops it at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

static SIGNAL: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// Installs the signal handlers. If the system refuses, signals keep their default behaviour.
pub(crate) fn listen() {
    let signal = SIGNAL.get_or_init(|| Arc::new(AtomicUsize::new(0)));
    let twice = Arc::new(AtomicBool::new(false));
    for number in [SIGINT, SIGTERM] {
        // The order matters: the conditional shutdown must see the flag of the previous signal, so
        // it is registered before the handler that sets the flag.
        let _ = flag::register_conditional_shutdown(number, 128 + number, Arc::clone(&twice));
        let _ = flag::register(number, Arc::clone(&twice));
        let _ = flag::register_usize(number, Arc::clone(signal), number as usize);
    }
}

/// The signal that was received, if any.
pub(crate) fn requested() -> Option<u8> {
    let number = SIGNAL.get()?.load(Ordering::Relaxed);
    u8::try_from(number).ok().filter(|number| *number > 0)
}
