//! The labels of targets as they are shown. Whatever shows a target asks here: no view of it tells what another one hides.

use std::borrow::Cow;

use corten_component::SecretBook;
use corten_component::secrets::is_secret_name;
use corten_config::value::MASK;
use corten_signal::tap::Redactor as _;
use corten_signal::target::Target;

/// A label without its secrets.
#[derive(Debug, PartialEq)]
pub(super) struct ShownLabel<'t> {
    pub(super) name: Cow<'t, str>,
    pub(super) value: Cow<'t, str>,
    /// How many secrets were masked in it.
    pub(super) secrets: u32,
}

/// The labels of a target.
pub(super) fn shown_labels<'t>(target: &'t Target, book: &'t SecretBook) -> impl Iterator<Item = ShownLabel<'t>> {
    target.iter().map(|label| shown_label(target, label, book))
}

fn shown_label<'t>(target: &Target, (name, value): (&'t str, &'t str), book: &SecretBook) -> ShownLabel<'t> {
    let (value, of_value) = shown_value(target, name, value, book);
    let (name, of_name) = redacted(name, book);
    ShownLabel { name, value, secrets: of_name + of_value }
}

/// The value of a label of a target, and how many secrets were masked in it.
pub(super) fn shown_value<'t>(target: &Target, name: &str, value: &'t str, book: &SecretBook) -> (Cow<'t, str>, u32) {
    let is_hidden = || is_secret_name(name) || book.names_secret(name);
    if target.is_sensitive() {
        (MASK.into(), 1)
    } else if value.is_empty() || value == MASK {
        // What is empty is no secret, and says so.
        (value.into(), 0)
    } else if is_hidden() {
        (MASK.into(), 1)
    } else {
        redacted(value, book)
    }
}

fn redacted<'t>(text: &'t str, book: &SecretBook) -> (Cow<'t, str>, u32) {
    if book.is_open(text) {
        return (text.into(), 0);
    }
    let mut shown = text.to_owned();
    let secrets = book.redact_data(&mut shown);
    (shown.into(), secrets)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn labels_are_shown_without_their_secrets() {
        let book = SecretBook::default();
        book.set([Arc::from("hunter2-known")]);
        for (name, value, shown, secrets) in [
            ("job", "api", ("job", "api"), 0),
            ("password", "hush", ("password", "(secret)"), 1),
            ("password", "", ("password", ""), 0),
            ("password", "(secret)", ("password", "(secret)"), 0),
            ("a password of", "hush", ("a password of", "(secret)"), 1),
            ("note", "a hunter2-known b hunter2-known", ("note", "a (secret) b (secret)"), 2),
            ("note", "level=info password=hush", ("note", "level=info password=(secret)"), 1),
            ("note", "{\"token\":\"hush\"}", ("note", "{\"token\":\"(secret)\"}"), 1),
            ("url", "http://u:hush@h/?token=hush", ("url", "http://u:(secret)@h/?token=(secret)"), 2),
            ("of_hunter2-known", "hush", ("of_(secret)", "(secret)"), 2),
        ] {
            let target = Target::new([(name, value)]).unwrap();
            let found: Vec<_> = shown_labels(&target, &book).collect();
            assert_eq!(found, [ShownLabel { name: shown.0.into(), value: shown.1.into(), secrets }], "{name} {value}");
        }
    }
}
