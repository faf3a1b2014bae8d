//! The `labelstore` block, which configures nothing.

use corten_component::{Component, Context, Definition, Error};
use corten_config::Arguments;

use crate::graph::NodeKind;

pub(crate) const NAME: &str = "labelstore";

/// The reference accepts the block, and has nothing that could stand in it.
pub(crate) const BLOCK: (NodeKind, Definition) = (NodeKind::Service, Definition::of::<LabelStore>());

/// Nothing.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct Config {}

/// The block in place.
#[derive(Debug)]
pub(crate) struct LabelStore;

impl Component for LabelStore {
    const NAME: &'static str = NAME;
    type Arguments = Config;
    type Exports = ();
    type Prepared = ();

    async fn prepare(_: Config, _: &Context<Self>, _: Option<&Self>) -> Result<((), ()), Error> {
        Ok(((), ()))
    }

    fn commit(_: Option<Self>, (): (), _: &Context<Self>) -> Self {
        LabelStore
    }
}
