//! The graph of a scope: its nodes, what they refer to, and in which order they are evaluated.
//!
//! Building a graph evaluates nothing and changes nothing that runs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use corten_component::Definition;
use corten_config::decode::{DecodeContext, check};
use corten_config::schema::{Body, FieldKind, Schema, Shape, Stability};
use corten_config::{Value, stdlib, unknown};
use corten_syntax::{Block, Diagnostic, Diagnostics, Span, Stmt};

use crate::blocks::idle;
use crate::references::{Traversal, traversals};
use crate::scope::{CheckScope, ExportScope};

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

    /// The definition of a name, also of a block that asks for nothing.
    pub fn definition(&self, name: &str) -> Option<&(NodeKind, Definition)> {
        self.get(name).or_else(|| idle::find(name))
    }

    /// All definitions, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &(NodeKind, Definition)> {
        self.definitions.values()
    }
}

/// Blocks of the reference that this program does not have. Using one says so.
const NOT_IMPLEMENTED: &[&str] =
    &["declare", "foreach", "import.file", "import.git", "import.http", "import.string", "remotecfg"];

/// The warning about a function of the standard library.
pub(crate) const DEPRECATED_FUNCTION: &str =
    "this stdlib function is deprecated; please refer to the documentation for updated usage and alternatives";

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
    /// What in its block refers to nothing that there is, which was reported.
    pub unresolved: Vec<Traversal>,
}

/// The nodes of a scope, each after those that it refers to.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The nodes in the order of their evaluation.
    pub nodes: Vec<PlannedNode>,
}

impl Plan {
    /// Which component's telemetry or targets go to which other one, as indices into the plan.
    ///
    /// A reference to a receiver sends data to the component that exports it; a reference to anything else takes a value
    /// from there.
    pub fn flow(&self) -> BTreeSet<(usize, usize)> {
        let mut edges = BTreeSet::new();
        for (at, node) in self.nodes.iter().enumerate() {
            for (traversal, target) in &node.references {
                let exporter = &self.nodes[*target];
                if node.kind != NodeKind::Component || exporter.kind != NodeKind::Component {
                    continue;
                }
                let export = traversal.names.get(exporter.id.split('.').count());
                let receives = export.is_some_and(|name| is_receiver(exporter.definition.exports, name));
                edges.insert(if receives { (at, *target) } else { (*target, at) });
            }
        }
        edges
    }

    /// The same by kinds of data, also from what configures the program. What a component exports besides receivers and
    /// targets is no data.
    pub fn data_flow(&self) -> BTreeSet<DataFlow> {
        let mut flows = BTreeSet::new();
        for (at, node) in self.nodes.iter().enumerate() {
            for (traversal, target) in &node.references {
                let exporter = &self.nodes[*target];
                let export = traversal.names.get(exporter.id.split('.').count());
                let ty = export.and_then(|name| exporter.definition.exports.attr(name));
                match ty.map(|ty| kinds_of(&ty.shape)) {
                    Some(Carries::Targets) => _ = flows.insert(DataFlow { from: *target, to: at, kind: TARGET }),
                    Some(Carries::Telemetry(kind)) => _ = flows.insert(DataFlow { from: at, to: *target, kind }),
                    Some(Carries::OpenTelemetry) => {
                        // What a consumer is wired for is told by where it is written.
                        let kind = match attribute_of(&node.block.body, traversal.span) {
                            Some("metrics") => OTEL_METRIC,
                            Some("logs") => OTEL_LOG,
                            Some("traces" | "write_to") => OTEL_TRACE,
                            _ => continue,
                        };
                        flows.insert(DataFlow { from: at, to: *target, kind });
                    }
                    Some(Carries::Nothing) | None => {}
                }
            }
        }
        flows
    }

    /// The ids of nodes, sorted, as a list.
    fn ids(&self, nodes: &[usize]) -> String {
        let mut ids: Vec<&str> = nodes.iter().map(|node| self.nodes[*node].id.as_str()).collect();
        ids.sort_unstable();
        ids.join(", ")
    }
}

/// Data that goes from node to node, as indices into a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DataFlow {
    /// Who sends it.
    pub from: usize,
    /// Who takes it.
    pub to: usize,
    /// What it is, in the reference's words: `prometheus_metric`.
    pub kind: &'static str,
}

const TARGET: &str = "target";
const OTEL_LOG: &str = "otel_log";
const OTEL_METRIC: &str = "otel_metric";
const OTEL_TRACE: &str = "otel_trace";

/// What a value has to do with data on its way.
enum Carries {
    Nothing,
    Targets,
    Telemetry(&'static str),
    OpenTelemetry,
}

fn kinds_of(shape: &Shape) -> Carries {
    match shape {
        Shape::Capsule(info) => match info.shown {
            "MetricsReceiver" => Carries::Telemetry("prometheus_metric"),
            "LogsReceiver" => Carries::Telemetry("loki_log"),
            "ProfilesReceiver" => Carries::Telemetry("profile"),
            "otelcol.Consumer" => Carries::OpenTelemetry,
            _ if info.type_name == "discovery.Target" => Carries::Targets,
            _ => Carries::Nothing,
        },
        Shape::List(element) | Shape::Array(element, _) | Shape::Map(element) => kinds_of(&element.shape),
        _ => Carries::Nothing,
    }
}

/// The name of the attribute that an expression stands in.
fn attribute_of(body: &[Stmt], span: Span) -> Option<&str> {
    let around = body.iter().find(|statement| statement.span().start <= span.start && span.end <= statement.span().end);
    match around? {
        Stmt::Attr(attribute) => Some(&attribute.name.text),
        Stmt::Block(block) => attribute_of(&block.body, span),
    }
}

/// What a component does with data, as far as its tables tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Data comes into the program here.
    Source,
    /// It takes data and hands it on.
    Stage,
    /// Data leaves the program here.
    Sink,
    /// It has values and no data.
    Value,
}

impl Role {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Source => "source",
            Role::Stage => "stage",
            Role::Sink => "sink",
            Role::Value => "value",
        }
    }
}

/// What a component does with data, and the kinds of data that it may take or send.
pub fn role_of(definition: &Definition) -> (Role, BTreeSet<&'static str>) {
    let mut kinds = BTreeSet::new();
    let mut look = |schema: &'static Schema| {
        let (mut telemetry, mut targets) = (false, false);
        let mut seen = BTreeSet::new();
        each_type(schema, &mut seen, &mut |shape| match kinds_of(shape) {
            Carries::Telemetry(kind) => {
                telemetry = true;
                kinds.insert(kind);
            }
            Carries::OpenTelemetry => {
                telemetry = true;
                kinds.extend([OTEL_LOG, OTEL_METRIC, OTEL_TRACE]);
            }
            Carries::Targets => {
                targets = true;
                kinds.insert(TARGET);
            }
            Carries::Nothing => {}
        });
        (telemetry, targets)
    };
    let ((sends, uses_targets), (takes, has_targets)) = (look(definition.arguments), look(definition.exports));
    let role = match (takes, sends) {
        (true, true) => Role::Stage,
        (true, false) => Role::Sink,
        (false, true) => Role::Source,
        (false, false) if uses_targets && has_targets => Role::Stage,
        (false, false) if has_targets => Role::Source,
        (false, false) if uses_targets => Role::Sink,
        (false, false) => Role::Value,
    };
    (role, kinds)
}

/// Calls this with the type of each attribute at every depth.
fn each_type(schema: &'static Schema, seen: &mut BTreeSet<&'static str>, tell: &mut dyn FnMut(&Shape)) {
    if !seen.insert(schema.name) {
        return;
    }
    let inner = |body: &Body, seen: &mut BTreeSet<&'static str>, tell: &mut dyn FnMut(&Shape)| match body {
        Body::Struct(schema) => each_type(schema(), seen, tell),
        Body::Map { element, .. } => tell(&element.shape),
    };
    for field in schema.fields {
        match field.kind {
            FieldKind::Attr { ty, .. } => tell(&ty.shape),
            FieldKind::Block { block, .. } => inner(&block.body, seen, tell),
            FieldKind::Group { group, .. } => {
                (group.one_of)().variants.iter().for_each(|variant| inner(&variant.body, seen, tell));
            }
            FieldKind::Flatten { schema, .. } => each_type(schema(), seen, tell),
            FieldKind::Label => {}
        }
    }
}

/// Whether an export takes telemetry: metrics, logs, profiles, or all that OpenTelemetry has.
pub(crate) fn is_receiver(exports: &Schema, name: &str) -> bool {
    match exports.attr(name).map(|ty| ty.shape) {
        Some(Shape::Capsule(info)) => info.shown.ends_with("Receiver") || info.shown == "otelcol.Consumer",
        _ => false,
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
    let Draft { plan, mut diagnostics, cycles } = draft(blocks, catalog, permissions, Purpose::Load);
    for members in &cycles {
        let text = match members[..] {
            [only] => format!("self reference: {}", plan.nodes[only].id),
            _ => format!("cycle: {}", plan.ids(members)),
        };
        diagnostics.push(Diagnostic::error_without_place("", text));
    }
    if diagnostics.has_errors() { Err(diagnostics) } else { Ok(plan) }
}

/// Everything that can be told to be wrong with the blocks of a scope without running them, and warnings of what is
/// deprecated, in the order of the text. What refers to no component is evaluated as it would be now.
pub fn validate(blocks: &[Arc<Block>], catalog: &Catalog, permissions: Permissions) -> Diagnostics {
    let Draft { plan, mut diagnostics, cycles } = draft(blocks, catalog, permissions, Purpose::Check);
    for members in &cycles {
        for member in members {
            let block = &plan.nodes[*member].block;
            let span = Span::new(block.name_span.start, block.open.end);
            let text = match members[..] {
                [_] => "cannot reference self".to_owned(),
                _ => format!("cycle detected: {}", plan.ids(members)),
            };
            diagnostics.push(Diagnostic::error(&block.source, span, text));
        }
    }
    let exports = unknown_exports(&plan);
    for (at, node) in plan.nodes.iter().enumerate() {
        let scope = check_scope(&plan, at, |target| exports[target].clone());
        for diagnostic in check_contents(node, &scope, permissions) {
            diagnostics.push(diagnostic);
        }
        for (name, traversal) in deprecated_functions(node) {
            let instead = stdlib::alias(&name).unwrap_or_default();
            let text = format!("{DEPRECATED_FUNCTION}: {name} is now {instead}");
            diagnostics.push(Diagnostic::warning(&traversal.source, traversal.span, text));
        }
    }
    // The order of the text is the one in which somebody reads it.
    let mut sorted: Vec<Diagnostic> = diagnostics.into_iter().collect();
    sorted.sort_by(|a, b| (&a.file, a.start).cmp(&(&b.file, b.start)));
    sorted.into_iter().collect()
}

/// What a plan is made for. The reference words some of what is wrong differently in its check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Load,
    Check,
}

/// A plan and what is wrong with it.
struct Draft {
    plan: Plan,
    diagnostics: Diagnostics,
    /// The nodes that refer to each other in a circle, or to themselves.
    cycles: Vec<Vec<usize>>,
}

/// The plan of what is right about the blocks of a scope.
fn draft(blocks: &[Arc<Block>], catalog: &Catalog, permissions: Permissions, purpose: Purpose) -> Draft {
    let mut diagnostics = Diagnostics::new();
    let mut nodes: Vec<PlannedNode> = Vec::new();
    let mut by_id: HashMap<String, usize> = HashMap::new();
    for block in blocks {
        let Some(node) = node_of(block, catalog, permissions, &mut diagnostics) else { continue };
        if let Some(first) = by_id.get(&node.id) {
            let first = &nodes[*first].block;
            let place = Diagnostic::error(&first.source, first.name_span, "").place();
            let (span, text) = if node.kind == NodeKind::Service && purpose == Purpose::Load {
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
    let components = strongly_connected(&nodes);
    let order: Vec<usize> = components.iter().flatten().copied().collect();
    let plan = sorted(nodes, &order);
    // The members of a component stand side by side in the order.
    let mut first = 0;
    let mut cycles = Vec::new();
    for component in components {
        let members: Vec<usize> = (first..first + component.len()).collect();
        first += component.len();
        if members.len() > 1 || plan.nodes[members[0]].dependencies.contains(&members[0]) {
            cycles.push(members);
        }
    }
    Draft { plan, diagnostics, cycles }
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
        refuse(block.span, format!("service {name:?} does not support being configured"));
        return None;
    }
    let found = catalog.definition(name);
    let Some((kind, definition)) = found.filter(|(kind, _)| {
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
            let subject = match kind {
                NodeKind::Service => format!("block {name:?}"),
                _ => format!("config block {name:?}"),
            };
            if let Some(text) = definition.stability.refusal(&subject, permissions.stability) {
                refuse(block.span, text);
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
        unresolved: Vec::new(),
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
            node.unresolved.push(traversal);
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

/// What the nodes of a plan export as long as none of them runs.
pub(crate) fn unknown_exports(plan: &Plan) -> Vec<Value> {
    let mut exports: Vec<Value> = Vec::new();
    for (at, node) in plan.nodes.iter().enumerate() {
        // What comes later is part of a cycle.
        let scope = check_scope(plan, at, |target| exports.get(target).cloned().unwrap_or_else(Value::unknown));
        let definition = &node.definition;
        exports.push(unknown::exports(definition.exports, definition.arguments, &node.block, &scope));
    }
    exports
}

/// What the names in a node's block stand for in a check, given what stands for the nodes that it refers to.
pub(crate) fn check_scope(plan: &Plan, at: usize, value_of: impl Fn(usize) -> Value) -> CheckScope {
    let node = &plan.nodes[at];
    let unresolved: Vec<String> = node.unresolved.iter().map(Traversal::text).collect();
    let resolved = node.dependencies.iter().map(|target| (plan.nodes[*target].id.as_str(), value_of(*target)));
    let unresolved = unresolved.iter().map(|names| (names.as_str(), Value::unknown()));
    CheckScope(ExportScope::new(resolved.chain(unresolved)))
}

/// Checks the contents of a node's block as far as the scope knows values.
pub(crate) fn check_contents(node: &PlannedNode, scope: &CheckScope, permissions: Permissions) -> Diagnostics {
    let cx = DecodeContext { scope, minimum: permissions.stability };
    match check(node.definition.arguments, &node.block, &cx) {
        Ok(()) => Diagnostics::new(),
        Err(errors) => errors.into_diagnostics(),
    }
}

/// The deprecated functions that a node's block uses, with their places.
pub(crate) fn deprecated_functions(node: &PlannedNode) -> Vec<(Arc<str>, Traversal)> {
    let named = |traversal: Traversal| Some((Arc::clone(traversal.names.first()?), traversal));
    let mut found: Vec<_> = traversals(&node.block).into_iter().filter_map(named).collect();
    let refers = |traversal: &Traversal| node.references.iter().any(|(other, _)| other.span == traversal.span);
    found.retain(|(name, traversal)| stdlib::alias(name).is_some() && !refers(traversal));
    found
}
