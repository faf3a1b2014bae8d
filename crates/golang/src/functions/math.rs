//! Arithmetic.

use super::Type::{Any, Float, Int};
use super::decimal::Decimal;
use super::{Answer, Function, Type, any, function, int, text, variadic};
use crate::numbers::{parse_float, parse_int};
use crate::template::{Exec, ListKind, Value};

/// How many numbers a sequence may have.
const SEQUENCE_MAX: usize = 10_000;

const ONE: &[Type] = &[Any];
const TWO: &[Type] = &[Any, Any];

pub(super) const FUNCTIONS: &[Function] = &[
    variadic("add", &[], Any, |_, args| {
        Ok(Value::Int64(args.iter().fold(0, |sum: i64, arg| sum.wrapping_add(to_int(arg)))))
    }),
    function("add1", ONE, |_, args| Ok(Value::Int64(to_int(any(args, 0)).wrapping_add(1)))),
    function("add1f", ONE, |_, args| decimal(&[any(args, 0).clone(), Value::Int(1)], |a, b| a.add(b))),
    variadic("addf", &[], Any, |exec, args| {
        exec.charge(args.len() * 64)?;
        decimal(&[&[Value::Float(0.0)], args].concat(), |a, b| a.add(b))
    }),
    function("atoi", &[Type::Text], |_, args| {
        // What is beyond the range is the end of the range, what is no number is zero.
        let subject = text(args, 0);
        Ok(Value::Int(match parse_int(subject, 10) {
            Ok(value) => value,
            Err(crate::numbers::NumberError::Syntax) => 0,
            Err(crate::numbers::NumberError::Range) if subject.starts_with(b"-") => i64::MIN,
            Err(crate::numbers::NumberError::Range) => i64::MAX,
        }))
    }),
    variadic("biggest", ONE, Any, |_, args| Ok(Value::Int64(extreme(args, i64::max)))),
    function("ceil", ONE, |_, args| Ok(Value::Float(to_float(any(args, 0)).ceil()))),
    function("div", TWO, |_, args| match to_int(any(args, 1)) {
        0 => Err("runtime error: integer divide by zero".to_owned()),
        divisor => Ok(Value::Int64(to_int(any(args, 0)).wrapping_div(divisor))),
    }),
    variadic("divf", ONE, Any, |exec, args| {
        exec.charge(args.len() * 64)?;
        decimal(args, |a, b| a.divide(b))
    }),
    function("float64", ONE, |_, args| Ok(Value::Float(to_float(any(args, 0))))),
    function("floor", ONE, |_, args| Ok(Value::Float(to_float(any(args, 0)).floor()))),
    function("int", ONE, |_, args| Ok(Value::Int(to_int(any(args, 0))))),
    function("int64", ONE, |_, args| Ok(Value::Int64(to_int(any(args, 0))))),
    variadic("max", ONE, Any, |_, args| Ok(Value::Int64(extreme(args, i64::max)))),
    variadic("maxf", ONE, Any, |_, args| Ok(Value::Float(float_extreme(args, f64::max)))),
    variadic("min", ONE, Any, |_, args| Ok(Value::Int64(extreme(args, i64::min)))),
    variadic("minf", ONE, Any, |_, args| Ok(Value::Float(float_extreme(args, f64::min)))),
    function("mod", TWO, |_, args| match to_int(any(args, 1)) {
        0 => Err("runtime error: integer divide by zero".to_owned()),
        divisor => Ok(Value::Int64(to_int(any(args, 0)).wrapping_rem(divisor))),
    }),
    variadic("mul", ONE, Any, |_, args| {
        Ok(Value::Int64(args.iter().fold(1, |product: i64, arg| product.wrapping_mul(to_int(arg)))))
    }),
    variadic("mulf", ONE, Any, |exec, args| {
        exec.charge(args.len() * 64)?;
        decimal(args, |a, b| a.multiply(b))
    }),
    variadic("round", &[Any, Int], Float, |_, args| {
        let round_on = match args.get(2) {
            Some(Value::Float(value)) => *value,
            _ => 0.5,
        };
        let power = 10f64.powf(int(args, 1) as f64);
        let digit = power * to_float(any(args, 0));
        // The fraction has the sign of the number.
        let fraction = if digit.is_infinite() { f64::NAN } else { digit.fract() };
        let whole = if fraction >= round_on { digit.ceil() } else { digit.floor() };
        Ok(Value::Float(whole / power))
    }),
    variadic("seq", &[], Int, seq),
    function("sub", TWO, |_, args| Ok(Value::Int64(to_int(any(args, 0)).wrapping_sub(to_int(any(args, 1)))))),
    variadic("subf", ONE, Any, |exec, args| {
        exec.charge(args.len() * 64)?;
        decimal(args, |a, b| a.add(&b.negate()))
    }),
    function("toDecimal", ONE, |_, args| {
        let shown = super::builtin::sprint(&args[..1])?;
        Ok(Value::Int64(parse_int(&shown, 8).unwrap_or(0)))
    }),
    function("until", &[Int], |exec, args| {
        let count = int(args, 0);
        let numbers = steps(0, count, if count < 0 { -1 } else { 1 })?;
        exec.list(ListKind::Int, numbers.into_iter().map(Value::Int).collect())
    }),
    function("untilStep", &[Int, Int, Int], |exec, args| {
        let numbers = steps(int(args, 0), int(args, 1), int(args, 2))?;
        exec.list(ListKind::Int, numbers.into_iter().map(Value::Int).collect())
    }),
];

/// The numbers from `start` to before `stop`; none where the step leads the other way.
fn steps(start: i64, stop: i64, step: i64) -> Result<Vec<i64>, String> {
    let mut numbers = Vec::new();
    let mut at = start;
    while step > 0 && start <= stop && at < stop || step < 0 && start > stop && at > stop {
        if numbers.len() == SEQUENCE_MAX {
            return Err(format!("sequence has more than {SEQUENCE_MAX} numbers"));
        }
        numbers.push(at);
        let Some(next) = at.checked_add(step) else { break };
        at = next;
    }
    Ok(numbers)
}

fn seq(_: &mut Exec<'_>, args: &[Value]) -> Answer {
    let numbers: Vec<i64> = args.iter().map(|arg| arg.as_int().unwrap_or(0)).collect();
    let towards = |start: i64, end: i64| if end < start { -1 } else { 1 };
    let numbers = match numbers[..] {
        [end] => steps(1, end.wrapping_add(towards(1, end)), towards(1, end))?,
        [start, end] => steps(start, end.wrapping_add(towards(start, end)), towards(start, end))?,
        [start, step, end] if end >= start || step <= 0 => steps(start, end.wrapping_add(towards(start, end)), step)?,
        _ => Vec::new(),
    };
    let shown: Vec<String> = numbers.iter().map(i64::to_string).collect();
    Ok(Value::from(shown.join(" ")))
}

fn extreme(args: &[Value], choose: fn(i64, i64) -> i64) -> i64 {
    args.iter().map(to_int).reduce(choose).unwrap_or(0)
}

fn float_extreme(args: &[Value], choose: fn(f64, f64) -> f64) -> f64 {
    // Go's Max and Min give NaN where one of the two is it.
    let chosen = |a: f64, b: f64| if a.is_nan() || b.is_nan() { f64::NAN } else { choose(a, b) };
    args.iter().map(to_float).reduce(chosen).unwrap_or(0.0)
}

/// As an integer: texts are read, with the prefix of a base; what is no number is zero.
pub(super) fn to_int(value: &Value) -> i64 {
    match value {
        Value::Bool(value) => i64::from(*value),
        Value::Uint8(value) => i64::from(*value),
        Value::Float(value) => {
            // Out of range it is the lowest integer, as on amd64.
            let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(value);
            if fits { *value as i64 } else { i64::MIN }
        }
        Value::Text(text) => parse_int(without_fraction(text), 0).unwrap_or(0),
        other => other.as_int().unwrap_or(0),
    }
}

/// The whole part of a decimal number; a text that is none as it is.
fn without_fraction(text: &[u8]) -> &[u8] {
    let Some(point) = memchr::memchr(b'.', text) else { return text };
    let (whole, fraction) = (&text[..point], &text[point + 1..]);
    let digits = whole.strip_prefix(b"-").or_else(|| whole.strip_prefix(b"+")).unwrap_or(whole);
    if !digits.iter().chain(fraction).all(u8::is_ascii_digit) {
        return text;
    }
    if digits.is_empty() { b"0" } else { whole }
}

/// As a floating-point number; what is no number is zero.
pub(super) fn to_float(value: &Value) -> f64 {
    match value {
        Value::Bool(value) => f64::from(u8::from(*value)),
        Value::Uint8(value) => f64::from(*value),
        Value::Float(value) => *value,
        Value::Text(text) => parse_float(text).unwrap_or(0.0),
        other => other.as_int().map_or(0.0, |value| value as f64),
    }
}

/// Arithmetic in decimal digits, from the first number on.
fn decimal(args: &[Value], operation: fn(&Decimal, &Decimal) -> Result<Decimal, String>) -> Answer {
    let mut result = Decimal::new(to_float(any(args, 0)))?;
    for arg in args.iter().skip(1) {
        result = operation(&result, &Decimal::new(to_float(arg))?)?;
    }
    Ok(Value::Float(result.to_float()))
}
