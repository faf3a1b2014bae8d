//! Which distribution of Linux runs, and its version: told as the reference tells them, which asks the files that
//! distributions put beside `os-release` first.

use super::outside::Outside;

/// The name in lower case and the version; empty where nothing tells them.
pub(super) async fn of(outside: &Outside) -> (String, String) {
    let lsb = outside.file("/etc/lsb-release").await.unwrap_or_default();
    let lsb = pairs(&lsb);
    let lsb = |name: &str| value(&lsb, name).map(|value| value.replace('"', "")).unwrap_or_default();
    for (file, told) in FILES {
        let Ok(content) = outside.file(&format!("/etc/{file}")).await else { continue };
        // Some distributions have files in which nothing stands.
        if content.len() <= 4 {
            continue;
        }
        let first = content.lines().next().unwrap_or_default().to_owned();
        return match told {
            Told::RedHat(name) => red_hat(&content, *name),
            Told::Slackware => {
                ("slackware".to_owned(), content.replace('\n', "").to_lowercase().replacen("slackware ", "", 1))
            }
            Told::Debian => match &*lsb("DISTRIB_ID") {
                "Ubuntu" => ("ubuntu".to_owned(), lsb("DISTRIB_RELEASE")),
                "LinuxMint" => ("linuxmint".to_owned(), lsb("DISTRIB_RELEASE")),
                id @ ("Kylin" | "uos" | "Deepin") => (id.to_owned(), lsb("DISTRIB_RELEASE")),
                _ if outside.path("/usr/bin/raspi-config").exists() => ("raspbian".to_owned(), first),
                _ => ("debian".to_owned(), first),
            },
            Told::Suse => suse(&content),
            Told::Arch => ("arch".to_owned(), lsb("DISTRIB_RELEASE")),
            Told::Alpine => ("alpine".to_owned(), first),
            Told::Release => release(&content),
        };
    }
    let name = match &*lsb("DISTRIB_ID") {
        "RedHat" => "redhat".to_owned(),
        "ScientificSL" => "scientific".to_owned(),
        other => other.to_lowercase(),
    };
    let version = if name.is_empty() { String::new() } else { lsb("DISTRIB_RELEASE") };
    (name, version)
}

/// What a file tells.
enum Told {
    /// A line such as `Fedora release 40 (Forty)`, and the name where the line does not tell it.
    RedHat(Option<&'static str>),
    Slackware,
    Debian,
    Suse,
    Arch,
    Alpine,
    Release,
}

/// The files below `/etc`, in the order in which they are asked.
const FILES: &[(&str, Told)] = &[
    ("oracle-release", Told::RedHat(Some("oracle"))),
    ("enterprise-release", Told::RedHat(Some("oracle"))),
    ("slackware-version", Told::Slackware),
    ("debian_version", Told::Debian),
    ("neokylin-release", Told::RedHat(None)),
    ("redhat-release", Told::RedHat(None)),
    ("system-release", Told::RedHat(None)),
    ("gentoo-release", Told::RedHat(Some("gentoo"))),
    ("SuSE-release", Told::Suse),
    ("arch-release", Told::Arch),
    ("alpine-release", Told::Alpine),
    ("os-release", Told::Release),
];

fn pairs(text: &str) -> Vec<(&str, &str)> {
    text.lines().filter_map(|line| line.split_once('=')).collect()
}

/// The value of a name: the last one counts.
fn value<'a>(pairs: &[(&str, &'a str)], name: &str) -> Option<&'a str> {
    pairs.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

fn red_hat(content: &str, name: Option<&str>) -> (String, String) {
    let line = content.replace('\n', "").to_lowercase();
    let name = match name {
        Some(name) => name,
        None if line.contains("red hat") => "redhat",
        None => line.split(' ').next().unwrap_or_default(),
    };
    let version = if line.contains("rawhide") { "rawhide" } else { number_after(&line, "release ") };
    (name.to_owned(), version.to_owned())
}

/// The version after some words: a letter or a digit, and then digits and dots.
fn number_after<'a>(line: &'a str, words: &str) -> &'a str {
    let found = line.match_indices(words).find_map(|(at, _)| {
        let rest = &line[at + words.len()..];
        let first = rest.chars().next().filter(|c| c.is_ascii_alphanumeric() || *c == '_')?.len_utf8();
        let len = rest[first..].find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len() - first);
        Some(&rest[..first + len])
    });
    found.unwrap_or_default()
}

fn suse(content: &str) -> (String, String) {
    let is_open = content.replace('\n', "").to_lowercase().contains("opensuse");
    let mut version = String::new();
    for line in content.lines() {
        match (number_after(line, "VERSION = "), number_after(line, "PATCHLEVEL = ")) {
            ("", "") => {}
            ("", level) => version = format!("{version}.{level}"),
            (number, _) => version = number.to_owned(),
        }
    }
    (if is_open { "opensuse" } else { "suse" }.to_owned(), version)
}

/// What `os-release` tells.
fn release(content: &str) -> (String, String) {
    let pairs = pairs(content);
    let of = |name| value(&pairs, name).unwrap_or_default().trim_matches(['"', '\'']).to_owned();
    let name = of("ID");
    (if name == "amzn" { "amazon".to_owned() } else { name }, of("VERSION_ID"))
}

#[cfg(test)]
mod tests {
    use corten_testkit::host;

    use super::*;

    async fn found(files: &[(&str, &str)]) -> String {
        let world = host("otelcol.processor.resourcedetection.a");
        world.write("etc/x", "");
        for (path, content) in files {
            world.write(path, *content);
        }
        let outside = Outside::with(|_| None, world.path(""), None, "test").await.unwrap();
        let (name, version) = of(&outside).await;
        format!("{name} {version}")
    }

    #[tokio::test]
    async fn distributions_are_told_by_the_files_of_their_own() {
        const RELEASE: (&str, &str) = ("etc/os-release", "NAME=\"X Y\"\nID=\"x\"\nVERSION_ID=\"1.2\"\n");
        for (files, want) in [
            (&[][..], " "),
            (&[RELEASE], "x 1.2"),
            (&[("etc/os-release", "ID=amzn\nVERSION_ID=2023")], "amazon 2023"),
            (&[RELEASE, ("etc/debian_version", "12.5\n")], "debian 12.5"),
            (
                &[
                    RELEASE,
                    ("etc/debian_version", "trixie/sid\n"),
                    ("etc/lsb-release", "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=\"24.04\"\n"),
                ],
                "ubuntu 24.04",
            ),
            (&[RELEASE, ("usr/bin/raspi-config", "x"), ("etc/debian_version", "12.1\n")], "raspbian 12.1"),
            (&[RELEASE, ("etc/redhat-release", "Red Hat Enterprise Linux release 9.4 (Plow)\n")], "redhat 9.4"),
            (&[RELEASE, ("etc/redhat-release", "Fedora release 40 (Forty)\n")], "fedora 40"),
            (&[RELEASE, ("etc/redhat-release", "Fedora release Rawhide\n")], "fedora rawhide"),
            (&[("etc/oracle-release", "Oracle Linux Server release 8.9"), ("etc/redhat-release", "x")], "oracle 8.9"),
            (&[RELEASE, ("etc/alpine-release", "3.20.1\n")], "alpine 3.20.1"),
            (&[RELEASE, ("etc/arch-release", "")], "x 1.2"),
            (&[("etc/SuSE-release", "openSUSE 11\nVERSION = 11\nPATCHLEVEL = 4\n")], "opensuse 11.4"),
            (&[("etc/slackware-version", "Slackware 15.0\n")], "slackware 15.0"),
            (&[("etc/lsb-release", "DISTRIB_ID=Amazon\nDISTRIB_RELEASE=1\n")], "amazon 1"),
        ] {
            assert_eq!(found(files).await, want, "{files:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_file_makes_it_panic(text in "(release |VERSION = |=|ID|[a-zé0-9.\n]){0,12}") {
            let _ = (red_hat(&text, None), suse(&text), release(&text));
        }
    }
}
