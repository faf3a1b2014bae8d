//! A new component: its file, its lines in the list of its family, and its line in the README.
//!
//! The text is that of a component which is compiled and tested with everything else, so that what is written here
//! compiles and passes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The text that is written, for a component `test.skeleton`.
const SKELETON: &str = include_str!("../../crates/testkit/tests/it/skeleton.rs");

/// Components whose names begin with the first lie in the folder of the second. All others lie in the folder of their
/// namespace, which is the first part of their names.
const FAMILIES: &[(&str, &str)] = &[("prometheus.exporter", "exporter")];

/// Words of Rust that cannot name a module. A module of such a component has an underscore behind its name.
const WORDS: &[&str] = &[
    "as", "async", "await", "break", "const", "continue", "crate", "dyn", "else", "enum", "extern", "false", "fn",
    "for", "gen", "if", "impl", "in", "let", "loop", "match", "mod", "move", "mut", "pub", "ref", "return", "self",
    "static", "struct", "super", "trait", "true", "type", "unsafe", "use", "where", "while",
];

/// Where a component of this name belongs, and what its parts are called.
#[derive(Debug, PartialEq)]
pub struct Place {
    /// The name, `prometheus.thing`.
    name: String,
    /// The folder of the family below `components`.
    family: String,
    /// The module.
    module: String,
    /// The type.
    ty: String,
}

impl Place {
    /// The place of a component.
    ///
    /// # Errors
    ///
    /// When it is no name of a component.
    pub fn of(name: &str) -> Result<Self, String> {
        let refused = || format!("{name:?} is no name of a component such as prometheus.thing");
        let is_word = |word: &str| {
            word.starts_with(|c: char| c.is_ascii_lowercase())
                && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        let (before, last) = name.rsplit_once('.').ok_or_else(refused)?;
        if !name.split('.').all(is_word) {
            return Err(refused());
        }
        if let Some((prefix, _)) = FAMILIES.iter().find(|(_, family)| *family == before) {
            return Err(format!("components of that family are called {prefix}.{last}"));
        }
        let family = match FAMILIES.iter().find(|(prefix, _)| *prefix == before) {
            Some((_, family)) => *family,
            None if before.contains('.') => {
                let told = "add its family to FAMILIES in xtask/src/new.rs";
                return Err(format!("it is not known in which folder components of {before:?} lie: {told}"));
            }
            None => before,
        };
        let ty: String = last.split('_').filter(|part| !part.is_empty()).map(capitalized).collect();
        let module = if WORDS.contains(&last) { format!("{last}_") } else { last.to_owned() };
        // `Self` is a word, too.
        let ty = if ty == "Self" { "SelfComponent".to_owned() } else { ty };
        Ok(Place { name: name.to_owned(), family: family.to_owned(), module, ty })
    }

    /// The name of the family's crate.
    pub fn package(&self) -> String {
        format!("corten-{}", self.family)
    }

    /// The file of the component.
    fn file(&self) -> PathBuf {
        Path::new("components").join(&self.family).join("src").join(format!("{}.rs", self.module))
    }

    /// The file that lists the family.
    fn list(&self) -> PathBuf {
        Path::new("components").join(&self.family).join("src/lib.rs")
    }

    /// The text of the component's file.
    fn text(&self) -> String {
        let constant = self.module.trim_end_matches('_').to_uppercase();
        SKELETON.replace("test.skeleton", &self.name).replace("Skeleton", &self.ty).replace("SKELETON", &constant)
    }

    /// The family's list with the component in it.
    fn listed(&self, lib: &str) -> Result<String, String> {
        let declared = |line: &str| {
            let name = line.strip_prefix("pub ").unwrap_or(line).strip_prefix("mod ")?.strip_suffix(';')?;
            Some(name.to_owned())
        };
        let mut lines: Vec<&str> = lib.lines().collect();
        let modules: Vec<(usize, String)> =
            lines.iter().enumerate().filter_map(|(at, line)| Some((at, declared(line)?))).collect();
        let (last, _) = modules.last().ok_or("it declares no modules")?;
        let before = modules.iter().find(|(_, name)| *name > self.module).map_or(last + 1, |(at, _)| *at);
        let declaration = format!("pub mod {};", self.module);
        lines.insert(before, &declaration);
        let lib = lines.join("\n") + "\n";

        let start = "pub const COMPONENTS: &[Definition] =";
        let from = lib.find(start).ok_or("it has no list COMPONENTS")? + start.len();
        let to = from + lib[from..].find("];").ok_or("its list COMPONENTS has no end")?;
        let mut entries: BTreeMap<String, String> = BTreeMap::new();
        let found = lib[from..to].split("Definition::of::<").skip(1);
        for path in found.filter_map(|rest| rest.split_once('>')).map(|(path, _)| path) {
            // Sorted as the components are by their names: the type is the last part, the modules are the name.
            let module = path.rsplit_once("::").map_or(path, |(module, _)| module);
            entries.insert(module.trim_end_matches('_').replace("::", "."), path.to_owned());
        }
        let path = format!("{}::{}", self.module, self.ty);
        entries.insert(self.module.trim_end_matches('_').to_owned(), path);
        let list: String = entries.values().map(|path| format!("\n    Definition::of::<{path}>(),")).collect();
        Ok(format!("{} &[{list}\n{}", &lib[..from], &lib[to..]))
    }

    /// The README with the component's line.
    fn told(&self, readme: &str) -> Result<String, String> {
        let named = |line: &str| Some(line.strip_prefix("- [`")?.split_once("`](docs/reference/")?.0.to_owned());
        let doc = SKELETON.lines().find_map(|line| line.strip_prefix("/// ")).unwrap_or_default();
        let own = format!("- [`{0}`](docs/reference/{0}.md): {doc}", self.name);
        let mut lines: Vec<&str> = readme.lines().collect();
        let listed: Vec<(usize, String)> =
            lines.iter().enumerate().filter_map(|(at, line)| Some((at, named(line)?))).collect();
        let (last, _) = listed.last().ok_or("it lists no components")?;
        let before = listed.iter().find(|(_, name)| *name > self.name).map_or(last + 1, |(at, _)| *at);
        lines.insert(before, &own);
        Ok(lines.join("\n") + "\n")
    }
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
}

/// Writes a component into the repository at `root`; the files that it wrote.
///
/// # Errors
///
/// When there is such a component, when there is no such family, or when a file cannot be read or written. Nothing is
/// written then but what was written before the failure.
pub fn write(root: &Path, place: &Place) -> Result<Vec<PathBuf>, String> {
    let told = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let read = |path: &Path| fs::read_to_string(root.join(path)).map_err(|error| told(path, error));
    let (file, list, readme) = (place.file(), place.list(), PathBuf::from("README.md"));
    if !root.join(&list).exists() {
        return Err(format!(
            "there is no components/{}: a new namespace needs a crate there, and a line in bin/corten/src/families.rs",
            place.family
        ));
    }
    if root.join(&file).exists() {
        return Err(format!("{} is there already", file.display()));
    }
    let listed = place.listed(&read(&list)?).map_err(|error| format!("{}: {error}", list.display()))?;
    let page = place.told(&read(&readme)?).map_err(|error| format!("README.md: {error}"))?;
    for (path, text) in [(&file, place.text()), (&list, listed), (&readme, page)] {
        fs::write(root.join(path), text).map_err(|error| told(path, error))?;
    }
    Ok(vec![file, list, readme])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_where_a_component_lies() {
        let place = |name: &str| {
            let place = Place::of(name).unwrap();
            (place.family.clone(), place.module.clone(), place.ty.clone(), place.package())
        };
        let parts = |family: &str, module: &str, ty: &str, package: &str| {
            (family.to_owned(), module.to_owned(), ty.to_owned(), package.to_owned())
        };
        assert_eq!(place("local.file_match"), parts("local", "file_match", "FileMatch", "corten-local"));
        assert_eq!(place("prometheus.exporter.unix"), parts("exporter", "unix", "Unix", "corten-exporter"));
        assert_eq!(place("loki.match"), parts("loki", "match_", "Match", "corten-loki"));
        assert_eq!(place("prometheus.exporter.self").1, "self_");
        for name in ["", "local", "local.", ".file", "local.File", "local.file-match", "local.2", "../x.y", "a.b/c"] {
            let expected = format!("{name:?} is no name of a component such as prometheus.thing");
            assert_eq!(Place::of(name).unwrap_err(), expected);
        }
        let expected = "components of that family are called prometheus.exporter.unix";
        assert_eq!(Place::of("exporter.unix").unwrap_err(), expected);
        assert!(Place::of("otelcol.processor.batch").unwrap_err().contains("FAMILIES"));
    }

    const LIB: &str = "//! Family.\n\npub mod alpha;\nmod helper;\npub mod static_;\n\nuse corten_component::Definition;\n\n\
                       /// All.\npub const COMPONENTS: &[Definition] =\n    &[Definition::of::<alpha::Alpha>(), \
                       Definition::of::<static_::Static>()];\n";

    #[test]
    fn a_component_gets_its_two_lines_in_order() {
        let listed = |name: &str| Place::of(name).unwrap().listed(LIB).unwrap();
        let text = listed("local.file");
        assert!(text.contains("\npub mod alpha;\npub mod file;\nmod helper;\n"), "{text}");
        let list = "pub const COMPONENTS: &[Definition] = &[\n    Definition::of::<alpha::Alpha>(),\n    \
                    Definition::of::<file::File>(),\n    Definition::of::<static_::Static>(),\n];\n";
        assert!(text.ends_with(list), "{text}");
        let text = listed("local.zeta");
        assert!(text.contains("\npub mod static_;\npub mod zeta;\n\nuse "), "{text}");
        assert!(Place::of("local.file").unwrap().listed("").is_err());
    }

    #[test]
    fn a_component_is_written_once_and_into_a_family_that_there_is() {
        let root = std::env::temp_dir().join(format!("corten-new-{}", std::process::id()));
        fs::create_dir_all(root.join("components/local/src")).unwrap();
        fs::write(root.join("components/local/src/lib.rs"), LIB).unwrap();
        let readme = "# T\n\n- [`local.alpha`](docs/reference/local.alpha.md): A.\n- [`remote.x`](docs/reference/remote.x.md): X.\n\nEnd.\n";
        fs::write(root.join("README.md"), readme).unwrap();
        let place = Place::of("local.two_words").unwrap();
        assert_eq!(write(&root, &place).unwrap().len(), 3);
        let file = fs::read_to_string(root.join("components/local/src/two_words.rs")).unwrap();
        assert!(file.starts_with("//! `local.two_words`.\n") && file.contains("pub struct TwoWords;"), "{file}");
        assert!(!file.to_lowercase().contains("skeleton"), "{file}");
        let readme = fs::read_to_string(root.join("README.md")).unwrap();
        let lines: Vec<&str> = readme.lines().filter(|line| line.starts_with("- ")).collect();
        assert_eq!(lines[1], "- [`local.two_words`](docs/reference/local.two_words.md): Exports what it is given.");
        assert_eq!((lines.len(), readme.ends_with("\nEnd.\n")), (3, true));
        assert_eq!(write(&root, &place).unwrap_err(), "components/local/src/two_words.rs is there already");
        let other = write(&root, &Place::of("loki.x").unwrap()).unwrap_err();
        assert!(other.starts_with("there is no components/loki: "), "{other}");
        fs::remove_dir_all(root).unwrap();
    }

    /// Whoever writes a family's list in another form learns of it here, not from the next who adds a component.
    #[test]
    fn every_family_can_take_a_component() {
        let components = Path::new(env!("CARGO_MANIFEST_DIR")).join("../components");
        for family in fs::read_dir(components).unwrap() {
            let family = family.unwrap().path();
            let lib = fs::read_to_string(family.join("src/lib.rs")).unwrap();
            let place = Place { name: "x.m_new".into(), family: "x".into(), module: "m_new".into(), ty: "New".into() };
            let listed = place.listed(&lib).unwrap();
            let count = |text: &str, what: &str| text.matches(what).count();
            for (what, more) in [("Definition::of::<", 1), ("pub mod m_new;", 1), ("mod ", 1), ("m_new::New", 1)] {
                assert_eq!(count(&listed, what), count(&lib, what) + more, "{what} of {}", family.display());
            }
            // What the text of a component uses.
            let manifest = fs::read_to_string(family.join("Cargo.toml")).unwrap();
            for needed in ["corten-component", "corten-config", "corten-testkit", "tokio"] {
                assert!(manifest.contains(&format!("\n{needed}")), "{} lacks {needed}", family.display());
            }
        }
    }
}
