//! Everything that holds a string may hold a reference: what happens where it has no value, where
//! its value does not fit, and in `config.yaml`.

mod bootstrap;
mod misfits;
mod places;
