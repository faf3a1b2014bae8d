//! The identity of an installation: a UUID that is kept with the data.

use std::io::Read as _;
use std::path::Path;
use std::time::SystemTime;

use corten_component::log::rfc3339;
use serde_json::{Value, json};

use crate::version::VERSION;

/// The file, as the reference names it: an installation that changes over keeps its identity.
const FILE: &str = "alloy_seed.json";

/// The most that is read of it.
const BYTES_MAX: u64 = 64 * 1024;

/// The id of the installation whose data lie in a folder. It is made when there is none; the text says why it could not be
/// kept, if it could not.
pub(crate) fn installation_id(storage: &Path) -> (String, Option<String>) {
    let file = storage.join(FILE);
    if let Some((id, _)) = read(&file) {
        return (id, None);
    }
    // Where older versions of the reference kept it.
    let legacy = read(&std::env::temp_dir().join(FILE));
    let (id, seed) = legacy.unwrap_or_else(|| {
        let id = uuid::Uuid::new_v4().to_string();
        let seed = json!({ "UID": id, "created_at": rfc3339(SystemTime::now()), "version": VERSION });
        (id, seed)
    });
    (id, write(&file, &seed).err().map(|error| error.to_string()))
}

fn read(file: &Path) -> Option<(String, Value)> {
    let mut text = String::new();
    std::fs::File::open(file).ok()?.take(BYTES_MAX).read_to_string(&mut text).ok()?;
    let seed: Value = serde_json::from_str(&text).ok()?;
    let id = seed.get("UID")?.as_str().filter(|id| !id.is_empty())?.to_owned();
    Some((id, seed))
}

/// Puts the file in place as a whole: half of one would give the installation a new identity.
fn write(file: &Path, seed: &Value) -> std::io::Result<()> {
    let new = file.with_extension("json.new");
    std::fs::write(&new, seed.to_string())?;
    std::fs::rename(&new, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (id, failure) = installation_id(dir.path());
        assert_eq!((id.len(), failure), (36, None));
        assert_eq!(installation_id(dir.path()).0, id);
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        let seed: Value = serde_json::from_str(&text).unwrap();
        let keys: Vec<&String> = seed.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["UID", "created_at", "version"]);
        assert_eq!(seed["version"], VERSION);
    }

    #[test]
    fn the_id_of_the_reference_is_taken_over_and_a_broken_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        let text = r#"{"UID":"one","created_at":"2024-01-02T03:04:05Z","version":"v1.0.0"}"#;
        std::fs::write(&file, text).unwrap();
        assert_eq!(installation_id(dir.path()), ("one".to_owned(), None));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        std::fs::write(&file, "{").unwrap();
        let (id, _) = installation_id(dir.path());
        assert!(!id.is_empty() && std::fs::read_to_string(&file).unwrap().contains(&id));
    }

    #[test]
    fn an_id_that_cannot_be_kept_is_an_id_nevertheless() {
        let dir = tempfile::tempdir().unwrap();
        let (id, failure) = installation_id(&dir.path().join("nowhere"));
        assert!(!id.is_empty() && failure.is_some());
    }
}
