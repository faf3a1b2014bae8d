//! The functions of the language.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use corten_golang::time::{Layout, Time, Zone};
use corten_golang::{parse_float, parse_int};

use super::check::Kind;
use super::eval::Val;
use super::ops;
use super::{VALUES_MAX, go_text};
use crate::json;
use crate::time::now;
use crate::value::{Map, Text, Value};

type Made = Result<Val<'static>, String>;

/// A function.
pub(super) struct Builtin {
    pub(super) name: &'static str,
    /// How many arguments it takes.
    pub(super) least: usize,
    pub(super) most: usize,
    /// What its value is, as far as that is known.
    pub(super) kind: Kind,
    pub(super) run: fn(&[Val<'_>]) -> Made,
}

/// The function of a name.
pub(super) fn named(name: &str) -> Option<&'static Builtin> {
    BUILTINS.binary_search_by(|builtin| builtin.name.cmp(name)).ok().map(|at| &BUILTINS[at])
}

macro_rules! builtins {
    ($($name:literal $least:literal..$most:expr => $kind:ident, $run:expr;)*) => {
        &[$(Builtin { name: $name, least: $least, most: $most, kind: Kind::$kind, run: $run }),*]
    };
}

const MANY: usize = usize::MAX;

/// Sorted by name.
static BUILTINS: &[Builtin] = builtins! {
    "abs" 1..1 => Any, |args| match args[0].get() {
        Value::Int(number) => Ok(number.wrapping_abs().into()),
        Value::Float(number) => Ok(number.abs().into()),
        _ => Err(format!("invalid argument for abs (type {})", args[0].go_type())),
    };
    "bitand" 2..2 => Int, |args| bits(args, |a, b| Ok(a & b));
    "bitnand" 2..2 => Int, |args| bits(args, |a, b| Ok(a & !b));
    "bitnot" 1..1 => Int, |args| Ok((!args[0].whole()?).into());
    "bitor" 2..2 => Int, |args| bits(args, |a, b| Ok(a | b));
    "bitshl" 2..2 => Int, |args| bits(args, |a, b| Ok(if shift(b)? > 63 { 0 } else { a << b }));
    "bitshr" 2..2 => Int, |args| bits(args, |a, b| Ok(a >> shift(b)?.min(63)));
    "bitushr" 2..2 => Int, |args| bits(args, |a, b| Ok(if shift(b)? > 63 { 0 } else { ((a as u64) >> b) as i64 }));
    "bitxor" 2..2 => Int, |args| bits(args, |a, b| Ok(a ^ b));
    "ceil" 1..1 => Float, |args| rounded(args, "ceil", f64::ceil);
    "concat" 1..MANY => List, |args| {
        let mut all = Vec::new();
        for arg in args {
            all.extend_from_slice(list(arg, "concat")?);
        }
        Ok(Val::Own(Value::List(all)))
    };
    "date" 1..3 => Time, date;
    "duration" 1..1 => Duration, |args| duration(&args[0].text()?.lossy()).map(Val::Duration);
    "first" 1..1 => Any, |args| Ok(at(&args[0], 0));
    "flatten" 1..1 => List, |args| {
        let mut all = Vec::new();
        flatten(list(&args[0], "flatten")?, &mut all);
        Ok(Val::Own(Value::List(all)))
    };
    "float" 1..1 => Float, |args| match args[0].get() {
        Value::Str(text) => match parse_float(text) {
            Ok(number) => Ok(number.into()),
            Err(_) => Err(format!("invalid operation: float({})", text.lossy())),
        },
        _ => Ok(args[0].number()?.into()),
    };
    "floor" 1..1 => Float, |args| rounded(args, "floor", f64::floor);
    "fromBase64" 1..1 => Str, |args| {
        let text = args[0].text()?;
        // Line ends do not count.
        let plain: Vec<u8> = text.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
        let decoded = STANDARD.decode(plain).map_err(|_| "illegal base64 data".to_owned())?;
        Ok(Text::from(decoded).into())
    };
    "fromJSON" 1..1 => Any, |args| json::read(args[0].text()?, json::Options::default()).map(Val::Own);
    "fromPairs" 1..1 => Map, |args| {
        let mut map = Map::default();
        for pair in list(&args[0], "transform from pairs")? {
            let Value::List(pair) = pair else { return Err(format!("invalid pair {}", go_text(pair))) };
            let [Value::Str(key), value] = &**pair else { return Err("invalid pair".to_owned()) };
            map.put(key.clone(), value.clone());
        }
        Ok(Val::Own(Value::Map(map)))
    };
    "get" 2..2 => Any, |args| {
        let got = match args[0].get() {
            Value::Map(map) => match args[1].get() {
                Value::Str(key) => map.get(key).cloned(),
                _ => None,
            },
            Value::List(_) | Value::Str(_) => return Ok(at(&args[0], args[1].whole()?)),
            _ => None,
        };
        Ok(Val::Own(got.unwrap_or_default()))
    };
    "hasPrefix" 2..2 => Bool, |args| Ok(args[0].text()?.starts_with(args[1].text()?).into());
    "hasSuffix" 2..2 => Bool, |args| Ok(args[0].text()?.ends_with(args[1].text()?).into());
    "indexOf" 2..2 => Int, |args| {
        let at = memchr::memmem::find(args[0].text()?, args[1].text()?);
        Ok(at.map_or(-1, |at| at as i64).into())
    };
    "int" 1..1 => Int, |args| match args[0].get() {
        Value::Str(text) => match parse_int(text, 10) {
            Ok(number) => Ok(number.into()),
            Err(_) => Err(format!("invalid operation: int({})", text.lossy())),
        },
        _ => Ok(args[0].whole()?.into()),
    };
    "join" 1..2 => Str, |args| {
        let glue: &[u8] = match args.get(1) {
            Some(glue) => glue.text()?,
            None => b"",
        };
        let Value::List(parts) = args[0].get() else {
            return Err(format!("invalid argument for join (type {})", args[0].go_type()));
        };
        let mut out = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            if at > 0 {
                out.extend_from_slice(glue);
            }
            out.extend_from_slice(Val::Ref(part).text()?);
        }
        Ok(Text::from(out).into())
    };
    "keys" 1..1 => List, |args| match args[0].get() {
        Value::Map(map) => Ok(Val::Own(Value::List(map.iter().map(|(key, _)| Value::Str(key.clone())).collect()))),
        _ => Err(format!("cannot get keys from {}", kind_of(&args[0]))),
    };
    "last" 1..1 => Any, |args| Ok(at(&args[0], -1));
    "lastIndexOf" 2..2 => Int, |args| {
        let at = memchr::memmem::rfind(args[0].text()?, args[1].text()?);
        Ok(at.map_or(-1, |at| at as i64).into())
    };
    "len" 1..1 => Int, |args| Ok((match args[0].get() {
        Value::Str(text) => text.lossy().chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(list) => list.len(),
        Value::Map(map) => map.len(),
        _ => return Err(format!("invalid argument for len (type {})", args[0].go_type())),
    } as i64).into());
    "lower" 1..1 => Str, |args| Ok(Text::from(corten_golang::map(args[0].text()?, corten_golang::to_lower)).into());
    "max" 1..MANY => Any, |args| extreme(args, "max", false);
    "mean" 1..MANY => Float, |args| {
        let numbers = numbers(args, "mean")?;
        let sum: f64 = numbers.iter().sum();
        Ok(if numbers.is_empty() { 0.0 } else { sum / numbers.len() as f64 }.into())
    };
    "median" 1..MANY => Float, |args| {
        let mut numbers = numbers(args, "median")?;
        numbers.sort_by(f64::total_cmp);
        let middle = numbers.len() / 2;
        Ok(match numbers.len() {
            0 => 0.0,
            odd if odd % 2 == 1 => numbers[middle],
            _ => (numbers[middle - 1] + numbers[middle]) / 2.0,
        }.into())
    };
    "min" 1..MANY => Any, |args| extreme(args, "min", true);
    "now" 0..0 => Time, |_| Ok(Val::Own(Value::Time(now())));
    "repeat" 2..2 => Str, |args| {
        let (text, count) = (args[0].text()?, args[1].whole()?);
        let Ok(times) = usize::try_from(count) else {
            return Err(format!("invalid argument for repeat (expected positive integer, got {count})"));
        };
        if times > VALUES_MAX || text.len().saturating_mul(times) > VALUES_MAX {
            return Err("memory budget exceeded".to_owned());
        }
        Ok(Text::from(text.repeat(times)).into())
    };
    "replace" 3..4 => Str, |args| {
        let most = args.get(3).map_or(Ok(-1), Val::whole)?;
        Ok(Text::from(replace(args[0].text()?, args[1].text()?, args[2].text()?, most)?).into())
    };
    "reverse" 1..1 => List, |args| {
        Ok(Val::Own(Value::List(list(&args[0], "reverse")?.iter().rev().cloned().collect())))
    };
    "round" 1..1 => Float, |args| rounded(args, "round", f64::round);
    "sort" 1..2 => List, |args| {
        let descending = match args.get(1) {
            Some(order) => ops::is_descending(order.text()?)?,
            None => false,
        };
        let mut all = match args[0].get() {
            Value::List(all) => all.clone(),
            _ => Vec::new(),
        };
        ops::sort(&mut all, |value| value, descending);
        Ok(Val::Own(Value::List(all)))
    };
    "split" 2..3 => List, |args| split(args, false);
    "splitAfter" 2..3 => List, |args| split(args, true);
    "string" 1..1 => Str, |args| Ok(match &args[0] {
        Val::Duration(ns) => Text::from(super::print::duration(*ns)),
        other => match other.get() {
            Value::Str(text) => text.clone(),
            other => go_text(other).into(),
        },
    }.into());
    "take" 2..2 => List, |args| {
        let all = list(&args[0], "take from")?;
        let count = usize::try_from(args[1].whole()?).map_err(|_| "slice bounds out of range".to_owned())?;
        Ok(Val::Own(Value::List(all[..count.min(all.len())].to_vec())))
    };
    "toBase64" 1..1 => Str, |args| Ok(Text::from(STANDARD.encode(&**args[0].text()?)).into());
    "toJSON" 1..1 => Str, |args| {
        let mut out = Vec::new();
        json::write(args[0].get(), Some(0), &mut out);
        Ok(Text::from(out).into())
    };
    "toPairs" 1..1 => List, |args| match args[0].get() {
        Value::Map(map) => {
            let pairs = map.iter().map(|(key, value)| Value::List(vec![Value::Str(key.clone()), value.clone()]));
            Ok(Val::Own(Value::List(pairs.collect())))
        }
        _ => Err(format!("cannot transform {} to pairs", kind_of(&args[0]))),
    };
    "trim" 1..2 => Str, |args| {
        let text = args[0].text()?;
        let trimmed = match args.get(1) {
            Some(cut) => {
                let cut = cut.text()?.lossy().into_owned();
                trimmed(text, |c| cut.contains(c))
            }
            None => trimmed(text, char::is_whitespace),
        };
        Ok(trimmed.into())
    };
    "trimPrefix" 1..2 => Str, |args| {
        let text = args[0].text()?;
        let prefix = affix(args)?;
        let start = if text.starts_with(&prefix) { prefix.len() } else { 0 };
        Ok(text.part(start..text.len()).into())
    };
    "trimSuffix" 1..2 => Str, |args| {
        let text = args[0].text()?;
        let suffix = affix(args)?;
        let end = if text.ends_with(&suffix) { text.len() - suffix.len() } else { text.len() };
        Ok(text.part(0..end).into())
    };
    "type" 1..1 => Str, |args| Ok(Text::of(match (&args[0], args[0].get()) {
        (Val::Duration(_), _) => "time.Duration",
        (_, Value::Null) => "nil",
        (_, Value::Bool(_)) => "bool",
        (_, Value::Int(_)) => "int",
        (_, Value::Float(_)) => "float",
        (_, Value::Str(_)) => "string",
        (_, Value::Bytes(_) | Value::List(_)) => "array",
        (_, Value::Map(_)) => "map",
        (_, Value::Time(_)) => "time.Time",
    }).into());
    "uniq" 1..1 => List, |args| {
        let mut kept: Vec<Value> = Vec::new();
        for value in list(&args[0], "uniq")? {
            if kept.len() > UNIQ_MAX {
                return Err("memory budget exceeded".to_owned());
            }
            if !kept.iter().any(|known| ops::same(known, value)) {
                kept.push(value.clone());
            }
        }
        Ok(Val::Own(Value::List(kept)))
    };
    "upper" 1..1 => Str, |args| Ok(Text::from(corten_golang::map(args[0].text()?, corten_golang::to_upper)).into());
    "values" 1..1 => List, |args| match args[0].get() {
        Value::Map(map) => Ok(Val::Own(Value::List(map.iter().map(|(_, value)| value.clone()).collect()))),
        _ => Err(format!("cannot get values from {}", kind_of(&args[0]))),
    };
};

/// How many different values a list may have of which each is to be kept once: each is compared with all.
const UNIQ_MAX: usize = 10_000;

fn kind_of(value: &Val<'_>) -> &'static str {
    match value.get() {
        Value::Map(_) => "map",
        Value::List(_) | Value::Bytes(_) => "slice",
        Value::Null => "invalid",
        _ => value.go_type(),
    }
}

fn list<'v>(value: &'v Val<'_>, verb: &str) -> Result<&'v [Value], String> {
    match value.get() {
        Value::List(list) => Ok(list),
        _ => Err(format!("cannot {verb} {}", kind_of(value))),
    }
}

fn at(of: &Val<'_>, index: i64) -> Val<'static> {
    // A copy of the element, not of the list.
    let place = |len: usize| usize::try_from(if index < 0 { index + len as i64 } else { index }).ok();
    match of.get() {
        Value::List(list) => Val::Own(place(list.len()).and_then(|at| list.get(at)).cloned().unwrap_or_default()),
        Value::Str(text) => {
            let byte = place(text.len()).and_then(|at| text.get(at));
            byte.map_or(Val::NULL, |byte| i64::from(*byte).into())
        }
        _ => Val::NULL,
    }
}

fn bits(args: &[Val<'_>], run: fn(i64, i64) -> Result<i64, String>) -> Made {
    Ok(run(args[0].whole()?, args[1].whole()?)?.into())
}

fn shift(count: i64) -> Result<i64, String> {
    if count < 0 {
        return Err(format!("invalid operation: negative shift count {count} (type int)"));
    }
    Ok(count)
}

fn rounded(args: &[Val<'_>], name: &str, run: fn(f64) -> f64) -> Made {
    match args[0].get() {
        Value::Int(number) => Ok((*number as f64).into()),
        Value::Float(number) => Ok(run(*number).into()),
        _ => Err(format!("invalid argument for {name} (type {})", args[0].go_type())),
    }
}

fn flatten(from: &[Value], into: &mut Vec<Value>) {
    for value in from {
        match value {
            Value::List(list) => flatten(list, into),
            other => into.push(other.clone()),
        }
    }
}

fn extreme(args: &[Val<'_>], name: &str, least: bool) -> Made {
    fn look(value: &Value, name: &str, least: bool, found: &mut Option<Value>) -> Result<(), String> {
        match value {
            Value::List(list) => list.iter().try_for_each(|value| look(value, name, least, found)),
            Value::Int(_) | Value::Float(_) => {
                let (new, old) =
                    (Val::Ref(value).number()?, found.as_ref().map(|old| Val::Ref(old).number()).transpose()?);
                if old.is_none_or(|old| if least { new < old } else { new > old }) {
                    *found = Some(value.clone());
                }
                Ok(())
            }
            other => Err(format!("invalid argument for {name} (type {})", other.go_type())),
        }
    }
    if let [only] = args
        && !matches!(only.get(), Value::List(_))
    {
        return Ok(Val::Own(only.get().clone()));
    }
    let mut found = None;
    args.iter().try_for_each(|arg| look(arg.get(), name, least, &mut found))?;
    Ok(Val::Own(found.unwrap_or_default()))
}

fn numbers(args: &[Val<'_>], name: &str) -> Result<Vec<f64>, String> {
    fn collect(value: &Value, name: &str, into: &mut Vec<f64>) -> Result<(), String> {
        match value {
            Value::List(list) => list.iter().try_for_each(|value| collect(value, name, into)),
            Value::Int(number) => {
                into.push(*number as f64);
                Ok(())
            }
            Value::Float(number) => {
                into.push(*number);
                Ok(())
            }
            other => Err(format!("invalid argument for {name} (type {})", other.go_type())),
        }
    }
    let mut all = Vec::new();
    args.iter().try_for_each(|arg| collect(arg.get(), name, &mut all))?;
    Ok(all)
}

fn affix(args: &[Val<'_>]) -> Result<Text, String> {
    args.get(1).map_or(Ok(Text::of(" ")), |affix| affix.text().cloned())
}

fn trimmed(text: &Text, cut: impl Fn(char) -> bool) -> Text {
    let lossy = text.lossy();
    match lossy {
        std::borrow::Cow::Borrowed(plain) => {
            let start = plain.len() - plain.trim_start_matches(&cut).len();
            let end = plain.trim_end_matches(&cut).len();
            text.part(start.min(end)..end)
        }
        std::borrow::Cow::Owned(lossy) => Text::from(lossy.trim_matches(cut)),
    }
}

/// Where the characters of a text end, which need not be UTF-8.
fn ends(text: &[u8]) -> impl Iterator<Item = usize> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.get(at..).filter(|rest| !rest.is_empty())?;
        let len = (1..=rest.len().min(4)).find(|len| std::str::from_utf8(&rest[..*len]).is_ok()).unwrap_or(1);
        at += len;
        Some(at)
    })
}

fn replace(text: &[u8], old: &[u8], new: &[u8], most: i64) -> Result<Vec<u8>, String> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut out = Vec::new();
    let mut last = 0;
    let mut put = |from: usize, to: usize, out: &mut Vec<u8>| {
        if out.len() + new.len() > 16 * VALUES_MAX {
            return Err("memory budget exceeded".to_owned());
        }
        out.extend_from_slice(&text[last..from]);
        out.extend_from_slice(new);
        last = to;
        Ok(())
    };
    if old.is_empty() {
        // Before each character, and behind the last.
        for at in std::iter::once(0).chain(ends(text)).take(most) {
            put(at, at, &mut out)?;
        }
    } else {
        for at in memchr::memmem::find_iter(text, old).take(most) {
            put(at, at + old.len(), &mut out)?;
        }
    }
    out.extend_from_slice(&text[last..]);
    Ok(out)
}

fn split(args: &[Val<'_>], keep: bool) -> Made {
    let (text, separator) = (args[0].text()?, args[1].text()?);
    let most = args.get(2).map_or(Ok(-1), Val::whole)?;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut parts = Vec::new();
    if most == 0 {
        return Ok(Val::Own(Value::List(parts)));
    }
    let mut start = 0;
    if separator.is_empty() {
        for end in ends(text) {
            let end = if parts.len() + 1 == most { text.len() } else { end };
            parts.push(Value::Str(text.part(start..end)));
            start = end;
            if start == text.len() {
                break;
            }
        }
        return Ok(Val::Own(Value::List(parts)));
    }
    for at in memchr::memmem::find_iter(text, &**separator) {
        if parts.len() + 1 >= most {
            break;
        }
        let end = at + separator.len();
        parts.push(Value::Str(text.part(start..if keep { end } else { at })));
        start = end;
    }
    parts.push(Value::Str(text.part(start..text.len())));
    Ok(Val::Own(Value::List(parts)))
}

/// Reads a duration of Go's.
pub(crate) fn duration(text: &str) -> Result<i64, String> {
    let wrong = || format!("time: invalid duration {text:?}");
    let (sign, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => (1, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    let mut total: i128 = 0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (digits, behind) = rest.split_at(number);
        let unit = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit);
        let ns: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            unit => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if (whole.is_empty() && fraction.is_empty()) || whole.len() > 18 || fraction.contains('.') {
            return Err(wrong());
        }
        total += whole.parse::<i128>().unwrap_or(0) * ns;
        let fraction = &fraction[..fraction.len().min(18)];
        if !fraction.is_empty() {
            total += fraction.parse::<i128>().unwrap_or(0) * ns / 10i128.pow(fraction.len() as u32);
        }
        rest = behind;
    }
    i64::try_from(total * sign).map_err(|_| wrong())
}

fn date(args: &[Val<'_>]) -> Made {
    let text = args[0].text()?;
    let read = |layout: &str, zone: Option<&Zone>| Layout::new(layout).parse(text, zone);
    let wrong = || format!("invalid date {}", text.lossy());
    let time = match args {
        [_] => [
            "2006-01-02",
            "15:04:05",
            "2006-01-02 15:04:05",
            "2006-01-02T15:04:05Z07:00",
            "02 Jan 06 15:04 MST",
            "Monday, 02-Jan-06 15:04:05 MST",
            "Mon, 02 Jan 2006 15:04:05 MST",
        ]
        .iter()
        .find_map(|layout| read(layout, None).ok())
        .ok_or_else(wrong)?,
        [_, layout] => read(&layout.text()?.lossy(), None).map_err(|error| error.to_string())?,
        [_, layout, zone] => {
            let zone = Zone::load(&zone.text()?.lossy()).map_err(|error| error.to_string())?;
            read(&layout.text()?.lossy(), Some(&zone)).map_err(|error| error.to_string())?
        }
        _ => return Err(wrong()),
    };
    Ok(Val::Own(Value::Time(time)))
}

/// A method of a time or a duration.
pub(super) fn method(of: &Val<'_>, name: &str, args: &[Val<'_>]) -> Made {
    let unknown = || format!("cannot fetch {name} from {}", of.go_type());
    if let (Val::Duration(ns), []) = (of, args) {
        let ns = *ns;
        return Ok(match name {
            "Nanoseconds" => ns.into(),
            "Microseconds" => (ns / 1_000).into(),
            "Milliseconds" => (ns / 1_000_000).into(),
            "Seconds" => (ns as f64 / 1e9).into(),
            "Minutes" => (ns as f64 / 6e10).into(),
            "Hours" => (ns as f64 / 3.6e12).into(),
            "String" => Text::from(super::print::duration(ns)).into(),
            _ => return Err(unknown()),
        });
    }
    let Value::Time(time) = of.get() else {
        return Err(if of.is_null() { format!("cannot fetch {name} from <nil>") } else { unknown() });
    };
    let civil = time.civil();
    let same_kind = |arg: &Val<'_>| match arg.get() {
        Value::Time(other) => Ok(*other),
        _ => Err(format!("reflect: Call using {} as type time.Time", arg.go_type())),
    };
    Ok(match (name, args) {
        ("Year", []) => civil.year.into(),
        ("Month", []) => i64::from(civil.month).into(),
        ("Day", []) => i64::from(civil.day).into(),
        ("Hour", []) => i64::from(civil.hour).into(),
        ("Minute", []) => i64::from(civil.minute).into(),
        ("Second", []) => i64::from(civil.second).into(),
        ("Nanosecond", []) => i64::from(time.nanoseconds).into(),
        ("YearDay", []) => i64::from(civil.year_day()).into(),
        ("Weekday", []) => i64::from(civil.weekday()).into(),
        ("Unix", []) => time.seconds.into(),
        ("UnixMilli", []) => {
            time.seconds.wrapping_mul(1_000).wrapping_add(i64::from(time.nanoseconds / 1_000_000)).into()
        }
        ("UnixMicro", []) => {
            time.seconds.wrapping_mul(1_000_000).wrapping_add(i64::from(time.nanoseconds / 1_000)).into()
        }
        ("UnixNano", []) => time.unix_ns().into(),
        ("IsZero", []) => (time.seconds == -62_135_596_800 && time.nanoseconds == 0).into(),
        ("UTC", []) => Val::Own(Value::Time(Time::utc(time.seconds, time.nanoseconds))),
        ("String", []) => Text::from(go_text(of.get())).into(),
        ("Format", [layout]) => Text::from(Layout::new(&layout.text()?.lossy()).format(time)).into(),
        ("Before", [other]) => ops::order_of(time, &same_kind(other)?).is_lt().into(),
        ("After", [other]) => ops::order_of(time, &same_kind(other)?).is_gt().into(),
        ("Equal", [other]) => ops::order_of(time, &same_kind(other)?).is_eq().into(),
        ("Sub", [other]) => Val::Duration(ops::between(time, &same_kind(other)?)),
        ("Add", [Val::Duration(ns)]) => {
            ops::binary(super::parse::Binary::Add, &Val::Own(of.get().clone()), &Val::Duration(*ns))?
        }
        _ => return Err(unknown()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_sorted_by_name() {
        assert!(BUILTINS.is_sorted_by_key(|builtin| builtin.name));
    }
}
