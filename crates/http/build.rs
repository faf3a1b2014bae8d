//! Puts the web interface, which is built in `ui/dist`, into the program: a table of its files, compressed.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use flate2::Compression;
use flate2::write::GzEncoder;

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where the crate is"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo says where to write"));
    let dist = root.join("../../ui/dist");
    println!("cargo::rerun-if-changed={}", dist.display());
    let mut files = Vec::new();
    collect(&dist, "", &mut files);
    assert!(
        files.iter().any(|(path, _)| path == "index.html"),
        "there is no web interface in ui/dist: `cargo xtask ui` builds it"
    );
    files.sort();
    let mut table = String::from("&[\n");
    for (number, (path, bytes)) in files.iter().enumerate() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).expect("memory");
        let compressed = encoder.finish().expect("memory");
        let file = out.join(format!("asset{number}.gz"));
        fs::write(&file, &compressed).expect("the folder of the build can be written to");
        writeln!(
            table,
            "Asset {{ path: {path:?}, content_type: {:?}, etag: \"\\\"{:016x}\\\"\", bytes: {}, gzip: include_bytes!({:?}) }},",
            content_type(path),
            hash(bytes),
            bytes.len(),
            file.display().to_string(),
        )
        .expect("memory");
    }
    table.push_str("]\n");
    fs::write(out.join("assets.rs"), table).expect("the folder of the build can be written to");
}

/// The files of a folder with their paths below it.
fn collect(folder: &Path, prefix: &str, into: &mut Vec<(String, Vec<u8>)>) {
    println!("cargo::rerun-if-changed={}", folder.display());
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        if path.is_dir() {
            collect(&path, &format!("{prefix}{name}/"), into);
        } else if let Ok(bytes) = fs::read(&path) {
            println!("cargo::rerun-if-changed={}", path.display());
            into.push((format!("{prefix}{name}"), bytes));
        }
    }
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "webmanifest" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        other => panic!("the type of *.{other} files is not known: {path}"),
    }
}

/// FNV-1a, 64 bits: it only tells versions of a file apart.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
