//! What components tell of their inner state.

use std::sync::Arc;

use corten_component::{Component, Context, DebugInfo};
use corten_config::Value;
use corten_config::encode::Item;
use corten_signal::Kind;

/// An attribute.
pub(crate) fn attr(name: &str, value: impl Into<Value>) -> Item {
    Item::Attr { name: name.to_owned(), value: value.into() }
}

/// A block without a label.
pub(crate) fn block(name: &str, body: Vec<Item>) -> Item {
    Item::Block { name: name.to_owned(), label: None, body }
}

struct Told<F>(F);

impl<F: Fn() -> Vec<Item> + Send + Sync + 'static> DebugInfo for Told<F> {
    fn debug_info(&self) -> Vec<Item> {
        (self.0)()
    }
}

/// Tells what this says when somebody asks.
pub(crate) fn show<C: Component>(cx: &Context<C>, tell: impl Fn() -> Vec<Item> + Send + Sync + 'static) {
    cx.show_debug_info(Arc::new(Told(tell)));
}

/// Tells how many items of each signal a component keeps.
pub(crate) fn show_held<C: Component>(cx: &Context<C>) {
    let kinds = [("traces", Kind::OtelTrace), ("metrics", Kind::OtelMetric), ("logs", Kind::OtelLog)];
    let rows = kinds.map(|(signal, kind)| (signal, Arc::clone(cx.ledger().row(kind))));
    show(cx, move || {
        let of = |(signal, row): &(&str, Arc<_>)| {
            let row: &corten_signal::ledger::Row = row;
            block("pending", vec![attr("signal", *signal), attr("items", row.snapshot().held)])
        };
        rows.iter().map(of).collect()
    });
}
