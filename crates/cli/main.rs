//! The program `influence`.
fn main() {}
