//! What is known of how the program was built.

use corten_http::BuildInfo;

/// The version, `v1.2.3`.
pub(crate) const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// How the program was built. Whoever builds a release says so in the environment.
pub(crate) const BUILD: BuildInfo = BuildInfo {
    version: VERSION,
    revision: match option_env!("CORTEN_REVISION") {
        Some(revision) => revision,
        None => "unknown",
    },
    branch: match option_env!("CORTEN_BRANCH") {
        Some(branch) => branch,
        None => "unknown",
    },
    user: match option_env!("CORTEN_BUILD_USER") {
        Some(user) => user,
        None => "unknown",
    },
    date: match option_env!("CORTEN_BUILD_DATE") {
        Some(date) => date,
        None => "unknown",
    },
};

/// A constant of the language: `os`, `arch`, `hostname`.
pub(crate) fn constant(name: &str) -> String {
    let value = corten_config::stdlib::lookup("constants").and_then(|constants| constants.field(name));
    value.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// What `--version` prints.
pub(crate) fn text() -> String {
    format!(
        "corten, version {VERSION} (branch: {}, revision: {})\n  build user:       {}\n  build date:       {}\n  \
         platform:         {}/{}\n",
        BUILD.branch,
        BUILD.revision,
        BUILD.user,
        BUILD.date,
        constant("os"),
        constant("arch"),
    )
}
