//! Text that is never shown.

use std::fmt;
use std::sync::Arc;

/// A password, token, key or header value: usable, but masked by every rendering.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// The text itself. The caller must not print it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is no text, which means that the argument was not given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: Into<Arc<str>>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_masked_when_it_is_printed() {
        assert_eq!(format!("{:?}", Secret::from("hunter2")), "(secret)");
        assert_eq!(Secret::from("hunter2").expose(), "hunter2");
    }
}
