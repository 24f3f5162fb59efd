//! Tests of the crate from outside: networks, weights in and out, and everything that can be wrong with a
//! file.

mod archive;
mod common;
mod corrupt;
mod golden;
mod loading;
mod networks;
mod saving;
mod torch;
mod torch_corrupt;
mod torchvision;
