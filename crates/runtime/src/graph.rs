//! The graph of a scope: its nodes, what they refer to, and in which order they are evaluated.
//!
//! Building a graph evaluates nothing and changes nothing that runs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use corten_component::Definition;
use corten_config::decode::{CheckContext, References, check};
use corten_config::schema::{Schema, Stability};
use corten_config::stdlib;
use corten_syntax::{Block, Diagnostic, Diagnostics, Span};

use crate::references::{Traversal, traversals};

/// The kinds of blocks at the top level of a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A component.
    Component,
    /// A block that configures the program: `logging`.
    ConfigBlock,
    /// A block that configures a service: `http`.
    Service,
}

/// What a scope knows: components and blocks by their names.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    definitions: BTreeMap<&'static str, (NodeKind, Definition)>,
}

impl Catalog {
    /// Adds definitions of a kind.
    #[must_use]
    pub fn with(mut self, kind: NodeKind, definitions: &[Definition]) -> Self {
        self.definitions.extend(definitions.iter().map(|definition| (definition.name, (kind, *definition))));
        self
    }

    /// The definition of a name.
    pub fn get(&self, name: &str) -> Option<&(NodeKind, Definition)> {
        self.definitions.get(name)
    }

    /// All definitions, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &(NodeKind, Definition)> {
        self.definitions.values()
    }
}

/// Blocks of the reference that this program does not have. Using one says so.
const NOT_IMPLEMENTED: &[&str] = &[
    "declare",
    "foreach",
    "import.file",
    "import.git",
    "import.http",
    "import.string",
    "livedebugging",
    "remotecfg",
    "tracing",
];

/// Services of the reference that take no configuration.
const NOT_CONFIGURABLE: &[&str] = &["cluster", "otel", "ui"];

/// A node that is to be.
#[derive(Clone, Debug)]
pub struct PlannedNode {
    /// The name and label of its block, joined by a dot.
    pub id: String,
    /// What it is.
    pub kind: NodeKind,
    /// What it can.
    pub definition: Definition,
    /// What the user wrote.
    pub block: Arc<Block>,
    /// The nodes that it refers to, as indices into the plan.
    pub dependencies: Vec<usize>,
    /// What in its block refers to nodes: the traversal and the node.
    pub references: Vec<(Traversal, usize)>,
}

/// The nodes of a scope, each after those that it refers to.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The nodes in the order of their evaluation.
    pub nodes: Vec<PlannedNode>,
}

impl Plan {
    /// The place of a node.
    pub fn find(&self, id: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id)
    }
}

/// What may be used in a configuration.
#[derive(Clone, Copy, Debug)]
pub struct Permissions {
    /// The level below which nothing may be used.
    pub stability: Stability,
}

/// Makes the plan of a scope from its blocks.
///
/// # Errors
///
/// Everything that is wrong with names, labels, references and stability.
pub fn plan(blocks: &[Arc<Block>], catalog: &Catalog, permissions: Permissions) -> Result<Plan, Diagnostics> {
    let mut diagnostics = Diagnostics::new();
    let mut nodes: Vec<PlannedNode> = Vec::new();
    let mut by_id: HashMap<String, usize> = HashMap::new();
    for block in blocks {
        let Some(node) = node_of(block, catalog, permissions, &mut diagnostics) else { continue };
        if let Some(first) = by_id.get(&node.id) {
            let first = &nodes[*first].block;
            let place = Diagnostic::error(&first.source, first.name_span, "").place();
            let (span, text) = if node.kind == NodeKind::Service {
                (block.span, format!("duplicate definition of {:?}", node.id))
            } else {
                let end = block.name_span.start + node.id.len() as u32;
                let end = end.min(block.span.end);
                (Span::new(block.name_span.start, end), format!("block {} already declared at {place}", node.id))
            };
            diagnostics.push(Diagnostic::error(&block.source, span, text));
            continue;
        }
        by_id.insert(node.id.clone(), nodes.len());
        nodes.push(node);
    }
    for node in &mut nodes {
        resolve(node, &by_id, permissions, &mut diagnostics);
    }
    let order = order(&nodes, &mut diagnostics);
    if diagnostics.has_errors() {
        return Err(diagnostics);
    }
    Ok(sorted(nodes, &order))
}

fn node_of(
    block: &Arc<Block>,
    catalog: &Catalog,
    permissions: Permissions,
    diagnostics: &mut Diagnostics,
) -> Option<PlannedNode> {
    let name = &*block.name;
    let mut refuse = |span: Span, text: String| diagnostics.push(Diagnostic::error(&block.source, span, text));
    if matches!(name, "argument" | "export") {
        refuse(block.span, format!("{name} blocks only allowed inside a module"));
        return None;
    }
    if NOT_IMPLEMENTED.contains(&name) {
        refuse(block.name_span, format!("{name} blocks are not implemented"));
        return None;
    }
    if NOT_CONFIGURABLE.contains(&name) && block.label.is_none() {
        refuse(block.name_span, format!("service {name:?} does not support being configured"));
        return None;
    }
    let Some((kind, definition)) = catalog.get(name).filter(|(kind, _)| {
        // A service's block with a label is no service's.
        *kind != NodeKind::Service || block.label.is_none()
    }) else {
        refuse(block.name_span, format!("cannot find the definition of component name {name:?}"));
        return None;
    };
    match kind {
        NodeKind::Component => {
            if block.label.is_none() {
                refuse(block.name_span, format!("component {name:?} must have a label"));
                return None;
            }
            let subject = format!("component {name:?}");
            if let Some(text) = definition.stability.refusal(&subject, permissions.stability) {
                refuse(block.name_span, text);
                return None;
            }
        }
        NodeKind::ConfigBlock | NodeKind::Service => {
            if let Some(label) = &block.label {
                refuse(label.span, format!("block {name:?} does not support specifying labels"));
                return None;
            }
        }
    }
    Some(PlannedNode {
        id: block.id(),
        kind: *kind,
        definition: *definition,
        block: Arc::clone(block),
        dependencies: Vec::new(),
        references: Vec::new(),
    })
}

fn resolve(
    node: &mut PlannedNode,
    by_id: &HashMap<String, usize>,
    permissions: Permissions,
    diagnostics: &mut Diagnostics,
) {
    for traversal in traversals(&node.block) {
        if let Some((_, target)) = target_of(&traversal.names, by_id) {
            if !node.dependencies.contains(&target) {
                node.dependencies.push(target);
            }
            node.references.push((traversal, target));
            continue;
        }
        if stdlib::lookup(&traversal.names[0]).is_none() {
            let text = format!("component {:?} does not exist or is out of scope", traversal.text());
            diagnostics.push(Diagnostic::error(&traversal.source, traversal.span, text));
            continue;
        }
        let name = traversal.text();
        if let Some(function) = stdlib::function(&name)
            && let Some(text) = function.stability.refusal(&name, permissions.stability)
        {
            diagnostics.push(Diagnostic::error(&traversal.source, traversal.span, text));
        }
    }
}

/// The node that the first names of a traversal stand for, and how many they are.
fn target_of<N: AsRef<str>>(names: &[N], by_id: &HashMap<String, usize>) -> Option<(usize, usize)> {
    let mut id = String::new();
    for (at, name) in names.iter().enumerate() {
        if at > 0 {
            id.push('.');
        }
        id.push_str(name.as_ref());
        if let Some(target) = by_id.get(&id) {
            return Some((at + 1, *target));
        }
    }
    None
}

/// The order in which each node comes after those that it refers to. Nodes in a cycle are reported.
fn order(nodes: &[PlannedNode], diagnostics: &mut Diagnostics) -> Vec<usize> {
    let components = strongly_connected(nodes);
    for members in &components {
        if let [only] = members[..] {
            if nodes[only].dependencies.contains(&only) {
                let text = format!("self reference: {}", nodes[only].id);
                diagnostics.push(Diagnostic::error_without_place("", text));
            }
        } else {
            let mut ids: Vec<&str> = members.iter().map(|member| nodes[*member].id.as_str()).collect();
            ids.sort_unstable();
            diagnostics.push(Diagnostic::error_without_place("", format!("cycle: {}", ids.join(", "))));
        }
    }
    components.into_iter().flatten().collect()
}

/// Tarjan's algorithm, with its stack on the heap. A component comes after those that it refers to.
fn strongly_connected(nodes: &[PlannedNode]) -> Vec<Vec<usize>> {
    const NEW: usize = usize::MAX;
    let mut index = vec![NEW; nodes.len()];
    let mut low = vec![0; nodes.len()];
    let mut on_stack = vec![false; nodes.len()];
    let (mut stack, mut found, mut next) = (Vec::new(), Vec::new(), 0);
    for root in 0..nodes.len() {
        if index[root] != NEW {
            continue;
        }
        let mut calls = vec![(root, 0)];
        while let Some((node, edge)) = calls.pop() {
            if edge == 0 {
                index[node] = next;
                low[node] = next;
                next += 1;
                stack.push(node);
                on_stack[node] = true;
            }
            if let Some(&to) = nodes[node].dependencies.get(edge) {
                calls.push((node, edge + 1));
                if index[to] == NEW {
                    calls.push((to, 0));
                } else if on_stack[to] {
                    low[node] = low[node].min(index[to]);
                }
                continue;
            }
            if low[node] == index[node] {
                let start = stack.iter().rposition(|member| *member == node).unwrap_or(0);
                let members = stack.split_off(start);
                for member in &members {
                    on_stack[*member] = false;
                }
                found.push(members);
            }
            if let Some((parent, _)) = calls.last() {
                low[*parent] = low[*parent].min(low[node]);
            }
        }
    }
    found
}

fn sorted(nodes: Vec<PlannedNode>, order: &[usize]) -> Plan {
    let mut place = vec![0; nodes.len()];
    for (at, old) in order.iter().enumerate() {
        place[*old] = at;
    }
    let mut sorted: Vec<(usize, PlannedNode)> = nodes.into_iter().enumerate().map(|(i, n)| (place[i], n)).collect();
    sorted.sort_by_key(|(at, _)| *at);
    let mut nodes: Vec<PlannedNode> = sorted.into_iter().map(|(_, node)| node).collect();
    for node in &mut nodes {
        for dependency in &mut node.dependencies {
            *dependency = place[*dependency];
        }
        for (_, target) in &mut node.references {
            *target = place[*target];
        }
    }
    Plan { nodes }
}

/// What names stand for in a plan, without values.
struct PlanReferences<'a> {
    plan: &'a Plan,
    by_id: HashMap<String, usize>,
}

impl References for PlanReferences<'_> {
    fn exports(&self, names: &[&str]) -> Option<(usize, &'static Schema)> {
        let (count, target) = target_of(names, &self.by_id)?;
        Some((count, self.plan.nodes[target].definition.exports))
    }
}

/// Checks the contents of all blocks of a plan as far as that goes without evaluating them, and warns of what is
/// deprecated.
pub fn check_contents(plan: &Plan, permissions: Permissions) -> Diagnostics {
    let by_id = plan.nodes.iter().enumerate().map(|(at, node)| (node.id.clone(), at)).collect();
    let references = PlanReferences { plan, by_id };
    let mut diagnostics = Diagnostics::new();
    for node in &plan.nodes {
        let cx = CheckContext { references: &references, minimum: permissions.stability };
        if let Err(errors) = check(node.definition.arguments, &node.block, &cx) {
            for diagnostic in errors.into_diagnostics() {
                diagnostics.push(diagnostic);
            }
        }
        for traversal in traversals(&node.block) {
            if let Some(name) = deprecated_function(&traversal, &references.by_id) {
                let text = format!("{name} is deprecated, use {} instead", stdlib::alias(&name).unwrap_or_default());
                diagnostics.push(Diagnostic::warning(&traversal.source, traversal.span, text));
            }
        }
    }
    diagnostics
}

/// The deprecated function that a traversal names, if it names one.
pub fn deprecated_function(traversal: &Traversal, by_id: &HashMap<String, usize>) -> Option<String> {
    let name = traversal.names.first()?;
    (target_of(&traversal.names, by_id).is_none() && stdlib::alias(name).is_some()).then(|| name.to_string())
}
