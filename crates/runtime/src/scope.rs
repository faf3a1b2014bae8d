//! What the names in a block stand for.

use std::collections::BTreeMap;
use std::sync::Arc;

use corten_config::eval::Scope;
use corten_config::stdlib;
use corten_config::value::{Object, Value};

/// The exports of nodes under their ids.
pub(crate) struct ExportScope(Object);

impl ExportScope {
    /// A scope of ids with what stands for them.
    pub(crate) fn new<'a>(exports: impl Iterator<Item = (&'a str, Value)>) -> Self {
        let mut root = Tree::default();
        for (id, value) in exports {
            root.insert(id, value);
        }
        ExportScope(root.children.into_iter().map(|(name, tree)| (Arc::from(name), tree.into_value())).collect())
    }
}

impl Scope for ExportScope {
    fn lookup(&self, name: &str) -> Option<Value> {
        self.0.get(name).cloned()
    }
}

/// The same for a check: what nothing is known of, though the graph knows what is wrong with it, has an unknown value.
pub(crate) struct CheckScope(pub(crate) ExportScope);

impl Scope for CheckScope {
    fn lookup(&self, name: &str) -> Option<Value> {
        self.0.lookup(name).or_else(|| stdlib::lookup(name).is_none().then(Value::unknown))
    }
}

#[derive(Default)]
struct Tree {
    value: Option<Value>,
    children: BTreeMap<String, Tree>,
}

impl Tree {
    fn insert(&mut self, id: &str, value: Value) {
        let mut at = self;
        for name in id.split('.') {
            at = at.children.entry(name.to_owned()).or_default();
        }
        at.value = Some(value);
    }

    fn into_value(self) -> Value {
        match self.value {
            Some(value) => value,
            None => {
                Value::object(self.children.into_iter().map(|(n, tree)| (Arc::from(n), tree.into_value())).collect())
            }
        }
    }
}
