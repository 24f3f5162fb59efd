//! Intact and damaged data files, as in a user's folder.

mod cifar;
mod common;
mod folders;
mod mnist;
mod mutations;
mod official;
mod pictures;
