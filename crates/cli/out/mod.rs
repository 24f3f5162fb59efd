//! Output of results: files of runs that can be stopped and resumed, pipes, and parts of a run on
//! many machines.
//!
//! A run in progress keeps its rows in `FILE.partial` and its journal in `FILE.journal`, both next
//! to the result. Every few seconds the new rows are synced to the disk, and then a line of the
//! journal records the number of finished images and a hash of the bytes. `FILE` itself appears,
//! complete, as the last step; until then an older file of that name is not changed. After a kill,
//! a full disk or a power cut, the partial file is cut back to the last line of the journal that
//! its bytes confirm, and the run is resumed from there. The result has the same bytes as that of
//! an uninterrupted run.
//!
//! - `format`: rows as CSV and JSON lines; `parquet`: rows as Parquet, made from complete rows.
//! - `journal`: the journal. `keeper`: partial file and journal together. `rows`: what the commands
//!   write to.
//! - `shard`: parts of the images; `merge`: from parts to the whole.
//! - `stop`: signals.

mod format;
mod journal;
mod keeper;
pub(crate) mod merge;
mod output_file;
#[cfg(feature = "parquet")]
mod parquet;
mod rows;
pub(crate) mod shard;
pub(crate) mod stop;

pub(crate) use format::Format;
pub(crate) use journal::{Config, JournalHeader};
pub(crate) use keeper::{Keeper, RunState, Unit, check_signals, hash_of};
pub(crate) use output_file::{OutputFile, at as fault, beside};
pub(crate) use rows::{
    RowDestination, RowWriter, pipe_cells, read_spool, write_cells, write_rows, write_table,
};
