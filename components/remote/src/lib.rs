//! The components whose names begin with `remote.`: values that come from elsewhere.

pub mod http;

use corten_component::Definition;

/// All of them, sorted by name.
pub const COMPONENTS: &[Definition] = &[Definition::of::<http::Http>()];
