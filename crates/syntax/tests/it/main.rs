//! What the crate does with whole texts.

mod depth;
mod properties;
mod recorded;
