//! Data files, whole and damaged, as a user's folder holds them.

mod cifar;
mod common;
mod folders;
mod mnist;
mod mutations;
mod official;
mod pictures;
