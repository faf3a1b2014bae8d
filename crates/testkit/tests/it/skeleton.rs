//! `test.skeleton`.

use corten_component::{Component, Context, Error};
use corten_config::{Arguments, Exports};

/// Exports what it is given.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct SkeletonArguments {
    /// What is exported.
    input: String,
}

/// What others can refer to.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct SkeletonExports {
    /// The input.
    output: String,
}

/// The component.
pub struct Skeleton;

impl Component for Skeleton {
    const NAME: &'static str = "test.skeleton";
    type Arguments = SkeletonArguments;
    type Exports = SkeletonExports;
    type Prepared = ();

    async fn prepare(
        arguments: SkeletonArguments,
        _: &Context<Self>,
        _: Option<&Self>,
    ) -> Result<((), SkeletonExports), Error> {
        if arguments.input.is_empty() {
            return Err(Error::new("input must not be empty"));
        }
        Ok(((), SkeletonExports { output: arguments.input }))
    }

    fn commit(_: Option<Self>, (): (), _: &Context<Self>) -> Self {
        Skeleton
    }
}

#[cfg(test)]
mod tests {
    use corten_component::Definition;
    use corten_testkit::{Unit, host};

    use super::*;

    const SKELETON: Definition = Definition::of::<Skeleton>();

    #[tokio::test]
    async fn the_output_is_the_input_and_nothing_is_refused() {
        let mut unit = Unit::start(host("test.skeleton.a"), &SKELETON, "input = \"x\"").await.unwrap();
        assert_eq!(unit.world.exported("output"), "\"x\"");
        assert_eq!(unit.update("input = \"\"").await, Err("input must not be empty".to_owned()));
        assert_eq!(unit.world.exported("output"), "\"x\"");
    }
}
