//! Joins entries to one.

use std::collections::HashMap;
use std::time::Duration;

use corten_signal::Acks;

use crate::build::{Built, Fields};
use crate::entry::Entry;
use crate::expr::Program;
use crate::field::Field;
use crate::pipeline::Source;
use crate::value::{Text, Value};

/// How much text one entry may be joined to, in bytes, where nothing else sets a limit.
const BYTES_MAX: usize = 64 << 20;

/// What entries without a source have in common.
const NO_SOURCE: &str = "DefaultSourceIdentifier";

/// An entry that was joined of others.
pub(crate) struct Recombined {
    pub(crate) entry: Entry,
    /// What the others came with.
    pub(crate) acks: Acks,
    /// How many they were.
    pub(crate) entries: usize,
}

/// Joins entries to one.
pub(crate) struct Recombine {
    settings: Settings,
    batches: HashMap<Text, Batch>,
    /// How many there have been.
    count: u64,
    /// What was found out about the entry that is about to be kept.
    looked: (bool, Text),
}

struct Settings {
    matches_first: bool,
    when: Program,
    batch_max: usize,
    unmatched_max: usize,
    sources_max: usize,
    bytes_max: usize,
    newest: bool,
    field: Field,
    between: Text,
    flush_ns: u64,
    source: Field,
}

/// The entries of a source.
struct Batch {
    entry: Entry,
    entries: usize,
    joined: Vec<u8>,
    first_ns: u64,
    number: u64,
    matched: bool,
    acks: Acks,
    /// The call whose entries came last.
    turn: u64,
}

impl Recombine {
    pub(super) fn new(fields: &Fields<'_>) -> Built<Self> {
        let (first, last) = (fields.text_or("is_first_entry", "")?, fields.text_or("is_last_entry", "")?);
        let (name, text) = match (first.is_empty(), last.is_empty()) {
            (false, false) => return Err("only one of is_first_entry and is_last_entry can be set".to_owned()),
            (true, true) => return Err("one of is_first_entry and is_last_entry must be set".to_owned()),
            (false, true) => ("is_first_entry", &first),
            (true, false) => ("is_last_entry", &last),
        };
        let when = Program::condition(text).map_err(|error| format!("failed to compile {name}: {error}"))?;
        let count = |name: &'static str, default: i64| -> Built<usize> {
            // What is negative sets no limit either.
            Ok(usize::try_from(fields.int_or(name, default)?).unwrap_or(0))
        };
        let settings = Settings {
            matches_first: !first.is_empty(),
            when,
            batch_max: count("max_batch_size", 1000)?,
            unmatched_max: count("max_unmatched_batch_size", 100)?,
            sources_max: count("max_sources", 1000)?,
            bytes_max: usize::try_from(fields.bytes_or("max_log_size", 0)?).unwrap_or(0),
            newest: match &*fields.text_or("overwrite_with", "oldest")? {
                "newest" => true,
                "oldest" | "" => false,
                other => return Err(format!("invalid value '{other}' for parameter 'overwrite_with'")),
            },
            field: match fields.field("combine_field")? {
                Some(field) => field,
                None => return Err("missing required argument 'combine_field'".to_owned()),
            },
            between: fields.text_or("combine_with", "\n")?.into(),
            flush_ns: nanoseconds(fields.duration_or("force_flush_period", Duration::from_secs(5))?)?,
            source: fields.field("source_identifier")?.unwrap_or_else(|| Field::attribute("log.file.path")),
        };
        Ok(Recombine { settings, batches: HashMap::new(), count: 0, looked: Default::default() })
    }

    /// Joins the parts of the lines of containers.
    pub(super) fn of_containers(bytes_max: i64) -> Built<Self> {
        let settings = Settings {
            matches_first: false,
            when: Program::condition("attributes.logtag == 'F'").map_err(|error| error.to_string())?,
            batch_max: 0,
            unmatched_max: 0,
            sources_max: 1000,
            bytes_max: usize::try_from(bytes_max).unwrap_or(0),
            newest: false,
            field: Field::body(),
            between: Text::default(),
            flush_ns: nanoseconds(Duration::from_secs(5))?,
            source: Field::attribute("log.file.path"),
        };
        Ok(Recombine { settings, batches: HashMap::new(), count: 0, looked: Default::default() })
    }

    /// Looks at an entry that is to be kept.
    pub(super) fn look(&mut self, entry: &Entry) -> Result<(), String> {
        let matched = self.settings.when.holds(entry).map_err(|error| error.to_string())?;
        let source = match self.settings.source.get(entry) {
            Some(Value::Str(text)) if !text.is_empty() => text.clone(),
            Some(Value::Bytes(bytes)) if !bytes.is_empty() => bytes.clone().into(),
            _ => Text::of(NO_SOURCE),
        };
        self.looked = (matched, source);
        Ok(())
    }

    /// Keeps the entry that was looked at last.
    pub(super) fn keep(&mut self, entry: Entry, origin: &Source<'_>, flushed: &mut Vec<Recombined>) {
        let (matched, source) = std::mem::take(&mut self.looked);
        if matched && self.settings.matches_first {
            self.flush_source(&source, flushed);
        }
        self.add(entry, &source, matched, origin, flushed);
        if matched && !self.settings.matches_first {
            self.flush_source(&source, flushed);
        }
    }

    fn add(&mut self, entry: Entry, source: &Text, matched: bool, origin: &Source<'_>, flushed: &mut Vec<Recombined>) {
        let settings = &self.settings;
        let text = match settings.field.get(&entry) {
            Some(Value::Str(text)) => Some(text.clone()),
            Some(Value::Bytes(bytes)) => Some(Text::from(bytes.clone())),
            _ => None,
        };
        if !self.batches.contains_key(source) {
            if self.batches.len() >= settings.sources_max.max(1) {
                self.flush(0, true, flushed);
            }
            let batch = Batch {
                first_ns: entry.observed_ns,
                number: self.count,
                entry,
                entries: 0,
                joined: Vec::new(),
                matched: false,
                acks: Acks::NONE,
                turn: 0,
            };
            self.count += 1;
            // A copy: a part of a buffer would keep all of it.
            self.batches.insert(Text::from(&**source), batch);
        } else if settings.newest
            && let Some(batch) = self.batches.get_mut(source)
        {
            batch.entry = entry;
        }
        let settings = &self.settings;
        let Some(batch) = self.batches.get_mut(source) else { return };
        batch.entries += 1;
        batch.matched |= matched;
        if batch.turn != origin.turn {
            batch.turn = origin.turn;
            origin.acks.hold();
            batch.acks.join(origin.acks.clone());
        }
        // An entry without the field counts, but adds nothing.
        let Some(text) = text else { return };
        if !batch.joined.is_empty() {
            batch.joined.extend_from_slice(&settings.between);
        }
        batch.joined.extend_from_slice(&text);
        let bytes_max = if settings.bytes_max > 0 { settings.bytes_max } else { BYTES_MAX };
        let is_full = |max: usize, count: usize| max > 0 && count >= max;
        if batch.joined.len() > bytes_max
            || is_full(settings.batch_max, batch.entries)
            || (!batch.matched && is_full(settings.unmatched_max, batch.entries))
        {
            self.flush_source(source, flushed);
        }
    }

    fn flush_source(&mut self, source: &Text, flushed: &mut Vec<Recombined>) {
        if let Some(batch) = self.batches.remove(source) {
            flushed.push(self.settings.joined(batch));
        }
    }

    pub(super) fn flush(&mut self, now_ns: u64, all: bool, flushed: &mut Vec<Recombined>) {
        let settings = &self.settings;
        let is_due = |batch: &Batch| all || now_ns.saturating_sub(batch.first_ns) >= settings.flush_ns;
        let due = self.batches.extract_if(|_, batch| is_due(batch));
        let mut batches: Vec<Batch> = due.map(|(_, batch)| batch).collect();
        batches.sort_by_key(|batch| batch.number);
        flushed.extend(batches.into_iter().map(|batch| settings.joined(batch)));
    }

    pub(super) fn keeps(&self) -> bool {
        !self.batches.is_empty()
    }
}

impl Settings {
    fn joined(&self, batch: Batch) -> Recombined {
        let mut entry = batch.entry;
        // The field is no root of attributes, which alone cannot be set.
        let _ = self.field.set(&mut entry, Value::str(batch.joined));
        Recombined { entry, acks: batch.acks, entries: batch.entries }
    }
}

fn nanoseconds(duration: Duration) -> Built<u64> {
    if duration.is_zero() {
        return Err("'force_flush_period' must be positive".to_owned());
    }
    Ok(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}
