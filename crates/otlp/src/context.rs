//! What is known of the request that telemetry came with.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// What is known of the request that telemetry came with. It goes with the data as far as that stays together.
#[derive(Clone, Debug, Default)]
pub struct RequestContext {
    /// Who sent it. The port is 0 where only the address counts, as over HTTP.
    pub peer: Option<SocketAddr>,
    /// The headers, where the receiver was told to keep them.
    pub metadata: Metadata,
    /// Who the sender showed to be, where the receiver asks for that. It is never written to disk.
    pub auth: Option<Arc<dyn AuthData>>,
}

/// What an authenticator found out about a sender.
pub trait AuthData: fmt::Debug + Send + Sync + 'static {
    /// What it knows under a name.
    fn attribute(&self, name: &str) -> Option<String>;

    /// The names that it knows something under.
    fn names(&self) -> Vec<String>;

    /// For the authenticators' own use.
    fn as_any(&self) -> &dyn Any;
}

/// Headers: names in lower case, each with its values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Metadata(Vec<(String, Vec<String>)>);

impl Metadata {
    /// Adds a value to a name.
    pub fn add(&mut self, name: &str, value: impl Into<String>) {
        let name = name.to_ascii_lowercase();
        match self.0.binary_search_by(|(known, _)| known.cmp(&name)) {
            Ok(at) => self.0[at].1.push(value.into()),
            Err(at) => self.0.insert(at, (name, vec![value.into()])),
        }
    }

    /// The values of a name, which may be written in either case.
    pub fn get(&self, name: &str) -> &[String] {
        let found = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or(&[], |(_, values)| values)
    }

    /// The names in order, with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0.iter().map(|(name, values)| (name.as_str(), &**values))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of some names.
    #[must_use]
    pub fn only(&self, names: &[String]) -> Self {
        let kept = self.0.iter().filter(|(name, _)| names.iter().any(|kept| kept.eq_ignore_ascii_case(name)));
        Metadata(kept.cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_either_case_and_keep_all_their_values() {
        let mut metadata = Metadata::default();
        metadata.add("X-Tenant", "a");
        metadata.add("host", "h");
        metadata.add("x-tenant", "b");
        assert_eq!(metadata.get("x-TENANT"), ["a", "b"]);
        assert!(metadata.get("other").is_empty());
        let kept = metadata.only(&["X-Tenant".to_owned()]);
        assert_eq!(kept.iter().collect::<Vec<_>>(), [("x-tenant", &["a".to_owned(), "b".to_owned()][..])]);
    }
}
