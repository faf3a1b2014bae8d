//! How many of something a scrape may have.

use corten_config::Value;
use corten_config::decode::{Decode, Mismatches, ValueContext};
use corten_config::error::ValueError;
use corten_config::schema::Shape;

/// A number of things, none of them negative; 0 is no limit.
///
/// The reference reads a negative number as a very large one, or as a limit that nothing keeps to. Whoever writes one means
/// neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) u64);

impl Decode for Limit {
    const SHAPE: Shape = Shape::Uint;

    fn decode(value: &Value, cx: &ValueContext) -> Result<Self, Mismatches> {
        // Converted to an unsigned integer, a negative number would wrap.
        let number = f64::decode(value, cx)?;
        if number < 0.0 || number.is_nan() {
            return Err(ValueError::new(value, "a limit must not be negative; 0 is no limit").into());
        }
        u64::decode(value, cx).map(Limit)
    }

    fn zero() -> Option<Self> {
        Some(Limit(0))
    }

    fn to_value(&self) -> Value {
        Value::uint(self.0)
    }
}

#[cfg(test)]
mod tests {
    use corten_config::schema::Stability;

    use super::*;

    #[test]
    fn a_limit_is_not_negative() {
        let cx = ValueContext { minimum: Stability::GenerallyAvailable, checking: false };
        for (value, want) in [
            (Value::int(0), Some(0)),
            (Value::uint(7), Some(7)),
            (Value::float(1.9), Some(1)),
            (Value::string("12"), Some(12)),
            (Value::int(-1), None),
            (Value::float(-0.5), None),
            (Value::string("-1"), None),
        ] {
            assert_eq!(Limit::decode(&value, &cx).ok(), want.map(Limit), "{value:?}");
        }
    }
}
