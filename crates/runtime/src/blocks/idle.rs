//! Blocks of the reference that are accepted where they ask for nothing.
//!
//! They are not in the list of what the program has: a configuration that writes their defaults out runs, and one that
//! asks for more is told that it is not implemented.

use std::any::Any;

use corten_component::{Component, Context, Definition, Error};
use corten_config::decode::CapsuleType;
use corten_config::schema::CapsuleInfo;
use corten_config::value::Capsule;
use corten_config::{Arguments, CheckErrors};

use crate::graph::NodeKind;

/// The block of a name.
pub(crate) fn find(name: &str) -> Option<&'static (NodeKind, Definition)> {
    const BLOCKS: &[(NodeKind, Definition)] = &[
        (NodeKind::Service, Definition::of::<Idle<LabelStore>>()),
        (NodeKind::ConfigBlock, Definition::of::<Idle<Tracing>>()),
    ];
    BLOCKS.iter().find(|(_, definition)| definition.name == name)
}

/// Arguments of a block that does nothing.
trait IdleArguments: Arguments + Clone + PartialEq + Send + Sync + 'static {
    /// The name of the block.
    const NAME: &'static str;
}

/// Nothing can be said about the store of labels.
#[derive(Arguments, Clone, Debug, PartialEq)]
struct LabelStore {}

impl IdleArguments for LabelStore {
    const NAME: &'static str = "labelstore";
}

/// The program's own traces. Without `write_to` they go nowhere.
#[derive(Arguments, Clone, Debug, PartialEq)]
struct Tracing {
    /// How many of the traces are kept.
    #[arg(default = 0.1)]
    sampling_fraction: f64,
    /// Only `false` is implemented.
    #[arg(default = false)]
    send_traceparent: bool,
    /// Where traces go: nothing takes them yet.
    #[arg(default = [])]
    write_to: Vec<TracesConsumer>,
}

impl Tracing {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(!self.send_traceparent, &["send_traceparent"], "send_traceparent is not implemented");
        errors.into_result()
    }
}

impl IdleArguments for Tracing {
    const NAME: &'static str = "tracing";
}

/// A block in place that does nothing.
#[derive(Debug)]
struct Idle<A>(std::marker::PhantomData<A>);

impl<A: IdleArguments> Component for Idle<A> {
    const NAME: &'static str = A::NAME;
    type Arguments = A;
    type Exports = ();
    type Prepared = ();

    async fn prepare(_: A, _: &Context<Self>, _: Option<&Self>) -> Result<((), ()), Error> {
        Ok(((), ()))
    }

    fn commit(_: Option<Self>, (): (), _: &Context<Self>) -> Self {
        Idle(std::marker::PhantomData)
    }
}

/// What takes a signal that no component takes yet: there is none, so that only the empty list fits.
macro_rules! receiver_of_none {
    ($name:ident, $type_name:literal, $shown:literal) => {
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) enum $name {}

        impl Capsule for $name {
            fn type_name(&self) -> &'static str {
                match *self {}
            }

            fn equals(&self, _: &dyn Capsule) -> bool {
                match *self {}
            }

            fn as_any(&self) -> &dyn Any {
                match *self {}
            }
        }

        impl CapsuleType for $name {
            const INFO: &'static CapsuleInfo =
                &CapsuleInfo { type_name: $type_name, shown: $shown, object_like: false, from: &[] };
        }
    };
}

receiver_of_none!(TracesConsumer, "otelcol.Consumer", "otelcol.Consumer");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_of_the_blocks_are_in_order() {
        for name in ["labelstore", "tracing"] {
            let (_, definition) = find(name).unwrap();
            assert_eq!(definition.arguments.defects(), [""; 0]);
        }
        assert!(find("remotecfg").is_none());
    }
}
