//! Streams: the label sets of logs.

use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::fmt::{self, Write as _};
use std::hash::{BuildHasher as _, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use corten_syntax::quote;
use hashbrown::HashTable;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

use crate::labels::{LabelError, Labels, LabelsBuilder};

/// The label whose value is the tenant that entries are written for.
pub const TENANT_LABEL: &str = "__tenant_id__";

/// A label set of logs. A copy costs a counter. Unlike a series, a stream may have labels whose value is empty.
#[derive(Clone)]
pub struct Stream(Arc<Data>);

struct Data {
    encoded: Box<[u8]>,
    hash: u64,
    selector: OnceLock<Box<str>>,
    tenant: OnceLock<Option<Arc<str>>>,
}

impl Stream {
    /// The stream with these labels, sorted by the way.
    ///
    /// # Errors
    ///
    /// A name that stands twice, and a set that is too long.
    pub fn new(labels: &mut LabelsBuilder) -> Result<Self, LabelError> {
        let mut encoded = Vec::new();
        labels.encode_all_into(&mut encoded)?;
        Ok(Stream(Arc::new(Data {
            hash: xxh3_64(&encoded),
            encoded: encoded.into(),
            selector: OnceLock::new(),
            tenant: OnceLock::new(),
        })))
    }

    /// The stream with these labels; of several labels of one name the last counts.
    ///
    /// # Errors
    ///
    /// A set that is too long.
    pub fn of<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, LabelError> {
        let mut builder = LabelsBuilder::new();
        for (name, value) in labels {
            builder.remove(name);
            builder.push(name, value);
        }
        Stream::new(&mut builder)
    }

    /// The labels, sorted by name.
    pub fn labels(&self) -> Labels<'_> {
        Labels::from_encoded(&self.0.encoded)
    }

    /// A hash of the labels.
    pub fn hash64(&self) -> u64 {
        self.0.hash
    }

    /// Whether it is the very same copy, which costs less to find out than equality.
    pub fn same(&self, other: &Stream) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// What a push calls the stream: its labels without those whose names begin with `__`, as `{a="b", c="d"}`.
    pub fn selector(&self) -> &str {
        self.0.selector.get_or_init(|| write_selector(self.labels(), |name| !name.starts_with("__")).into())
    }

    /// All labels, as `{a="b", c="d"}`.
    pub fn canonical(&self) -> String {
        write_selector(self.labels(), |_| true)
    }

    /// The tenant that entries of the stream are written for, where a label says so. It may be empty.
    pub fn tenant(&self) -> Option<&Arc<str>> {
        self.0.tenant.get_or_init(|| self.labels().get(TENANT_LABEL).map(Arc::from)).as_ref()
    }

    /// How much memory it takes, in bytes, about.
    pub fn held_bytes(&self) -> usize {
        self.0.encoded.len() + self.0.selector.get().map_or(0, |text| text.len()) + size_of::<Data>()
    }
}

fn write_selector(labels: Labels<'_>, shown: impl Fn(&str) -> bool) -> String {
    let mut out = String::with_capacity(labels.as_encoded().len() + 2);
    out.push('{');
    for (name, value) in labels.iter().filter(|(name, _)| shown(name)) {
        if out.len() > 1 {
            out.push_str(", ");
        }
        out.push_str(name);
        out.push('=');
        let plain = value.bytes().all(|b| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\'));
        // Most values need no escapes.
        let quoted = if plain { Cow::Borrowed(value) } else { Cow::Owned(quote(value)) };
        let _ = if plain { write!(out, "\"{quoted}\"") } else { out.write_str(&quoted) };
    }
    out.push('}');
    out
}

impl PartialEq for Stream {
    fn eq(&self, other: &Self) -> bool {
        self.same(other) || (self.0.hash == other.0.hash && self.0.encoded == other.0.encoded)
    }
}

impl Eq for Stream {}

impl Hash for Stream {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical())
    }
}

/// How many streams a [`StreamCache`] keeps at most, unless it is told otherwise.
pub const STREAMS_MAX: usize = 10_000;

/// How long the keys of a [`StreamCache`] may be together, in bytes: what it remembers is about as large.
const STREAMS_BYTES_MAX: usize = 32 << 20;

/// Remembers the streams that something was turned into, so that a line costs one look-up.
///
/// A key is any text that decides the outcome: the stream before and the values that change it. The cache keeps two
/// generations of half the limit each, so that what is in use stays. Keys are not kept, but their lengths count: label
/// sets of megabytes must not add up.
pub struct StreamCache<V = Stream> {
    // Keys are hashes with a seed of this cache, so that nobody can look for two texts of one key.
    seed: u64,
    streams_max: usize,
    young: HashTable<(u128, V)>,
    old: HashTable<(u128, V)>,
    /// The length of the keys of the young ones.
    young_bytes: usize,
}

impl<V> fmt::Debug for StreamCache<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamCache").field("streams", &self.len()).finish_non_exhaustive()
    }
}

impl<V> Default for StreamCache<V> {
    fn default() -> Self {
        StreamCache::new(STREAMS_MAX)
    }
}

impl<V> StreamCache<V> {
    /// A cache of at most so many streams.
    pub fn new(streams_max: usize) -> Self {
        let seed = RandomState::new().hash_one(0);
        StreamCache { seed, streams_max, young: HashTable::new(), old: HashTable::new(), young_bytes: 0 }
    }
}

impl<V: Clone> StreamCache<V> {
    /// What is remembered for a key; made and remembered if there is nothing.
    ///
    /// # Errors
    ///
    /// Those of the maker; nothing is remembered then.
    pub fn get_or_make<E>(&mut self, key: &[u8], make: impl FnOnce() -> Result<V, E>) -> Result<V, E> {
        let len = key.len();
        let key = xxh3_128_with_seed(key, self.seed);
        let (hash, is_it) = (key as u64, |entry: &(u128, V)| entry.0 == key);
        if let Some((_, found)) = self.young.find(hash, is_it) {
            return Ok(found.clone());
        }
        let value = match self.old.find_entry(hash, is_it) {
            Ok(found) => found.remove().0.1,
            Err(_) => make()?,
        };
        if self.young.len() >= (self.streams_max / 2).max(1) || self.young_bytes + len > STREAMS_BYTES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += len;
        self.young.insert_unique(hash, (key, value.clone()), |entry| entry.0 as u64);
        Ok(value)
    }
}

impl<V> StreamCache<V> {
    /// How many streams are remembered.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all streams.
    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
        self.young_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_leaves_internal_labels_out_and_quotes_as_go_does() {
        for (labels, selector, canonical) in [
            (&[][..], "{}", "{}"),
            (&[("__a", "b")], "{}", r#"{__a="b"}"#),
            (&[("job", "x"), ("app", "a b")], r#"{app="a b", job="x"}"#, r#"{app="a b", job="x"}"#),
            (&[("a", "q\"\\\n\u{a0}é\u{7f}")], r#"{a="q\"\\\n\u00a0é\x7f"}"#, r#"{a="q\"\\\n\u00a0é\x7f"}"#),
            (&[("a", ""), ("__b", "")], r#"{a=""}"#, r#"{__b="", a=""}"#),
            (&[("a", "1"), ("a", "2")], r#"{a="2"}"#, r#"{a="2"}"#),
        ] {
            let stream = Stream::of(labels.iter().copied()).unwrap();
            assert_eq!((stream.selector(), &*stream.canonical()), (selector, canonical));
        }
    }

    #[test]
    fn a_tenant_may_be_empty() {
        let tenant = |labels: &[(&str, &str)]| Stream::of(labels.iter().copied()).unwrap().tenant().cloned();
        assert_eq!(tenant(&[("a", "b")]), None);
        assert_eq!(tenant(&[(TENANT_LABEL, "t1")]), Some("t1".into()));
        assert_eq!(tenant(&[(TENANT_LABEL, "")]), Some("".into()));
    }

    #[test]
    fn streams_are_equal_by_their_labels() {
        let [a, b, c] = ["x", "x", "y"].map(|value| Stream::of([("a", value)]).unwrap());
        assert!(a == b && !a.same(&b) && a != c && a.same(&a.clone()));
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_in_use() {
        let mut cache = StreamCache::default();
        let mut made = 0;
        let mut get = |cache: &mut StreamCache<u32>, key: u32| {
            let make = || {
                made += 1;
                Ok::<_, ()>(key)
            };
            assert_eq!(cache.get_or_make(&key.to_le_bytes(), make), Ok(key));
            made
        };
        for key in 0..100_000 {
            get(&mut cache, key);
            get(&mut cache, 7);
            assert!(cache.len() <= STREAMS_MAX);
        }
        assert_eq!(get(&mut cache, 7), 100_000);
    }

    #[test]
    fn large_label_sets_do_not_add_up_in_the_cache() {
        let mut cache = StreamCache::default();
        let key = |at: u32| [vec![b'x'; 1 << 20], at.to_le_bytes().to_vec()].concat();
        for at in 0..200 {
            cache.get_or_make(&key(at), || Ok::<_, ()>(at)).unwrap();
            assert!(cache.len() <= STREAMS_BYTES_MAX >> 20);
        }
        assert_eq!(cache.get_or_make(&key(199), || Err("made again")), Ok(199));
        // Even one that is larger than all may be is remembered until the next comes.
        let large = vec![b'y'; STREAMS_BYTES_MAX];
        assert_eq!(cache.get_or_make(&large, || Ok::<_, ()>(0)), Ok(0));
        assert_eq!(cache.get_or_make(&key(1), || Ok::<_, ()>(1)), Ok(1));
        assert_eq!(cache.len(), 2);
    }
}
