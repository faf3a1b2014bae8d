//! The `livedebugging` block.

use corten_component::{Component, Context, Error};
use corten_config::Arguments;

/// Lets whoever reaches the HTTP API watch data on its way from component to component. Without the block nobody can.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Config {
    /// Whether data may be watched. Once it may not, whoever watches is cut off.
    #[arg(default = false)]
    enabled: bool,
}

/// The block in place.
#[derive(Debug)]
pub struct LiveDebugging;

impl Component for LiveDebugging {
    const NAME: &'static str = "livedebugging";
    type Arguments = Config;
    type Exports = ();
    type Prepared = bool;

    async fn prepare(arguments: Config, _: &Context<Self>, _: Option<&Self>) -> Result<(bool, ()), Error> {
        Ok((arguments.enabled, ()))
    }

    fn commit(_: Option<Self>, enabled: bool, cx: &Context<Self>) -> Self {
        set(cx, enabled);
        LiveDebugging
    }

    async fn drain(self, cx: &Context<Self>) {
        set(cx, false);
    }
}

fn set(cx: &Context<LiveDebugging>, enabled: bool) {
    cx.services().server.live_debugging.send_if_modified(|current| std::mem::replace(current, enabled) != enabled);
}
