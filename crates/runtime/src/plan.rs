//! What a load would do, asked of the program that runs: it alone knows what its components export.
//!
//! Arguments are decoded and compared. Nothing is prepared: no queue is opened and no request sent.

use std::collections::HashSet;
use std::sync::Arc;

use corten_component::secrets::SecretBook;
use corten_config::decode::DecodeContext;
use corten_config::encode::Item;
use corten_config::value::Value;
use corten_syntax::{Block, Diagnostics, Severity};

use crate::controller::{Controller, Failure, LoadError, Node};
use crate::graph::{
    NodeKind, Plan, PlannedNode, check_contents, check_scope, is_receiver, plan, unknown_exports, validate,
};
use crate::scope::ExportScope;
use crate::shown;
use crate::source::{self, Source, SourceError};

/// The most bytes of one side of a changed argument that are shown.
const ARGUMENT_BYTES_MAX: usize = 64 << 10;

/// What a load would do.
#[derive(Clone, Debug, Default)]
pub struct ReloadPlan {
    /// Whether the texts differ from those that run.
    pub changed: bool,
    /// What is wrong with them. With an error among them a load would be refused.
    pub diagnostics: Diagnostics,
    /// What would be new.
    pub created: Vec<PlannedChange>,
    /// What would get other arguments in place.
    pub updated: Vec<PlannedChange>,
    /// What refers to something that would change, and may change itself.
    pub affected: Vec<PlannedChange>,
    /// What would end.
    pub removed: Vec<PlannedChange>,
    /// How many components and blocks would stay as they are.
    pub untouched: usize,
    /// The texts, as they may be shown.
    pub files: Vec<(String, String)>,
}

impl ReloadPlan {
    /// Whether a load would change anything that runs.
    pub fn changes_anything(&self) -> bool {
        [&self.created, &self.updated, &self.affected, &self.removed].iter().any(|changes| !changes.is_empty())
    }

    /// Masks what a book knows in all that is said of texts.
    fn mask(&mut self, book: &SecretBook) {
        shown::mask_diagnostics(&mut self.diagnostics, book);
        for change in [&mut self.created, &mut self.updated].into_iter().flatten() {
            for argument in &mut change.arguments {
                book.mask(&mut argument.before);
                book.mask(&mut argument.after);
            }
        }
    }

    /// Whether a load would be refused.
    pub fn is_refused(&self) -> bool {
        self.diagnostics.has_errors()
    }
}

/// What would become of a component or block.
#[derive(Clone, Debug, Default)]
pub struct PlannedChange {
    /// Its id.
    pub id: String,
    /// The file that it stands in, or stood in.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// What changes about its arguments.
    pub arguments: Vec<ArgumentChange>,
    /// Why, where the arguments do not tell.
    pub why: String,
}

/// How an argument changes: its text, or its value where the text stays. Secrets are masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgumentChange {
    /// Its name.
    pub name: String,
    /// What it is; empty where there is none.
    pub before: String,
    /// What it would be; empty where there is none.
    pub after: String,
}

impl Controller {
    /// What a load of the configuration at a path would do.
    ///
    /// # Errors
    ///
    /// The configuration cannot be read.
    pub async fn plan_reload(&self, path: &std::path::Path) -> Result<ReloadPlan, LoadError> {
        let path = path.to_owned();
        let read = tokio::task::spawn_blocking(move || {
            let texts = source::read_texts(&path)?;
            Ok((source::from_texts(&texts), texts))
        });
        let read = read.await.unwrap_or_else(|error| Err(SourceError::Read(error.to_string())));
        let (source, texts) = read.map_err(LoadError::from)?;
        let files: Vec<_> = texts.iter().map(|(name, text)| corten_syntax::SourceFile::new(name, text)).collect();
        let mut planned = match source {
            Ok(source) => self.plan_source(&source).await,
            Err(SourceError::Syntax(diagnostics)) => ReloadPlan { changed: true, diagnostics, ..ReloadPlan::default() },
            Err(error) => return Err(error.into()),
        };
        planned.files = shown::files(&files, self.catalog(), self.secrets());
        planned.mask(&shown::literals_of(&files, self.catalog()));
        Ok(planned)
    }

    /// What a load of a configuration that was read already would do.
    pub async fn plan_source(&self, source: &Source) -> ReloadPlan {
        let _no_load = self.load_lock.read().await;
        let changed = self.source().is_none_or(|running| running.sha256 != source.sha256);
        let plan = match plan(&source.blocks, self.catalog(), self.permissions()) {
            Ok(plan) => plan,
            Err(diagnostics) => return ReloadPlan { changed, diagnostics, ..ReloadPlan::default() },
        };
        let mut planning = Planning {
            controller: self,
            unknown: unknown_exports(&plan),
            plan: &plan,
            fates: Vec::with_capacity(plan.nodes.len()),
            out: ReloadPlan { changed, ..ReloadPlan::default() },
        };
        for at in 0..plan.nodes.len() {
            let fate = planning.node(at).await;
            planning.fates.push(fate);
        }
        let mut out = planning.out;
        if out.is_refused() {
            // A load that is refused changes nothing.
            return ReloadPlan { changed, diagnostics: out.diagnostics, ..ReloadPlan::default() };
        }
        // Warnings are for whoever looks, and a load goes on with them.
        let checked = validate(&source.blocks, self.catalog(), self.permissions());
        out.diagnostics.extend(checked.into_iter().filter(|diagnostic| diagnostic.severity == Severity::Warning));
        let kept: HashSet<&str> = plan.nodes.iter().map(|node| node.id.as_str()).collect();
        for node in self.nodes() {
            if !kept.contains(node.id.as_str()) {
                out.removed.push(of_block(&node.id, &node.block()));
            }
        }
        for changes in [&mut out.created, &mut out.updated, &mut out.affected, &mut out.removed] {
            changes.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        }
        out
    }
}

/// What would become of a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Created,
    Updated,
    Affected,
    Untouched,
    Refused,
}

struct Planning<'a> {
    controller: &'a Controller,
    plan: &'a Plan,
    unknown: Vec<Value>,
    /// Of the nodes so far.
    fates: Vec<Fate>,
    out: ReloadPlan,
}

impl Planning<'_> {
    async fn node(&mut self, at: usize) -> Fate {
        let planned = &self.plan.nodes[at];
        let running = self.controller.node(&planned.id);
        // Of what does not run yet no exports are known.
        let known: Vec<Option<Value>> = planned
            .dependencies
            .iter()
            .map(|d| match self.fates[*d] {
                Fate::Created | Fate::Refused => None,
                _ => Some(self.controller.node(&self.plan.nodes[*d].id)?.exports()),
            })
            .collect();
        let Some(running) = running else {
            return match self.check(at, &known) {
                true => {
                    self.out.created.push(self.change(planned, None));
                    Fate::Created
                }
                false => Fate::Refused,
            };
        };
        if known.iter().any(Option::is_none) {
            if !self.check(at, &known) {
                return Fate::Refused;
            }
            let arguments = self.text_changes(&running.block(), &planned.block);
            // It may turn out to be the same, which nobody knows before what it refers to runs.
            let why = "refers to what does not run yet".to_owned();
            self.out.updated.push(PlannedChange { arguments, why, ..of_block(&planned.id, &planned.block) });
            return Fate::Updated;
        }
        match self.compare(planned, &running, &known).await {
            Ok(Some((before, after))) => {
                let change = self.change(planned, Some((&running, &before, &after)));
                self.out.updated.push(change);
                Fate::Updated
            }
            Ok(None) => match self.changing(planned) {
                changing if changing.is_empty() => {
                    self.out.untouched += 1;
                    Fate::Untouched
                }
                changing => {
                    let why = format!("refers to {}, which may export something else then", changing.join(", "));
                    self.out.affected.push(PlannedChange { why, ..of_block(&planned.id, &planned.block) });
                    Fate::Affected
                }
            },
            Err(diagnostics) => {
                self.out.diagnostics.extend(diagnostics);
                Fate::Refused
            }
        }
    }

    /// Checks a node whose values are not all known.
    fn check(&mut self, at: usize, known: &[Option<Value>]) -> bool {
        let planned = &self.plan.nodes[at];
        let value_of = |target: usize| {
            let index = planned.dependencies.iter().position(|d| *d == target);
            index.and_then(|index| known[index].clone()).unwrap_or_else(|| self.unknown[target].clone())
        };
        let scope = check_scope(self.plan, at, value_of);
        let found = check_contents(planned, &scope, self.controller.permissions());
        let fine = !found.has_errors();
        self.out.diagnostics.extend(found);
        fine
    }

    /// The arguments with which a node runs and those that it would get; nothing where they are the same.
    async fn compare(
        &self,
        planned: &PlannedNode,
        running: &Node,
        known: &[Option<Value>],
    ) -> Result<Option<(Vec<Item>, Vec<Item>)>, Diagnostics> {
        let ids = planned.dependencies.iter().map(|d| self.plan.nodes[*d].id.as_str());
        let scope = ExportScope::new(ids.zip(known).filter_map(|(id, value)| Some((id, value.clone()?))));
        let driver = running.driver.lock().await;
        let minimum = self.controller.permissions().stability;
        let step = if planned.kind == NodeKind::Service { "updating service" } else { "updating component" };
        let arguments = driver
            .decode(&planned.block, &DecodeContext { scope: &scope, minimum })
            .map_err(|errors| Failure::of_decoding(&errors, planned.kind, step, &planned.block).diagnostics)?;
        let current = driver.is_current(&arguments);
        Ok((!current).then(|| (driver.shown_arguments(), driver.shown(&arguments))))
    }

    /// The nodes whose values a node uses and which may be others after the load.
    fn changing(&self, planned: &PlannedNode) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for (traversal, target) in &planned.references {
            let exporter = &self.plan.nodes[*target];
            let export = traversal.names.get(exporter.id.split('.').count());
            // A receiver is the same whatever its component's arguments are.
            let stays = export.is_some_and(|name| is_receiver(exporter.definition.exports, name));
            let changes = matches!(self.fates[*target], Fate::Updated | Fate::Affected);
            if changes && !stays && !found.contains(&exporter.id) {
                found.push(exporter.id.clone());
            }
        }
        found
    }

    fn change(&self, planned: &PlannedNode, running: Option<(&Node, &[Item], &[Item])>) -> PlannedChange {
        let (mut arguments, mut why) = (Vec::new(), String::new());
        match running {
            Some((running, before, after)) => {
                arguments = self.text_changes(&running.block(), &planned.block);
                if arguments.is_empty() {
                    // The text is the same: what it is made of has changed.
                    arguments = value_changes(before, after, self.controller.secrets());
                    "what its text refers to has another value".clone_into(&mut why);
                }
            }
            None => {
                let texts = shown::arguments(&planned.block, self.controller.catalog(), self.controller.secrets());
                arguments.extend(texts.into_iter().map(|(name, after)| ArgumentChange {
                    name,
                    before: String::new(),
                    after: limited(after),
                }));
            }
        }
        PlannedChange { arguments, why, ..of_block(&planned.id, &planned.block) }
    }

    /// What differs between the texts of two blocks.
    fn text_changes(&self, before: &Block, after: &Block) -> Vec<ArgumentChange> {
        let texts = |block: &Block| shown::arguments(block, self.controller.catalog(), self.controller.secrets());
        let statement = |block: &Block, at: usize| block.body[at].clone();
        let (old, new) = (texts(before), texts(after));
        let mut changes = Vec::new();
        for (at, (name, text)) in old.iter().enumerate() {
            match new.iter().position(|(other, _)| other == name) {
                // The text that is shown may be the same although a secret has changed.
                Some(other) if statement(before, at).same_text(&statement(after, other)) => {}
                Some(other) => changes.push((name, text.clone(), new[other].1.clone())),
                None => changes.push((name, text.clone(), String::new())),
            }
        }
        let is_new = |name: &String| old.iter().all(|(other, _)| other != name);
        changes.extend(
            new.iter().filter(|(name, _)| is_new(name)).map(|(name, text)| (name, String::new(), text.clone())),
        );
        let change = |(name, before, after): (&String, String, String)| ArgumentChange {
            name: name.clone(),
            before: limited(before),
            after: limited(after),
        };
        changes.into_iter().map(change).collect()
    }
}

fn of_block(id: &str, block: &Arc<Block>) -> PlannedChange {
    PlannedChange {
        id: id.to_owned(),
        file: block.source.name().to_string(),
        line: block.source.line(block.span.start),
        ..PlannedChange::default()
    }
}

/// What differs between two bodies.
fn value_changes(before: &[Item], after: &[Item], book: &SecretBook) -> Vec<ArgumentChange> {
    let text = |item: &Item| match item {
        Item::Attr { name, value } => (name.clone(), value.to_string()),
        Item::Block { name, label, body } => {
            let name = label.as_ref().map_or_else(|| name.clone(), |label| format!("{name}.{label}"));
            (name, corten_config::encode::json(body))
        }
    };
    let mut changes: Vec<ArgumentChange> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for item in before.iter().chain(after) {
        let (name, _) = text(item);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for name in names {
        let of = |items: &[Item]| -> Vec<Item> { items.iter().filter(|item| text(item).0 == name).cloned().collect() };
        let (old, new) = (of(before), of(after));
        if old != new {
            let shown = |items: &[Item]| {
                let texts: Vec<String> = items.iter().map(|item| text(item).1).collect();
                limited(book.masked(&texts.join("\n")))
            };
            changes.push(ArgumentChange { before: shown(&old), after: shown(&new), name });
        }
    }
    changes
}

fn limited(mut text: String) -> String {
    if text.len() > ARGUMENT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(ARGUMENT_BYTES_MAX));
        text.push('…');
    }
    text
}
