//! Services that tests start, each killed when its handle is dropped.

pub mod openbao;
