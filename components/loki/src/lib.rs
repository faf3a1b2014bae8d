//! The components whose names begin with `loki.`.

mod dropped;
pub mod echo;
pub mod enrich;
mod forward;
pub mod process;
pub mod relabel;
mod restream;
pub mod secretfilter;
pub mod source;
pub mod write;

use corten_component::Definition;

/// The components of the family.
pub const COMPONENTS: &[Definition] = &[
    Definition::of::<echo::Echo>(),
    Definition::of::<enrich::Enrich>(),
    Definition::of::<process::Process>(),
    Definition::of::<relabel::Relabel>(),
    Definition::of::<secretfilter::SecretFilter>(),
    Definition::of::<source::api::Api>(),
    Definition::of::<source::awsfirehose::Firehose>(),
    Definition::of::<source::docker::Docker>(),
    Definition::of::<source::file::FileSource>(),
    Definition::of::<source::gelf::Gelf>(),
    Definition::of::<source::heroku::Heroku>(),
    Definition::of::<source::journal::JournalSource>(),
    Definition::of::<source::syslog::Syslog>(),
    Definition::of::<write::Write>(),
];
