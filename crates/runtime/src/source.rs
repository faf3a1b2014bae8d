//! Reading a configuration: a file, or the `*.alloy` files of a directory as one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use corten_syntax::{Block, Diagnostics, SourceFile, Stmt, check_encoding, check_top_level, parse};
use sha2::{Digest as _, Sha256};

/// A configuration that was read and parsed.
#[derive(Clone, Debug)]
pub struct Source {
    /// The files, in the order of their paths.
    pub files: Vec<Arc<SourceFile>>,
    /// The blocks of all files, in textual order.
    pub blocks: Vec<Arc<Block>>,
    /// SHA-256 over the texts of all files, in hexadecimal.
    pub sha256: String,
}

/// Why a configuration could not be read.
#[derive(Clone, Debug)]
pub enum SourceError {
    /// The file system refused, or the text is not UTF-8.
    Read(String),
    /// The text is not a configuration.
    Syntax(Diagnostics),
}

impl std::fmt::Display for SourceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SourceError::Read(error) => f.write_str(error),
            SourceError::Syntax(diagnostics) => diagnostics.fmt(f),
        }
    }
}

/// The ending of the files of a directory that are read.
const EXTENSION: &[u8] = b".alloy";

/// Reads and parses what lies at a path.
///
/// # Errors
///
/// A path that cannot be read, a text that is not UTF-8, and all syntax errors of all files.
pub fn read(path: &Path) -> Result<Source, SourceError> {
    from_texts(&read_texts(path)?)
}

/// Reads what lies at a path: names and texts of files.
///
/// # Errors
///
/// A path that cannot be read, and a text that is not UTF-8.
pub fn read_texts(path: &Path) -> Result<Vec<(String, String)>, SourceError> {
    let mut texts = Vec::new();
    let failed = |step: &str, path: &Path, error: &std::io::Error| {
        SourceError::Read(format!("{step} {}: {}", path.display(), io_error_text(error)))
    };
    for file in files(path).map_err(|error| failed("stat", path, &error))? {
        let name = file.display().to_string();
        let bytes = std::fs::read(&file).map_err(|error| failed("open", &file, &error))?;
        let text = check_encoding(&bytes).map_err(|error| SourceError::Read(error.to_string()))?;
        texts.push((name, text.to_owned()));
    }
    Ok(texts)
}

/// Parses texts, each with the name of its file.
///
/// # Errors
///
/// All syntax errors.
pub fn from_texts(texts: &[(String, String)]) -> Result<Source, SourceError> {
    let mut hash = Sha256::new();
    let mut diagnostics = Diagnostics::new();
    let mut source = Source { files: Vec::new(), blocks: Vec::new(), sha256: String::new() };
    for (name, text) in texts {
        hash.update(text.as_bytes());
        let parsed = parse(name, text);
        let failed = parsed.diagnostics.has_errors();
        for diagnostic in parsed.diagnostics {
            diagnostics.push(diagnostic);
        }
        if !failed {
            for diagnostic in check_top_level(&parsed.file) {
                diagnostics.push(diagnostic);
            }
        }
        source.files.push(Arc::clone(&parsed.file.source));
        source.blocks.extend(parsed.file.body.iter().filter_map(|statement| match statement {
            Stmt::Block(block) => Some(Arc::clone(block)),
            Stmt::Attr(_) => None,
        }));
    }
    if diagnostics.has_errors() {
        return Err(SourceError::Syntax(diagnostics));
    }
    source.sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(source)
}

/// An error of the system as texts word it: `no such file or directory`.
pub fn io_error_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}

fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        // A link to a file counts as the file.
        let named = file.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(EXTENSION));
        if named && std::fs::metadata(&file)?.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_one_configuration_of_its_alloy_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("b.alloy"), "b {\n}\n").unwrap();
        std::fs::write(dir.path().join("a.alloy"), "a {\n}\n").unwrap();
        std::fs::write(dir.path().join("c.river"), "nonsense").unwrap();
        std::fs::create_dir(dir.path().join("d.alloy")).unwrap();
        let source = read(dir.path()).unwrap();
        let names: Vec<&str> = source.blocks.iter().map(|block| &*block.name).collect();
        assert_eq!(names, ["a", "b"]);
        let expected = Sha256::digest(b"a {\n}\nb {\n}\n");
        assert_eq!(source.sha256, expected.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }

    #[test]
    fn syntax_errors_of_all_files_are_reported() {
        let texts = [("x".to_owned(), "a = \n".to_owned()), ("y".to_owned(), "b = 1\n".to_owned())];
        let Err(SourceError::Syntax(diagnostics)) = from_texts(&texts) else { panic!("accepted") };
        let texts: Vec<String> = diagnostics.into_iter().map(|d| d.to_string()).collect();
        assert_eq!(texts, ["x:2:1: expected expression, got EOF", "y:1:1: unrecognized attribute b"]);
    }
}
