//! Finds the files of patterns, in an order.

use std::cmp::Ordering;
use std::path::Path;
use std::time::{Duration, SystemTime};

use corten_config::{Arguments, CheckErrors};
use corten_files::{Dialect, Pattern};
use corten_signal::regex::{GoRegex, Groups};
use corten_stanza::{TimeReader, Value};

/// Which of the files are read, and in which order.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct OrderingCriteria {
    /// A regular expression over paths. Its named groups are what `sort_by` blocks sort by, and files that it does not
    /// match are not read.
    #[arg(default = "")]
    regex: String,
    /// How many files are read, of each group. 0 stands for 1.
    #[arg(default = 1)]
    top_n: i64,
    /// A regular expression over paths whose first group says to which group a file belongs. Files that it does not match
    /// are not read.
    #[arg(default = "")]
    group_by: String,
    /// What to sort by. Each block sorts what the one before it sorted.
    #[block(name = "sort_by", required)]
    sort_by: Vec<SortBy>,
}

/// What files are sorted by.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct SortBy {
    /// How values are compared.
    // The reference refuses its absence among its rules.
    #[arg(default = "")]
    sort_type: String,
    /// The named group of `regex` to sort by.
    #[arg(default = "")]
    regex_key: String,
    /// Smallest first.
    #[arg(default = false)]
    ascending: bool,
    /// With `timestamp`, the layout of the time, in directives of `strptime`.
    #[arg(default = "")]
    layout: String,
    /// With `timestamp`, the time zone of times that name none. Empty, it is UTC.
    #[arg(default = "")]
    location: String,
}

/// How the named group of a path is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SortType {
    /// As a whole number.
    Numeric,
    /// As a text.
    Lexicographic,
    /// As a time.
    Timestamp,
    /// By when the file was changed last.
    Mtime,
}

impl OrderingCriteria {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(self.top_n >= 0, &["top_n"], "'top_n' must not be negative");
        for sort in &self.sort_by {
            if sort.kind().is_none() {
                errors.push(&["sort_by"], format!("invalid 'sort_type': {}", sort.sort_type));
            }
        }
        errors.into_result()
    }
}

impl SortBy {
    fn kind(&self) -> Option<SortType> {
        [
            ("numeric", SortType::Numeric),
            ("lexicographic", SortType::Lexicographic),
            ("timestamp", SortType::Timestamp),
            ("mtime", SortType::Mtime),
        ]
        .into_iter()
        .find_map(|(name, kind)| (name == self.sort_type).then_some(kind))
    }
}

/// Finds files.
#[derive(Debug)]
pub(super) struct Finder {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
    older_than: Duration,
    group_by: Option<GoRegex>,
    regex: Option<GoRegex>,
    sorts: Vec<Sort>,
    top: usize,
}

#[derive(Debug)]
struct Sort {
    key: Key,
    ascending: bool,
}

#[derive(Debug)]
enum Key {
    Numeric(usize),
    Text(usize),
    Time(usize, TimeReader),
    Modified,
}

/// What a file is sorted by.
#[derive(Debug, PartialEq, PartialOrd)]
enum Sorted {
    Number(i64),
    Text(String),
    Time(i64, u32),
    Modified(SystemTime),
}

fn patterns(texts: &[String], name: &str) -> Result<Vec<Pattern>, String> {
    texts
        .iter()
        .map(|text| Pattern::new(text, Dialect::DoubleStar).map_err(|error| format!("{name}: parse glob: {error}")))
        .collect()
}

impl Finder {
    pub(super) fn new(
        include: &[String],
        exclude: &[String],
        older_than: Duration,
        ordering: Option<&OrderingCriteria>,
    ) -> Result<Self, String> {
        if include.is_empty() {
            return Err("'include' must be specified".to_owned());
        }
        let mut finder = Finder {
            include: patterns(include, "include")?,
            exclude: patterns(exclude, "exclude")?,
            older_than,
            group_by: None,
            regex: None,
            sorts: Vec::new(),
            top: usize::MAX,
        };
        let Some(ordering) = ordering else { return Ok(finder) };
        if !ordering.group_by.is_empty() {
            let regex = GoRegex::new(&ordering.group_by).map_err(|error| format!("compile group_by regex: {error}"))?;
            finder.group_by = Some(regex);
        }
        let by_name = |sort: &SortBy| sort.kind().is_some_and(|kind| kind != SortType::Mtime);
        if ordering.sort_by.iter().any(by_name) {
            if ordering.regex.is_empty() {
                return Err("'regex' must be specified when 'sort_by' is specified".to_owned());
            }
            finder.regex = Some(GoRegex::new(&ordering.regex).map_err(|error| format!("compile regex: {error}"))?);
        }
        for sort in &ordering.sort_by {
            let kind = sort.kind().ok_or_else(|| "'sort_type' must be specified".to_owned())?;
            let group = || {
                if sort.regex_key.is_empty() {
                    return Err("regex key must be specified".to_owned());
                }
                // Of a name that several groups have the last one counts, and one that none has is empty.
                let regex = finder.regex.as_ref();
                Ok(regex.and_then(|regex| regex.groups_named(&sort.regex_key).last()).unwrap_or(usize::MAX))
            };
            let key = match kind {
                SortType::Numeric => Key::Numeric(group().map_err(|error| format!("numeric sort: {error}"))?),
                SortType::Lexicographic => Key::Text(group().map_err(|error| format!("alphabetical sort: {error}"))?),
                SortType::Timestamp if sort.layout.is_empty() => {
                    return Err("timestamp sort: layout must be specified".to_owned());
                }
                SortType::Timestamp => {
                    let reader = TimeReader::strptime(&sort.layout, &sort.location);
                    let reader = reader.map_err(|error| format!("timestamp sort: {error}"))?;
                    Key::Time(group().map_err(|error| format!("timestamp sort: {error}"))?, reader)
                }
                SortType::Mtime => Key::Modified,
            };
            finder.sorts.push(Sort { key, ascending: sort.ascending });
        }
        finder.top = usize::try_from(ordering.top_n).unwrap_or(1).max(1);
        Ok(finder)
    }

    /// The files that there are to be read now, in their order, and the first thing that could not be looked into.
    pub(super) fn find(&self, now: SystemTime) -> (Vec<String>, Option<String>) {
        let mut names = Vec::new();
        let mut problem = None;
        for include in &self.include {
            let found = include.walk_each(&mut |path| {
                // Names that are no text cannot be an attribute.
                let Some(name) = path.to_str() else { return };
                if path.is_file() && !self.exclude.iter().any(|exclude| exclude.matches(name)) {
                    names.push(name.to_owned());
                }
            });
            problem = problem.or(found.refused);
        }
        names.sort_unstable();
        names.dedup();
        if !self.older_than.is_zero()
            && let Some(oldest) = now.checked_sub(self.older_than)
        {
            names.retain(|name| modified(name).is_some_and(|modified| modified >= oldest));
        }
        let Some(group_by) = &self.group_by else { return (self.ordered(names), problem) };
        let mut of_groups: Vec<(String, Vec<String>)> = Vec::new();
        let mut groups = Groups::new();
        for name in names {
            if !group_by.captures(&name, &mut groups) || group_by.group_count() == 0 {
                continue;
            }
            let group = groups.get(1).map_or_else(String::new, |range| name[range].to_owned());
            match of_groups.iter_mut().find(|(known, _)| *known == group) {
                Some((_, members)) => members.push(name),
                None => of_groups.push((group, vec![name])),
            }
        }
        (of_groups.into_iter().flat_map(|(_, members)| self.ordered(members)).collect(), problem)
    }

    /// Those of files that are to be read, in their order.
    fn ordered(&self, mut names: Vec<String>) -> Vec<String> {
        if let Some(regex) = &self.regex {
            names.retain(|name| regex.is_match(name));
        }
        for sort in &self.sorts {
            let mut keyed: Vec<(Sorted, String)> =
                names.into_iter().filter_map(|name| Some((self.key(sort, &name)?, name))).collect();
            keyed.sort_by(|a, b| {
                let order = a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal);
                if sort.ascending { order } else { order.reverse() }
            });
            names = keyed.into_iter().map(|(_, name)| name).collect();
        }
        names.truncate(self.top);
        names
    }

    /// What a file is sorted by; nothing for one that cannot be, which is not read.
    fn key(&self, sort: &Sort, name: &str) -> Option<Sorted> {
        let group = |at: usize| {
            let mut groups = Groups::new();
            self.regex.as_ref()?.captures(name, &mut groups);
            Some(groups.get(at).map_or("", |range| &name[range]))
        };
        Some(match &sort.key {
            Key::Numeric(at) => Sorted::Number(group(*at)?.parse().ok()?),
            Key::Text(at) => Sorted::Text(group(*at)?.to_owned()),
            Key::Time(at, reader) => {
                let time = reader.read(&Value::str(group(*at)?)).ok()?;
                Sorted::Time(time.seconds, time.nanoseconds)
            }
            Key::Modified => Sorted::Modified(modified(name)?),
        })
    }
}

fn modified(name: &str) -> Option<SystemTime> {
    Path::new(name).metadata().ok()?.modified().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sort_by(sort_type: &str, regex_key: &str, ascending: bool) -> SortBy {
        SortBy {
            sort_type: sort_type.to_owned(),
            regex_key: regex_key.to_owned(),
            ascending,
            layout: if sort_type == "timestamp" { "%Y%m%d".to_owned() } else { String::new() },
            location: String::new(),
        }
    }

    #[test]
    fn files_are_found_by_patterns_and_read_in_the_order_that_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        for name in
            ["a-2-20240101.log", "a-10-20230101.log", "b-1-20220101.log", "b-x-20220102.log", "c.txt", "old/d.log"]
        {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let find = |include: &str, exclude: &str, ordering: Option<OrderingCriteria>| {
            let exclude: Vec<String> = if exclude.is_empty() { vec![] } else { vec![at(exclude)] };
            let finder = Finder::new(&[at(include)], &exclude, Duration::ZERO, ordering.as_ref()).unwrap();
            let (names, problem) = finder.find(SystemTime::now());
            assert_eq!(problem, None);
            let names: Vec<String> =
                names.iter().map(|name| name.strip_prefix(&at("")).unwrap_or(name).to_owned()).collect();
            names.join(" ")
        };
        let ordering = |sort_by: Vec<SortBy>, top_n: i64, group_by: &str| {
            let regex = r"(?P<n>[^-]+)-(?P<t>\d+)\.log".to_owned();
            Some(OrderingCriteria { regex, top_n, group_by: group_by.to_owned(), sort_by })
        };
        let all = "a-10-20230101.log a-2-20240101.log b-1-20220101.log b-x-20220102.log";
        assert_eq!(find("*.log", "", None), all);
        assert_eq!(find("**/*.log", "old/**", None), all);
        assert_eq!(find("**/*.log", "", None), format!("{all} old/d.log"));
        let one =
            |kind: &str, key: &str, ascending: bool, top: i64| ordering(vec![sort_by(kind, key, ascending)], top, "");
        assert_eq!(find("*.log", "", one("numeric", "n", true, 2)), "b-1-20220101.log a-2-20240101.log");
        assert_eq!(find("*.log", "", one("numeric", "n", false, 0)), "a-10-20230101.log");
        assert_eq!(find("*.log", "", one("lexicographic", "n", false, 1)), "b-x-20220102.log");
        assert_eq!(find("*.log", "", one("timestamp", "t", true, 2)), "b-1-20220101.log b-x-20220102.log");
        assert_eq!(
            find("*.log", "", ordering(vec![sort_by("numeric", "n", true)], 1, r"/([ab])-")),
            "a-2-20240101.log b-1-20220101.log"
        );
        assert_eq!(find("*", "", one("mtime", "", true, 9)).split(' ').count(), 5);
    }

    #[test]
    fn files_that_were_not_changed_for_long_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        std::fs::write(&path, "x").unwrap();
        let include = [path.to_str().unwrap().to_owned()];
        let finder = Finder::new(&include, &[], Duration::from_secs(60), None).unwrap();
        let now = SystemTime::now();
        assert_eq!(finder.find(now).0, include);
        assert_eq!(finder.find(now + Duration::from_secs(90)).0, [""; 0]);
    }

    #[test]
    fn what_cannot_be_is_refused_in_the_words_of_the_reference() {
        let refused = |include: &[&str], ordering: Option<OrderingCriteria>| {
            let include: Vec<String> = include.iter().map(|text| (*text).to_owned()).collect();
            Finder::new(&include, &[], Duration::ZERO, ordering.as_ref()).unwrap_err()
        };
        let ordering = |regex: &str, sort: SortBy| {
            let regex = regex.to_owned();
            Some(OrderingCriteria { regex, top_n: 1, group_by: String::new(), sort_by: vec![sort] })
        };
        assert_eq!(refused(&[], None), "'include' must be specified");
        assert_eq!(refused(&["a["], None), "include: parse glob: syntax error in pattern");
        assert_eq!(
            refused(&["a"], ordering("", sort_by("numeric", "n", true))),
            "'regex' must be specified when 'sort_by' is specified"
        );
        assert_eq!(
            refused(&["a"], ordering("(?P<n>.)", sort_by("numeric", "", true))),
            "numeric sort: regex key must be specified"
        );
    }
}
