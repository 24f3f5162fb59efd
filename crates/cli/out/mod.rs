//! Where results go: files that a run can be stopped and continued in, pipes, and shards of a run
//! on many machines.
//!
//! A run in progress keeps its rows in `FILE.partial` and its book in `FILE.journal`; both stand
//! beside the place of the result, and neither is hidden. Every few seconds the rows written since
//! are synced to the disk, and then one line of the journal says so, with how many images are done
//! and a hash of the bytes. `FILE` itself appears, complete, as the last step, and an older file of
//! that name stays as it was until then. After a kill, a full disk or a power cut the partial file
//! is cut back to the last line of the journal that its bytes bear out, and the run goes on from
//! there: the result has the same bytes as one that was never stopped.
//!
//! - `format`: rows as CSV and JSON lines; `parquet`: rows as Parquet, out of rows that are
//!   complete.
//! - `journal`: the book. `keeper`: partial file and book together. `rows`: what the commands write
//!   to.
//! - `shard`: which part of the images; `merge`: from parts to the whole.
//! - `stop`: signals.

mod format;
mod journal;
mod keeper;
pub(crate) mod merge;
#[cfg(feature = "parquet")]
mod parquet;
mod place;
mod rows;
pub(crate) mod shard;
pub(crate) mod stop;

pub(crate) use format::Format;
pub(crate) use journal::{Config, Header};
pub(crate) use keeper::{Found, Keeper, Unit, check_signals, hash_of};
pub(crate) use place::{Target, at as fault, beside};
pub(crate) use rows::{Destination, Rows, pipe_cells, read_spool, write_cells, write_rows, write_table};
