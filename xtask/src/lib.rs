//! What the development commands do, as far as tests and the benchmark harness do it, too.
//!
//! - [`peers`] fetches the programs that Corten is tested and measured against.
//! - [`reference`] writes the reference pages from what `corten schema` prints.

pub mod peers;
pub mod reference;
