//! What can be said of a program before it runs: types of what is written out, counts of arguments, patterns.

use corten_signal::regex::GoRegex;

use super::parse::{Binary, Node, Over, Part, Var};
use super::token::Refused;
use crate::value::Value;

/// What kind of value a part has, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Any,
    Nil,
    Bool,
    Int,
    Float,
    Str,
    Bytes,
    List,
    Map,
    Time,
    Duration,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Any => "interface {}",
            Kind::Nil => "unknown",
            Kind::Bool => "bool",
            Kind::Int => "int",
            Kind::Float => "float64",
            Kind::Str => "string",
            Kind::Bytes => "[]uint8",
            Kind::List => "[]interface {}",
            Kind::Map => "map[string]interface {}",
            Kind::Time => "time.Time",
            Kind::Duration => "time.Duration",
        }
    }

    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Kind::Nil,
            Value::Bool(_) => Kind::Bool,
            Value::Int(_) => Kind::Int,
            Value::Float(_) => Kind::Float,
            Value::Str(_) => Kind::Str,
            Value::Bytes(_) => Kind::Bytes,
            Value::Time(_) => Kind::Time,
            Value::List(_) => Kind::List,
            Value::Map(_) => Kind::Map,
        }
    }

    fn is(self, kinds: &[Kind]) -> bool {
        self == Kind::Any || kinds.contains(&self)
    }

    fn is_number(self) -> bool {
        self.is(&[Kind::Int, Kind::Float])
    }

    fn joined(self, other: Kind) -> Kind {
        if self == other { self } else { Kind::Any }
    }
}

type Checked = Result<Kind, Refused>;

/// Looks at a program. What it knows of the value; patterns that are written out are compiled in it.
pub(super) fn check(node: &mut Node) -> Checked {
    let at = node.at;
    Ok(match &mut node.part {
        Part::Const(value) => Kind::of(value),
        Part::Var(Var::Timestamp) | Part::Var(_) | Part::Local(_) | Part::Item | Part::Acc => Kind::Any,
        Part::Index => Kind::Int,
        Part::Negate(of) | Part::Plus(of) => {
            let kind = check(of)?;
            if !(kind.is_number() || kind == Kind::Duration) {
                return Err((at, format!("invalid operation: - (mismatched type {})", kind.name())));
            }
            kind
        }
        Part::Not(of) => {
            let kind = check(of)?;
            if !kind.is(&[Kind::Bool]) {
                return Err((at, format!("invalid operation: not (mismatched type {})", kind.name())));
            }
            Kind::Bool
        }
        Part::Binary(binary, nodes) => {
            let [left, right] = &mut **nodes;
            let kind = of_binary(*binary, check(left)?, check(right)?, at)?;
            if *binary == Binary::Matches
                && let Part::Const(Value::Str(pattern)) = &right.part
            {
                let regex = GoRegex::new(&pattern.lossy()).map_err(|error| (at, error.to_string()))?;
                let left = std::mem::replace(&mut left.part, Part::Item);
                let left = Node::moved(left, nodes[0].at);
                node.part = Part::Matches(Box::new(left), Box::new(regex));
            }
            kind
        }
        Part::Matches(of, _) => {
            check(of)?;
            Kind::Bool
        }
        Part::And(_) | Part::Or(_) => {
            let (nodes, sign) = match &mut node.part {
                Part::And(nodes) => (nodes, "and"),
                Part::Or(nodes) => (nodes, "or"),
                _ => return Ok(Kind::Any),
            };
            let mut before: Option<Kind> = None;
            let mut kind = Kind::Bool;
            for of in nodes {
                kind = check(of)?;
                if let Some(left) = before
                    && !(kind.is(&[Kind::Bool]) && left.is(&[Kind::Bool]))
                {
                    let (left, right) = (left.name(), kind.name());
                    return Err((at, format!("invalid operation: {sign} (mismatched types {left} and {right})")));
                }
                before = Some(kind);
            }
            // The value is that of the last one.
            kind
        }
        Part::Coalesce(nodes) => {
            let [left, right] = &mut **nodes;
            let (left, right) = (check(left)?, check(right)?);
            if left == Kind::Nil { right } else { left.joined(right) }
        }
        Part::Cond(nodes) => {
            let [condition, then, other] = &mut **nodes;
            let kind = check(condition)?;
            if !kind.is(&[Kind::Bool]) {
                return Err((condition.at, format!("non-bool expression (type {}) used as condition", kind.name())));
            }
            check(then)?.joined(check(other)?)
        }
        Part::Member { of, key, .. } => {
            check(of)?;
            check(key)?;
            Kind::Any
        }
        Part::Slice { of, from, to } => {
            let kind = check(of)?;
            for bound in [from, to].into_iter().flatten() {
                let kind = check(bound)?;
                if !kind.is(&[Kind::Int]) {
                    return Err((bound.at, format!("non-integer slice index {}", kind.name())));
                }
            }
            if !kind.is(&[Kind::Str, Kind::List, Kind::Bytes]) {
                return Err((at, format!("cannot slice {}", kind.name())));
            }
            kind
        }
        Part::Chain(of) => {
            check(of)?;
            Kind::Any
        }
        Part::Method { of, args, .. } => {
            check(of)?;
            args.iter_mut().try_for_each(|arg| check(arg).map(drop))?;
            Kind::Any
        }
        Part::Call(builtin, args) => {
            let mut kinds = Vec::new();
            for arg in args.iter_mut() {
                kinds.push(check(arg)?);
            }
            if (args.len() < builtin.least || args.len() > builtin.most) && COUNTING.contains(&builtin.name) {
                let (wanted, got) = (builtin.least, args.len());
                return Err((at, format!("invalid number of arguments (expected {wanted}, got {got})")));
            }
            if args.len() < builtin.least {
                return Err((at, format!("not enough arguments to call {}", builtin.name)));
            }
            if args.len() > builtin.most {
                return Err((at, format!("too many arguments to call {}", builtin.name)));
            }
            builtin.kind
        }
        Part::Env(args) => {
            args.iter_mut().try_for_each(|arg| check(arg).map(drop))?;
            Kind::Any
        }
        Part::Unknown(args) => {
            args.iter_mut().try_for_each(|arg| check(arg).map(drop))?;
            Kind::Any
        }
        Part::Over { over, list, predicate, last } => {
            let kind = check(list)?;
            if !kind.is(&[Kind::List]) {
                return Err((list.at, format!("builtin {} takes only array (got {})", over.name(), kind.name())));
            }
            let (kind, place) = match predicate {
                Some(predicate) => (check(predicate)?, predicate.at),
                None => (Kind::Any, at),
            };
            use Over::{All, Any, Count, Filter, Find, FindIndex, FindLast, FindLastIndex, None as NoneOf, One};
            let is_condition =
                matches!(over, All | Any | Count | Filter | Find | FindIndex | FindLast | FindLastIndex | NoneOf | One);
            if is_condition && !kind.is(&[Kind::Bool]) {
                return Err((place, format!("predicate should return boolean (got {})", kind.name())));
            }
            if let Some(last) = last {
                check(last)?;
            }
            match over {
                All | NoneOf | Any | One => Kind::Bool,
                Filter | Over::Map | Over::SortBy => Kind::List,
                Count | FindIndex | FindLastIndex => Kind::Int,
                Over::GroupBy => Kind::Map,
                Over::Sum | Find | FindLast | Over::Reduce => Kind::Any,
            }
        }
        Part::List(nodes) => {
            nodes.iter_mut().try_for_each(|of| check(of).map(drop))?;
            Kind::List
        }
        Part::Map(pairs) => {
            for (key, value) in pairs {
                check(key)?;
                check(value)?;
            }
            Kind::Map
        }
        Part::Let { value, then, .. } => {
            check(value)?;
            check(then)?
        }
        Part::Sequence(nodes) => {
            let mut kind = Kind::Nil;
            for of in nodes {
                kind = check(of)?;
            }
            kind
        }
    })
}

/// Functions that say themselves how many arguments they take.
const COUNTING: [&str; 17] = [
    "abs",
    "ceil",
    "first",
    "flatten",
    "float",
    "floor",
    "fromPairs",
    "int",
    "keys",
    "last",
    "len",
    "reverse",
    "round",
    "take",
    "toPairs",
    "uniq",
    "values",
];

fn of_binary(binary: Binary, left: Kind, right: Kind, at: u32) -> Checked {
    use Kind::{Any, Bool, Bytes, Duration, Float, Int, List, Map, Nil, Str, Time};
    let both = |kinds: &[Kind]| left.is(kinds) && right.is(kinds);
    let numbers = left.is_number() && right.is_number();
    let number = || match (left, right) {
        (Int, Int) => Int,
        (Any, _) | (_, Any) => Any,
        _ => Float,
    };
    let ok = match binary {
        Binary::Equal | Binary::NotEqual => {
            let same = left == right || left == Any || right == Any || left == Nil || right == Nil;
            (same || numbers).then_some(Bool)
        }
        Binary::Less | Binary::More | Binary::LessOrEqual | Binary::MoreOrEqual => {
            (numbers || both(&[Str]) || both(&[Time]) || both(&[Duration])).then_some(Bool)
        }
        Binary::In => (right.is(&[List, Map]) || right == Nil).then_some(Bool),
        Binary::Matches => (left.is(&[Str, Bytes, Nil]) && right.is(&[Str, Nil])).then_some(Bool),
        Binary::Contains | Binary::StartsWith | Binary::EndsWith => both(&[Str, Nil]).then_some(Bool),
        Binary::Range => both(&[Int]).then_some(List),
        Binary::Add if numbers => Some(number()),
        Binary::Add if both(&[Str]) => Some(if left == Any && right == Any { Any } else { Str }),
        Binary::Add => {
            let times =
                (left.is(&[Time, Duration]) && right.is(&[Duration])) || (left.is(&[Duration]) && right.is(&[Time]));
            times.then_some(if left == Duration && right == Duration { Duration } else { Any })
        }
        Binary::Subtract if numbers => Some(number()),
        Binary::Subtract => (left.is(&[Time, Duration]) && right.is(&[Time, Duration])).then_some(Any),
        Binary::Multiply if numbers => Some(number()),
        Binary::Multiply => {
            ((left.is_number() && right == Duration) || (left == Duration && right.is_number())).then_some(Duration)
        }
        Binary::Divide => numbers.then_some(Float),
        Binary::Modulo => both(&[Int]).then_some(Int),
        Binary::Power => numbers.then_some(Float),
    };
    ok.ok_or_else(|| {
        let (sign, left, right) = (binary.sign(), left.name(), right.name());
        (at, format!("invalid operation: {sign} (mismatched types {left} and {right})"))
    })
}
