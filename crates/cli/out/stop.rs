//! Ctrl-C and SIGTERM: the first ends the run at the next image, with all that is finished kept; a
//! second ends it at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

static SIGNAL: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// Listens from now on. Where the system does not let us, signals do what they always do.
pub(crate) fn listen() {
    let signal = SIGNAL.get_or_init(|| Arc::new(AtomicUsize::new(0)));
    let twice = Arc::new(AtomicBool::new(false));
    for number in [SIGINT, SIGTERM] {
        // In this order: the shutdown looks at what the signal before has set.
        let _ = flag::register_conditional_shutdown(number, 128 + number, Arc::clone(&twice));
        let _ = flag::register(number, Arc::clone(&twice));
        let _ = flag::register_usize(number, Arc::clone(signal), number as usize);
    }
}

/// The signal that has come, if one has.
pub(crate) fn requested() -> Option<u8> {
    let number = SIGNAL.get()?.load(Ordering::Relaxed);
    u8::try_from(number).ok().filter(|number| *number > 0)
}
