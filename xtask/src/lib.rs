//! What the development commands do, as far as tests and the benchmark harness do it, too.
//!
//! - [`new`] writes a new component.
//! - [`peers`] fetches the programs that Corten is tested and measured against.
//! - [`reference`] writes the reference pages from what `corten schema` prints.
//! - [`ui`] builds the web interface.

pub mod new;
pub mod peers;
pub mod reference;
pub mod ui;
