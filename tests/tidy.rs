//! Tidy: the architecture and the hygiene of the sources, checked as an ordinary test.
fn main() {}
