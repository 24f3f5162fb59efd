//! Integration tests: networks, loading and saving of weights, and faults of files.

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
