//! Looking at what passes over an edge.
//!
//! Whoever looks sees a sample: at most so many items a second are rendered, and looking at more than those, because a
//! filter wants rare ones, stops when it has cost a fiftieth of a core. What one look takes beyond that is taken off the
//! seconds that follow. A batch is looked at where it is and never kept, so that nobody who may change it in place has to
//! copy it. Nobody looking costs a load a batch.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use corten_config::value::MASK;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::flow::Signal;
use crate::ledger::{Edge, Kind};
use crate::regex::GoRegex;

/// How much of a second all that look may take together. Each has its share of it, and each side of a component its own, so
/// that a filter that costs much does not blind others.
const LOOK_BUDGET: Duration = Duration::from_millis(20);
/// How many items of a batch are looked at before the first look at the clock.
const CLOCK_FIRST: usize = 4;
/// How many items are looked at between two looks at the clock, at most, and how long that may take before it is looked at
/// for each item.
const CLOCK_EVERY_MAX: usize = 16;
const CLOCK_EVERY_TIME: Duration = Duration::from_micros(100);
/// For how many seconds it is told that looking cost too much.
const LIMITED_SECONDS: u64 = 3;
/// How many items wait to be fetched.
const WAITING_ITEMS_MAX: usize = 1000;
/// How many bytes wait to be fetched.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// How much longer than its text the structure of an item may be.
const FIELDS_FACTOR: usize = 4;
/// How long a structure is at first thought to be, so that its text is seldom moved while it is written.
const FIELDS_CAPACITY: usize = 512;
/// How deeply the JSON of an item may be nested. Whoever reads it gives up at 128.
const JSON_DEPTH_MAX: usize = 100;
/// What a value of a structure takes beside its text, about.
const FIELD_BYTES: usize = 64;
/// A longer text is no name of a secret.
const NAME_BYTES_MAX: usize = 256;
/// How much more of a text is searched for secrets than is shown of it, so that none is shown of which the search saw but
/// the beginning.
const REDACT_MARGIN: usize = 16 << 10;
/// The longest filter.
const FILTER_BYTES_MAX: usize = 4 << 10;
/// How many conditions a filter may have.
const FILTER_TERMS_MAX: usize = 32;

/// An item of a batch, while it is looked at.
pub trait Item {
    /// Offers each text of the item, the names of fields but not of its structure, until one is accepted. Whether one was.
    fn any_text(&self, accept: &mut dyn FnMut(&[u8]) -> bool) -> bool;
    /// The value of a field: a label, an attribute, or a part of the item. `None` where it has none of the name.
    fn field(&self, name: &str) -> Option<String>;
    /// The item on one line.
    fn text(&self) -> String;
    /// The item as structure.
    fn fields(&self, out: &mut Fields<'_>);
}

/// Is given the items of a batch, one after the other, and says whether it wants more.
pub type Look<'a> = dyn FnMut(&dyn Item) -> bool + 'a;

/// What items somebody wants to see: those that meet all its terms.
#[derive(Clone, Debug, Default)]
pub struct Filter(Vec<Term>);

#[derive(Clone, Debug)]
enum Term {
    Text(Box<memchr::memmem::Finder<'static>>),
    Is(String, String),
    IsNot(String, String),
    Matches(String, Arc<GoRegex>),
    MatchesNot(String, Arc<GoRegex>),
}

impl Filter {
    /// Reads a filter: terms with blanks between them. `word` or `"two words"` is a text that the item has,
    /// `name=value` and `name!=value` compare a field, `name=~regex` and `name!~regex` match the whole of one.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > FILTER_BYTES_MAX {
            return Err(format!("the filter is longer than {FILTER_BYTES_MAX} bytes"));
        }
        let mut terms = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            if terms.len() == FILTER_TERMS_MAX {
                return Err(format!("the filter has more than {FILTER_TERMS_MAX} terms"));
            }
            let (word, after) = read_word(rest, true)?;
            let operator = ["=~", "!~", "!=", "="].into_iter().find(|operator| after.starts_with(operator));
            let (term, after) = match operator {
                None => (Term::Text(Box::new(memchr::memmem::Finder::new(word.as_bytes()).into_owned())), after),
                Some(operator) => {
                    let (value, after) = read_word(&after[operator.len()..], false)?;
                    let term = match operator {
                        "=~" => Term::Matches(word, whole(&value)?),
                        "!~" => Term::MatchesNot(word, whole(&value)?),
                        "!=" => Term::IsNot(word, value),
                        _ => Term::Is(word, value),
                    };
                    (term, after)
                }
            };
            if !after.is_empty() && !after.starts_with(char::is_whitespace) {
                return Err(format!("a blank is missing before `{after}`"));
            }
            terms.push(term);
            rest = after.trim_start();
        }
        Ok(Filter(terms))
    }

    /// Whether an item is wanted.
    pub fn matches(&self, item: &dyn Item) -> bool {
        self.0.iter().all(|term| term.matches(item))
    }

    /// Whether an item is wanted for what is shown of it: nobody finds out a secret by asking for it. What asks for a certain
    /// text is asked of the item as it is first, which is cheap.
    fn wants(&self, item: &dyn Item, redact: &Redact) -> bool {
        let masked = Masked { item, redact };
        let may_match = |term: &Term| !matches!(term, Term::Text(_) | Term::Is(..)) || term.matches(item);
        self.0.iter().all(|term| may_match(term) && term.matches(&masked))
    }

    fn is_all(&self) -> bool {
        self.0.is_empty()
    }
}

impl Term {
    fn matches(&self, item: &dyn Item) -> bool {
        match self {
            Term::Text(finder) => item.any_text(&mut |text| finder.find(text).is_some()),
            Term::Is(name, value) => item.field(name).unwrap_or_default() == *value,
            Term::IsNot(name, value) => item.field(name).unwrap_or_default() != *value,
            Term::Matches(name, regex) => regex.is_match(&item.field(name).unwrap_or_default()),
            Term::MatchesNot(name, regex) => !regex.is_match(&item.field(name).unwrap_or_default()),
        }
    }
}

/// An item without its secrets.
struct Masked<'a> {
    item: &'a dyn Item,
    redact: &'a Redact,
}

impl Item for Masked<'_> {
    fn any_text(&self, accept: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        // The name of a value comes before it.
        let mut names_it = false;
        self.item.any_text(&mut |text| {
            let text = String::from_utf8_lossy(text);
            let is_name = text.len() <= NAME_BYTES_MAX && self.redact.names_secret(&text);
            if std::mem::replace(&mut names_it, is_name) {
                return accept(MASK.as_bytes());
            }
            if self.redact.is_open(&text) {
                return accept(text.as_bytes());
            }
            let mut text = text.into_owned();
            self.redact.redact(&mut text);
            accept(text.as_bytes())
        })
    }

    fn field(&self, name: &str) -> Option<String> {
        let mut value = self.item.field(name)?;
        if self.redact.names_secret(name) {
            return Some(MASK.to_owned());
        }
        self.redact.redact(&mut value);
        Some(value)
    }

    fn text(&self) -> String {
        let mut text = self.item.text();
        self.redact.redact(&mut text);
        text
    }

    fn fields(&self, out: &mut Fields<'_>) {
        self.item.fields(out);
    }
}

/// A pattern that matches whole texts.
fn whole(pattern: &str) -> Result<Arc<GoRegex>, String> {
    GoRegex::new(&format!("^(?s:{pattern})$")).map(Arc::new).map_err(|error| format!("`{pattern}`: {error}"))
}

/// A word, plain or in double quotes, where `\"` is a quote and `\\` a backslash; and what follows. A plain one ends at a
/// blank and, where it may be a name, at an operator.
fn read_word(text: &str, is_name: bool) -> Result<(String, &str), String> {
    let Some(quoted) = text.strip_prefix('"') else {
        let ends = |c: char| c.is_whitespace() || (is_name && matches!(c, '=' | '!'));
        let end = text.find(ends).unwrap_or(text.len());
        if end == 0 && is_name {
            return Err(format!("a name is missing before `{text}`"));
        }
        return Ok((text[..end].to_owned(), &text[end..]));
    };
    let mut word = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((word, &quoted[at + 1..])),
            '\\' => match chars.next() {
                Some((_, c @ ('"' | '\\'))) => word.push(c),
                Some((_, c)) => word.extend(['\\', c]),
                None => break,
            },
            c => word.push(c),
        }
    }
    Err(format!("the quote of `{text}` is not closed"))
}

/// On which side of a component an item was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The component takes it.
    In,
    /// The component hands it on.
    Out,
}

/// What somebody wants to see.
#[derive(Clone, Debug)]
pub struct TapOptions {
    /// Which items.
    pub filter: Filter,
    /// How many of those, from 0 to 1.
    pub probability: f64,
    /// How many a second at most. Where both sides of a component are looked at, each has half of them, so that what goes in
    /// does not hide what comes out; nor do one edge or one batch of a side take all of its share where there may be others.
    pub items_per_s_max: u32,
    /// The longest text of an item; what is longer is cut, and the structure at some times as much.
    pub item_bytes_max: usize,
}

impl Default for TapOptions {
    fn default() -> Self {
        TapOptions { filter: Filter::default(), probability: 1.0, items_per_s_max: 30, item_bytes_max: 16 << 10 }
    }
}

/// An item that was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Counts what this onlooker saw, from 1.
    pub number: u64,
    /// On which side of the component.
    pub side: Side,
    /// Where it came from.
    pub from: Arc<str>,
    /// Where it went.
    pub to: Arc<str>,
    /// What it is.
    pub kind: Kind,
    /// When it was seen, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The item on one line, secrets masked.
    pub text: String,
    /// The item as structure, secrets masked: JSON.
    pub fields: String,
    /// How many secrets were masked in its text.
    pub secrets: u32,
}

/// How much an onlooker saw so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapCounts {
    /// Items that passed.
    pub passed: u64,
    /// Items that were looked at.
    pub looked: u64,
    /// Items that the filter wanted, as far as they were looked at. Without a filter, all.
    pub matched: u64,
    /// Items that were wanted and are not shown: there were too many, or chance was against them.
    pub missed: u64,
    /// Whether items were not looked at within the last seconds because looking cost too much.
    pub limited: bool,
}

/// Knows what must not be shown.
pub trait Redactor: Send + Sync {
    /// Masks the secrets of a text, and says how many it masked.
    fn redact(&self, text: &mut String) -> u32;

    /// Whether a glance says that there is nothing to mask in a text.
    fn is_open(&self, _text: &str) -> bool {
        false
    }

    /// Whether what has that name is a secret: what is masked in a text is masked in a structure.
    fn names_secret(&self, name: &str) -> bool {
        self.redact(&mut format!("{name}=-")) > 0
    }
}

impl<F: Fn(&mut String) -> u32 + Send + Sync> Redactor for F {
    fn redact(&self, text: &mut String) -> u32 {
        self(text)
    }
}

/// What is shown goes through this first.
pub type Redact = Arc<dyn Redactor>;

/// Lets people look at what passes, within a budget that they share.
pub struct Taps {
    redact: Redact,
    began: Instant,
    watchers: AtomicU64,
}

impl fmt::Debug for Taps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taps").field("watchers", &self.watchers).finish_non_exhaustive()
    }
}

impl Default for Taps {
    fn default() -> Self {
        Taps::new(Arc::new(|_: &mut String| 0))
    }
}

impl Taps {
    /// What is shown goes through `redact` first.
    pub fn new(redact: Redact) -> Self {
        Taps { redact, began: Instant::now(), watchers: AtomicU64::new(0) }
    }

    /// How many look at this time.
    pub fn watching(&self) -> u64 {
        self.watchers.load(Ordering::Relaxed)
    }

    /// Looks at edges, until what is returned is dropped.
    pub fn watch(self: &Arc<Self>, edges: Vec<(Side, Arc<Edge>)>, options: TapOptions) -> Watch {
        let ways = [Side::In, Side::Out].map(|side| edges.iter().filter(|(have, _)| *have == side).count());
        let both = ways.iter().all(|ways| *ways > 0);
        let shown_max = if both { options.items_per_s_max.div_ceil(2) } else { options.items_per_s_max };
        let watcher = Arc::new(Watcher {
            taps: Arc::clone(self),
            options,
            shown_max: shown_max as usize,
            ways,
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                waiting_bytes: 0,
                counts: TapCounts::default(),
                limited_until: 0,
                number: 0,
                second: self.began.elapsed().as_secs(),
                spent: [Duration::ZERO; 2],
                shown: [0; 2],
                unseen: ways,
                seen: vec![false; edges.len()],
                random: random_seed(),
            }),
            came: Notify::new(),
        });
        self.watchers.fetch_add(1, Ordering::Relaxed);
        for (at, (side, edge)) in edges.iter().enumerate() {
            edge.watchers().add(Onlooker { side: *side, at, watcher: Arc::downgrade(&watcher) });
        }
        Watch { watcher, edges: edges.into_iter().map(|(_, edge)| edge).collect() }
    }
}

fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() | 1
}

struct Watcher {
    taps: Arc<Taps>,
    options: TapOptions,
    /// How many items of a side are shown in a second.
    shown_max: usize,
    /// How many edges of each side are looked at.
    ways: [usize; 2],
    state: Mutex<State>,
    came: Notify,
}

struct State {
    waiting: VecDeque<Seen>,
    waiting_bytes: usize,
    counts: TapCounts,
    /// The second up to which it is told that looking cost too much.
    limited_until: u64,
    number: u64,
    /// The present second, how long each side was looked at in it, how many items of each side were shown, how many edges of
    /// each side showed none yet, and which ones did.
    second: u64,
    spent: [Duration; 2],
    shown: [usize; 2],
    unseen: [usize; 2],
    seen: Vec<bool>,
    random: u64,
}

impl State {
    /// A number from 0 to 1. xorshift64: which items are shown is no secret.
    fn chance(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A new second begins. What was spent beyond the budget of the last ones is taken off its own.
    fn advance(&mut self, second: u64, budget: Duration, ways: [usize; 2]) {
        let passed = u32::try_from(second.saturating_sub(self.second)).unwrap_or(u32::MAX);
        if passed == 0 {
            return;
        }
        self.second = second;
        self.spent = self.spent.map(|spent| spent.saturating_sub(budget.saturating_mul(passed)));
        (self.shown, self.unseen) = ([0; 2], ways);
        self.seen.fill(false);
    }

    fn counts_at(&self, second: u64) -> TapCounts {
        TapCounts { limited: second < self.limited_until, ..self.counts }
    }

    fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_ITEMS_MAX && self.waiting_bytes < WAITING_BYTES_MAX
    }

    /// How many items of a batch are shown, of so many a second. An item is left for each edge that has not shown any, of up
    /// to half of all, and a quarter of the rest is left for the batches that follow, so that a large one does not hide
    /// them.
    fn share(&self, side: Side, at: usize, shown_max: usize) -> usize {
        let left = shown_max.saturating_sub(self.shown[side as usize]);
        let is_first = !self.seen[at];
        let others = self.unseen[side as usize] - usize::from(is_first);
        let free = left.saturating_sub(others.min(shown_max / 2));
        (free - free / 4).max(usize::from(is_first)).min(left)
    }
}

impl Watcher {
    /// How much of a second each side may be looked at.
    fn budget(&self) -> Duration {
        let sides = self.ways.iter().filter(|ways| **ways > 0).count();
        let shares = usize::try_from(self.taps.watching()).unwrap_or(usize::MAX).saturating_mul(sides);
        LOOK_BUDGET / u32::try_from(shares).unwrap_or(u32::MAX).max(1)
    }

    fn look<S: Signal>(&self, side: Side, at: usize, edge: &Edge, batch: &S::Batch) {
        let items = S::items(batch) as u64;
        let budget = self.budget();
        let mut state = self.state.lock();
        let state = &mut *state;
        state.counts.passed += items;
        state.advance(self.taps.began.elapsed().as_secs(), budget, self.ways);
        let mut share = state.share(side, at, self.shown_max);
        let (mut looked, mut matched, mut shown) = (0u64, 0u64, 0u64);
        if share > 0 && state.has_room() && items > 0 {
            // A quarter of what is left is for the batches that follow.
            let spent = state.spent[side as usize];
            let left = budget.saturating_sub(spent);
            let may_spend = left - left / 4;
            let mut may_look = !may_spend.is_zero();
            if may_look {
                let started = Instant::now();
                let (mut clocked, mut unclocked, mut clock_every) = (Duration::ZERO, 0, CLOCK_FIRST);
                S::show(batch, &mut |item: &dyn Item| {
                    looked += 1;
                    unclocked += 1;
                    if self.options.filter.wants(item, &self.taps.redact) {
                        matched += 1;
                        if self.options.probability >= 1.0 || state.chance() < self.options.probability {
                            self.show(state, side, at, edge, item);
                            shown += 1;
                            share -= 1;
                        }
                    }
                    if unclocked >= clock_every {
                        let now = started.elapsed();
                        let is_quick = now - clocked < CLOCK_EVERY_TIME;
                        clock_every = if is_quick { (2 * clock_every).min(CLOCK_EVERY_MAX) } else { 1 };
                        (clocked, unclocked) = (now, 0);
                        may_look = now < may_spend;
                    }
                    may_look && share > 0 && state.has_room()
                });
                state.spent[side as usize] = spent + started.elapsed();
            }
            if !may_look && looked < items {
                state.limited_until = state.second + LIMITED_SECONDS;
            }
        }
        state.counts.looked += looked;
        // Without a filter everything is wanted.
        let matched = if self.options.filter.is_all() { items } else { matched };
        state.counts.matched += matched;
        state.counts.missed += matched.saturating_sub(shown);
        if shown > 0 {
            self.came.notify_one();
        }
    }

    fn show(&self, state: &mut State, side: Side, at: usize, edge: &Edge, item: &dyn Item) {
        let redact = &self.taps.redact;
        let mut text = item.text();
        let secrets = redact_and_cut(&mut text, redact, self.options.item_bytes_max);
        let fields_max = self.options.item_bytes_max.saturating_mul(FIELDS_FACTOR);
        let fields = Fields::of(item, redact, self.options.item_bytes_max, fields_max);
        if !std::mem::replace(&mut state.seen[at], true) {
            state.unseen[side as usize] -= 1;
        }
        state.number += 1;
        state.shown[side as usize] += 1;
        state.waiting_bytes += text.len() + fields.len() + size_of::<Seen>();
        state.waiting.push_back(Seen {
            number: state.number,
            side,
            from: Arc::clone(edge.from()),
            to: Arc::clone(edge.to()),
            kind: edge.kind(),
            at_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64),
            text,
            fields,
            secrets,
        });
    }
}

/// Cuts a text to a length, and says so.
fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push('…');
    }
}

/// Writes the structure of an item as JSON, without its secrets. What is long is cut, and what comes after so many bytes is
/// left out.
pub struct Fields<'a> {
    out: String,
    redact: &'a Redact,
    text_max: usize,
    left: usize,
    /// Whether what is written stands under the name of a secret.
    is_hidden: bool,
}

impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fields").field("left", &self.left).finish_non_exhaustive()
    }
}

impl<'a> Fields<'a> {
    /// The structure of an item, with texts of so many bytes each and together.
    pub fn of(item: &dyn Item, redact: &'a Redact, text_max: usize, bytes_max: usize) -> String {
        let out = String::with_capacity(FIELDS_CAPACITY);
        let mut fields = Fields { out, redact, text_max, left: bytes_max, is_hidden: false };
        item.fields(&mut fields);
        if fields.out.is_empty() {
            fields.out.push_str("null");
        }
        fields.out
    }

    /// The whole structure, as an object with these members.
    pub fn members(&mut self, write: impl FnOnce(&mut Self)) {
        self.left = self.left.saturating_sub(FIELD_BYTES);
        self.out.push('{');
        write(self);
        self.out.push('}');
    }

    /// A member that is an object with these members.
    pub fn object(&mut self, name: &str, write: impl FnOnce(&mut Self)) {
        let was_hidden = self.is_hidden;
        if self.name(name) {
            self.members(write);
        }
        self.is_hidden = was_hidden;
    }

    /// A member that is a text.
    pub fn text(&mut self, name: &str, text: &str) {
        let was_hidden = self.is_hidden;
        if self.name(name) {
            let text = if self.is_hidden { MASK } else { text };
            self.left = self.left.saturating_sub(FIELD_BYTES);
            self.push_text(text);
        }
        self.is_hidden = was_hidden;
    }

    /// A member that is a number.
    pub fn number(&mut self, name: &str, number: i64) {
        let was_hidden = self.is_hidden;
        if self.name(name) {
            self.left = self.left.saturating_sub(FIELD_BYTES);
            match self.is_hidden {
                true => self.push_text(MASK),
                false => _ = write!(self.out, "{number}"),
            }
        }
        self.is_hidden = was_hidden;
    }

    /// A member that is this JSON, whose names are known to be no secrets, as those of OTLP are: what it calls an attribute is
    /// the text of a `key`, which stands before its `value`. What is nested too deeply is shown as a text.
    pub fn json(&mut self, name: &str, json: &str) {
        let was_hidden = self.is_hidden;
        if self.name(name) {
            let (start, left) = (self.out.len(), self.left);
            if self.copy(&mut Json { text: json, at: 0 }, JSON_DEPTH_MAX).is_none() {
                self.out.truncate(start);
                self.left = left.saturating_sub(FIELD_BYTES);
                self.push_text(if self.is_hidden { MASK } else { json });
            }
        }
        self.is_hidden = was_hidden;
    }

    /// Writes the value that stands there. `None` if it is nested too deeply, or is no JSON. Where there is no room any more
    /// nothing is read on: nothing of what follows is written either.
    fn copy(&mut self, json: &mut Json<'_>, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        self.left = self.left.saturating_sub(FIELD_BYTES);
        match json.next()? {
            b'"' => {
                let text = json.text()?;
                match text {
                    // What was written without an escape is written so again.
                    Cow::Borrowed(text)
                        if !self.is_hidden
                            && text.len() <= self.text_max.min(self.left)
                            && self.redact.is_open(text) =>
                    {
                        self.left -= text.len();
                        self.out.extend(["\"", text, "\""]);
                    }
                    text => self.push_text(if self.is_hidden { MASK } else { &text }),
                }
            }
            open @ (b'{' | b'[') => {
                let is_object = open == b'{';
                let close = if is_object { b'}' } else { b']' };
                json.at += 1;
                self.out.push(open.into());
                let (was_hidden, mut names_secret, mut is_first) = (self.is_hidden, false, true);
                while self.left > 0 && json.next()? != close {
                    if !std::mem::replace(&mut is_first, false) {
                        json.take(b',')?;
                        self.out.push(',');
                    }
                    if is_object {
                        let name = json.text()?;
                        json.take(b':')?;
                        match &name {
                            Cow::Borrowed(name) => self.out.extend(["\"", *name, "\":"]),
                            Cow::Owned(name) => {
                                push_json(&mut self.out, name);
                                self.out.push(':');
                            }
                        }
                        self.left = self.left.saturating_sub(name.len());
                        if name == "key" && json.next()? == b'"' {
                            let key = Json { ..*json }.text()?;
                            names_secret = self.redact.names_secret(&key);
                        }
                        self.is_hidden |= names_secret && name == "value";
                    }
                    self.copy(json, depth)?;
                    self.is_hidden = was_hidden;
                }
                json.at += 1;
                self.out.push(close.into());
            }
            _ => match json.literal() {
                "" => return None,
                literal if self.is_hidden && literal.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
                    self.push_text(MASK);
                }
                literal => self.out.push_str(literal),
            },
        }
        Some(())
    }

    /// Writes the name of a member, unless there is no room for it. Where it is one of a secret, its value is hidden.
    fn name(&mut self, name: &str) -> bool {
        if self.left == 0 {
            return false;
        }
        if !self.out.ends_with('{') {
            self.out.push(',');
        }
        self.is_hidden |= self.redact.names_secret(name);
        self.push_text(name);
        self.out.push(':');
        true
    }

    fn push_text(&mut self, text: &str) {
        let bytes_max = self.text_max.min(self.left);
        if text.len() <= bytes_max && self.redact.is_open(text) {
            push_json(&mut self.out, text);
            self.left -= text.len();
        } else {
            let mut shown = text.to_owned();
            redact_and_cut(&mut shown, self.redact, bytes_max);
            push_json(&mut self.out, &shown);
            self.left = self.left.saturating_sub(shown.len());
        }
    }
}

/// JSON as programs write it, without blanks, while it is read.
struct Json<'j> {
    text: &'j str,
    at: usize,
}

impl<'j> Json<'j> {
    fn next(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        let is_there = self.next()? == byte;
        self.at += usize::from(is_there);
        is_there.then_some(())
    }

    fn text(&mut self) -> Option<Cow<'j, str>> {
        let from = self.at;
        self.take(b'"')?;
        let mut is_plain = true;
        loop {
            self.at += memchr::memchr2(b'"', b'\\', self.text.as_bytes().get(self.at..)?)? + 1;
            if self.text.as_bytes()[self.at - 1] == b'"' {
                break;
            }
            is_plain = false;
            self.at += 1;
        }
        let quoted = self.text.get(from..self.at)?;
        match is_plain {
            true => Some(Cow::Borrowed(&quoted[1..quoted.len() - 1])),
            false => serde_json::from_str(quoted).ok().map(Cow::Owned),
        }
    }

    fn literal(&mut self) -> &'j str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let literal = &rest[..rest.find([',', '}', ']']).unwrap_or(rest.len())];
        self.at += literal.len();
        literal
    }
}

/// Whether a text has neither control characters nor quotes nor backslashes. All of it is looked at, without an end at the
/// first one, which takes an instruction a byte at most.
fn is_plain(text: &str) -> bool {
    let is_plain = |byte: u8| (byte >= b' ') & (byte != b'"') & (byte != b'\\') & (byte != 0x7f);
    text.bytes().fold(true, |all, byte| all & is_plain(byte))
}

/// Writes a text as JSON has it, in quotes.
pub fn push_json(out: &mut String, text: &str) {
    out.push('"');
    if is_plain(text) {
        out.push_str(text);
        out.push('"');
        return;
    }
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[from..at]);
        from = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\t' => out.push_str("\\t"),
            byte => _ = write!(out, "\\u{byte:04x}"),
        }
    }
    out.push_str(&text[from..]);
    out.push('"');
}

/// Writes a text in quotes, as `{:?}` does it. Most texts are plain.
pub fn push_quoted(out: &mut String, text: &str) {
    if is_plain(text) && text.is_ascii() {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        let _ = write!(out, "{text:?}");
    }
}

/// Masks the secrets of what is shown of a text, and says how many it masked. Of a long text no more is searched than
/// that takes.
fn redact_and_cut(text: &mut String, redact: &Redact, bytes_max: usize) -> u32 {
    let searched_max = bytes_max.saturating_add(2 * REDACT_MARGIN);
    let is_long = text.len() > searched_max;
    if is_long {
        text.truncate(text.floor_char_boundary(searched_max));
    }
    let secrets = redact.redact(text);
    if is_long {
        text.truncate(text.floor_char_boundary(text.len().saturating_sub(REDACT_MARGIN)));
        // So that it is cut, and says so, also where the masks are shorter than the secrets.
        if text.len() <= bytes_max {
            text.push('…');
        }
    }
    cut(text, bytes_max);
    secrets
}

/// Somebody who looks at an edge, which is the one at this place of those that are looked at.
#[derive(Clone)]
struct Onlooker {
    side: Side,
    at: usize,
    watcher: Weak<Watcher>,
}

/// Those who look at an edge.
#[derive(Default)]
pub(crate) struct Watchers {
    /// Whether there are any. Written only while the list is locked, so that it is not about another list.
    any: AtomicBool,
    list: Mutex<Vec<Onlooker>>,
}

impl Watchers {
    fn add(&self, onlooker: Onlooker) {
        let mut list = self.list.lock();
        list.push(onlooker);
        self.any.store(true, Ordering::Relaxed);
    }

    fn remove(&self, watcher: &Arc<Watcher>) {
        let mut list = self.list.lock();
        list.retain(|known| !std::ptr::eq(known.watcher.as_ptr(), Arc::as_ptr(watcher)));
        self.any.store(!list.is_empty(), Ordering::Relaxed);
    }

    /// Whether somebody looks.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    pub(crate) fn look<S: Signal>(&self, edge: &Edge, batch: &S::Batch) {
        let list: Vec<_> = self.list.lock().clone();
        for Onlooker { side, at, watcher } in list {
            if let Some(watcher) = watcher.upgrade() {
                watcher.look::<S>(side, at, edge, batch);
            }
        }
    }
}

/// Looks at edges, until it is dropped.
pub struct Watch {
    watcher: Arc<Watcher>,
    edges: Vec<Arc<Edge>>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.edges).finish()
    }
}

impl Watch {
    /// What was seen since the last call; waits until there is something.
    pub async fn next(&self) -> Vec<Seen> {
        loop {
            let came = self.watcher.came.notified();
            {
                let mut state = self.watcher.state.lock();
                if !state.waiting.is_empty() {
                    state.waiting_bytes = 0;
                    return std::mem::take(&mut state.waiting).into();
                }
            }
            came.await;
        }
    }

    /// How much was seen so far.
    pub fn counts(&self) -> TapCounts {
        self.watcher.state.lock().counts_at(self.watcher.taps.began.elapsed().as_secs())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for edge in &self.edges {
            edge.watchers().remove(&self.watcher);
        }
        self.watcher.taps.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// The structure of an item.
    pub(crate) fn structure(item: &dyn Item) -> Value {
        let nothing: Redact = Arc::new(|_: &mut String| 0);
        serde_json::from_str(&Fields::of(item, &nothing, usize::MAX, usize::MAX)).unwrap()
    }

    /// What is written is compared with this. Masks secrets in all texts of a structure, and all that stands under the name of one. Cuts what is long, and leaves out
    /// what comes after so many bytes.
    fn mask(value: &mut Value, redact: &Redact, text_max: usize, left: &mut usize) {
        *left = left.saturating_sub(FIELD_BYTES);
        match value {
            Value::String(text) => {
                redact_and_cut(text, redact, text_max.min(*left));
                *left = left.saturating_sub(text.len());
            }
            Value::Array(list) => {
                list.retain_mut(|value| {
                    let stays = *left > 0;
                    if stays {
                        mask(value, redact, text_max, left);
                    }
                    stays
                });
            }
            Value::Object(object) => {
                // As OTLP writes attributes in JSON.
                if let (Some(Value::String(name)), true) = (object.get("key"), object.contains_key("value"))
                    && redact.names_secret(name)
                    && let Some(value) = object.get_mut("value")
                {
                    hide(value);
                }
                // Names that are masked or cut themselves, which is seldom.
                let mut renamed = Vec::new();
                object.retain(|name, value| {
                    if *left == 0 {
                        return false;
                    }
                    if redact.names_secret(name) {
                        hide(value);
                    }
                    let name_max = text_max.min(*left);
                    let mut name_len = name.len();
                    if name_len > name_max || !redact.is_open(name) {
                        let mut shown = name.clone();
                        redact_and_cut(&mut shown, redact, name_max);
                        name_len = shown.len();
                        if shown != *name {
                            renamed.push((name.clone(), shown));
                        }
                    }
                    *left = left.saturating_sub(name_len);
                    mask(value, redact, text_max, left);
                    true
                });
                let renamed: Vec<_> =
                    renamed.into_iter().filter_map(|(name, shown)| Some((shown, object.remove(&name)?))).collect();
                object.extend(renamed);
            }
            _ => {}
        }
    }

    /// Masks all that a value says.
    fn hide(value: &mut Value) {
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::Number(_) | Value::String(_) => *value = Value::from(MASK),
            Value::Array(list) => list.iter_mut().for_each(hide),
            Value::Object(object) => object.values_mut().for_each(hide),
        }
    }

    /// Writes its structure member by member.
    struct Made(Value);

    fn write(out: &mut Fields<'_>, members: &serde_json::Map<String, Value>) {
        for (name, value) in members {
            match value {
                Value::Object(members) => out.object(name, |out| write(out, members)),
                Value::String(text) => out.text(name, text),
                other => out.number(name, other.as_i64().unwrap_or_default()),
            }
        }
    }

    impl Item for Made {
        fn any_text(&self, _: &mut dyn FnMut(&[u8]) -> bool) -> bool {
            false
        }

        fn field(&self, _: &str) -> Option<String> {
            None
        }

        fn text(&self) -> String {
            String::new()
        }

        fn fields(&self, out: &mut Fields<'_>) {
            let members = self.0.as_object().unwrap();
            out.members(|out| write(out, members));
        }
    }

    fn made() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![any::<i64>().prop_map(Value::from), "(pin|hush|=|[ -~]|\\PC|\n){0,8}".prop_map(Value::from),];
        let nested = leaf.prop_recursive(3, 12, 4, |inner| {
            proptest::collection::btree_map("pin|hush|[a-z\"]{1,4}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect()))
        });
        proptest::collection::btree_map("pin|hush|[a-z]{1,4}", nested, 0..4)
            .prop_map(|members| Value::Object(members.into_iter().collect()))
    }

    /// Values as OTLP's JSON has them.
    fn made_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "(hush|=|[ -~]|\\PC|\n){0,20}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let attribute =
                ("pin|hush|[a-z]{1,4}", inner.clone()).prop_map(|(key, value)| json!({"key": key, "value": value}));
            prop_oneof![
                attribute,
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z]{1,4}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_as_json_is_masked_and_cut_as_a_value_is(
            value in made(), text_max in 0usize..20, bytes_max in 0usize..600,
        ) {
            let redact: Redact = Arc::new(|text: &mut String| {
                let found = text.matches("hush").count() + text.matches("pin=").count();
                *text = text.replace("hush", MASK);
                found as u32
            });
            let written = Fields::of(&Made(value.clone()), &redact, text_max, bytes_max);
            let mut whole = value;
            mask(&mut whole, &redact, text_max, &mut { bytes_max });
            // Two names may be masked alike, of which a value keeps one.
            if written.matches("\"(secret)\":").count() < 2 && text_max > 8 {
                let read: Value = serde_json::from_str(&written).unwrap();
                prop_assert_eq!(read, whole);
            }
        }

        #[test]
        fn json_is_masked_and_cut_as_the_value_that_it_says(
            value in made_json(), text_max in 9usize..40, bytes_max in 0usize..2_000,
        ) {
            // A name is a secret only where it is the key of an attribute: no name of the JSON itself is one.
            let redact: Redact = Arc::new(|text: &mut String| {
                let found = text.matches("hush").count() + usize::from(text == "pin=-");
                *text = text.replace("hush", MASK);
                found as u32
            });
            let json = value.to_string();
            let of = |write: &dyn Fn(&mut Fields<'_>)| {
                let out = String::new();
                let mut fields = Fields { out, redact: &redact, text_max, left: bytes_max, is_hidden: false };
                fields.members(|out| write(out));
                serde_json::from_str::<Value>(&fields.out).map(|read| (read, fields.left))
            };
            let (copied, left) = of(&|out| out.json("a", &json)).unwrap();
            let mut whole = json!({"a": value});
            let mut whole_left = bytes_max;
            mask(&mut whole, &redact, text_max, &mut whole_left);
            prop_assert_eq!(left == 0, whole_left == 0);
            // At the end of the room a value's own names are cut, and those of OTLP are not.
            if left > 0 {
                prop_assert_eq!(left, whole_left);
                prop_assert_eq!(copied, whole);
            }
        }

        #[test]
        fn no_text_in_place_of_json_breaks_it(text in "[\\[\\]{}\",:a0\\\\é-]{0,30}") {
            let redact: Redact = Arc::new(|_: &mut String| 0);
            let out = String::new();
            let mut fields = Fields { out, redact: &redact, text_max: 100, left: 1_000, is_hidden: false };
            fields.members(|out| out.json("a", &text));
            prop_assert!(fields.left <= 1_000);
        }

        #[test]
        fn texts_are_written_as_they_are_read(text in "(\\PC|[ -~\\x00-\\x1f\\x7f\"\\\\]){0,40}") {
            let (mut json, mut quoted) = (String::new(), String::new());
            push_json(&mut json, &text);
            prop_assert_eq!(&serde_json::from_str::<String>(&json).unwrap(), &text);
            push_quoted(&mut quoted, &text);
            prop_assert_eq!(quoted, format!("{text:?}"));
        }
    }

    #[test]
    fn attributes_are_masked_by_their_keys() {
        let redact: Redact = Arc::new(|text: &mut String| u32::from(text.contains("pin=")));
        let attributes = json!([
            {"key": "pin", "value": {"intValue": "1234"}},
            {"key": "other", "value": {"stringValue": "open"}},
        ]);
        let mut fields = Fields { out: String::new(), redact: &redact, text_max: 100, left: 10_000, is_hidden: false };
        fields.members(|out| {
            out.json("attributes", &attributes.to_string());
            out.json("pin", r#"[1234,{"a":"b"},null,true]"#);
        });
        let fields: Value = serde_json::from_str(&fields.out).unwrap();
        assert_eq!(
            fields,
            json!({
                "attributes": [
                    {"key": "pin", "value": {"intValue": "(secret)"}},
                    {"key": "other", "value": {"stringValue": "open"}},
                ],
                "pin": ["(secret)", {"a": "(secret)"}, null, true],
            })
        );
    }

    #[test]
    fn a_look_that_takes_long_is_taken_off_the_seconds_that_follow() {
        let watch = Arc::new(Taps::default()).watch(Vec::new(), TapOptions::default());
        let mut state = watch.watcher.state.lock();
        let second = state.second;
        state.spent = [10 * LOOK_BUDGET, Duration::ZERO];
        let left = |state: &mut State, at: u64| {
            state.advance(second + at, LOOK_BUDGET, [0; 2]);
            state.spent.map(|spent| LOOK_BUDGET.saturating_sub(spent))
        };
        assert_eq!([0, 1, 9].map(|at| left(&mut state, at)), [[Duration::ZERO, LOOK_BUDGET]; 3]);
        assert_eq!(left(&mut state, 10), [LOOK_BUDGET; 2]);
        // What was not spent is not kept.
        assert_eq!(left(&mut state, 99), [LOOK_BUDGET; 2]);
    }

    #[test]
    fn that_looking_cost_too_much_is_told_of_the_last_seconds() {
        let watch = Arc::new(Taps::default()).watch(Vec::new(), TapOptions::default());
        let mut state = watch.watcher.state.lock();
        state.limited_until = 7 + LIMITED_SECONDS;
        assert_eq!([7, 9, 10].map(|second| state.counts_at(second).limited), [true, true, false]);
    }
}
