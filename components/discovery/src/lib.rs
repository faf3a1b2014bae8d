//! The components whose names begin with `discovery.`: what finds targets, and what relabels them.

pub mod dns;
pub mod file;
mod groups;
pub mod http;
mod poll;
pub mod relabel;

use corten_component::Definition;
use corten_config::Exports;
use corten_signal::target::Target;

/// All of them, sorted by name.
pub const COMPONENTS: &[Definition] = &[
    Definition::of::<dns::Dns>(),
    Definition::of::<file::File>(),
    Definition::of::<http::Http>(),
    Definition::of::<relabel::Relabel>(),
];

/// What components export that find targets.
#[derive(Exports, Clone, Debug, Default, PartialEq)]
pub struct Offer {
    /// The targets that were found.
    targets: Vec<Target>,
}
