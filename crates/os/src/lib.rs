//! What differs between platforms.
//!
//! All `cfg(target_os)` of the program stands here. This crate knows nothing of the others.

pub mod host;
pub mod limits;
pub mod memory;
pub mod process;
pub mod signals;
pub mod wake;
