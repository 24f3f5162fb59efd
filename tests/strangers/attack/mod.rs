//! Tests with random models: small Burn modules whose forward functions run random programs, drawn
//! from every operation of `docs/ops.md`. They are compared with the caller's own forward pass and
//! with central differences of it, and the two engines with each other.

mod apply;
pub(crate) mod compare;
#[path = "../../common/differences.rs"]
pub(crate) mod differences;
pub(crate) mod draw;
pub(crate) mod engines;
mod instructions;
mod layers;
pub(crate) mod model;
pub(crate) mod op;
pub(crate) mod rng;
pub(crate) mod shrink;
pub(crate) mod tally;
pub(crate) mod value;
pub(crate) mod weights;

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static MESSAGE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `work`. A panic becomes an error with its message and source location, and is not printed.
pub(crate) fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if QUIET.get() {
                MESSAGE.set(info.to_string().split_whitespace().collect::<Vec<_>>().join(" "));
            } else {
                previous(info);
            }
        }));
    });
    let outer = QUIET.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    QUIET.set(outer);
    result.map_err(|_| MESSAGE.take())
}
