//! What sources show of themselves to whoever looks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use corten_component::log::rfc3339;
use corten_config::Value;
use corten_config::encode::Item;
use parking_lot::Mutex;

/// The longest text of an error that is kept, in bytes.
const ERROR_BYTES_MAX: usize = 1024;

pub(super) fn attr(name: &str, value: impl Into<Value>) -> Item {
    Item::Attr { name: name.to_owned(), value: value.into() }
}

pub(super) fn block(name: &str, body: Vec<Item>) -> Item {
    Item::Block { name: name.to_owned(), label: None, body }
}

/// A time in nanoseconds since the Unix epoch.
pub(super) fn time_ns(name: &str, ns: i64) -> Item {
    attr(name, rfc3339(UNIX_EPOCH + Duration::from_nanos(u64::try_from(ns).unwrap_or(0))))
}

/// What went wrong last, and when.
#[derive(Debug, Default)]
pub(super) struct LastError(Mutex<Option<(SystemTime, String)>>);

impl LastError {
    pub(super) fn note(&self, text: &str) {
        let mut kept = text[..text.floor_char_boundary(ERROR_BYTES_MAX)].to_owned();
        if kept.len() < text.len() {
            kept.push('…');
        }
        *self.0.lock() = Some((SystemTime::now(), kept));
    }

    /// What went wrong last; nothing if nothing did yet.
    pub(super) fn text(&self) -> Option<String> {
        self.0.lock().as_ref().map(|(_, text)| text.clone())
    }

    /// Nothing if nothing went wrong yet.
    pub(super) fn show(&self, body: &mut Vec<Item>) {
        if let Some((at, text)) = &*self.0.lock() {
            body.push(attr("last_error", text.as_str()));
            body.push(attr("last_error_at", rfc3339(*at)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_error_is_cut_and_says_so() {
        let error = LastError::default();
        error.note("é");
        assert_eq!(error.text().as_deref(), Some("é"));
        let whole = "x".repeat(ERROR_BYTES_MAX);
        error.note(&whole);
        assert_eq!(error.text(), Some(whole.clone()));
        error.note(&format!("{whole}y"));
        assert_eq!(error.text(), Some(format!("{whole}…")));
    }
}
