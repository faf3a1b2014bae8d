//! Bytes to signals and back.

pub mod float;
pub mod remote_write;
pub mod snappy;
pub mod text;
