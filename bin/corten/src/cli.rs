//! The commands and their flags.
//!
//! Flags are written as Go's pflag reads them: `--flag=value` or `--flag value`, and for those of truth values `--flag` or
//! `--flag=false`.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};
use corten_config::duration;
use corten_config::schema::Stability;
use corten_runtime::Permissions;
use corten_syntax::quote;

use crate::run::flags::{FLAGS, Flag, FlagKind};
use crate::{eval, fmt, gql, output, plan, remote, run, schema, tap, validate, version};

/// Commands of the reference that this program does not have.
const NOT_IMPLEMENTED: &[&str] = &["convert", "otel", "otel-supervisor", "tools"];

const SHELLS: &[&str] = &["bash", "fish", "powershell", "zsh"];

/// Runs the command that the arguments name, and gives what to tell the user after `Error: `.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> Result<ExitCode, String> {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            output::print(&error.to_string());
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => return Err(message(&error)),
    };
    if matches.get_flag("version") {
        output::print(&version::text());
        return Ok(ExitCode::SUCCESS);
    }
    let Some((name, matches)) = matches.subcommand() else {
        output::print(&command().render_help().to_string());
        return Ok(ExitCode::SUCCESS);
    };
    let done = match name {
        "plan" => {
            let more = arguments_of(matches).len();
            return if more > 0 { Err(format!("accepts 0 arg(s), received {more}")) } else { plan::main(matches) };
        }
        "tap" => return tap::main(matches, only_argument(matches)?),
        "gql" => return gql::main(matches, only_argument(matches)?),
        "run" => run::main(&run::flags::options(matches, only_argument(matches)?)?),
        "fmt" => {
            let mut arguments = arguments_of(matches);
            let path = arguments.next();
            if arguments.len() > 0 {
                return Err(format!("accepts between 0 and 1 arg(s), received {}", 1 + arguments.len()));
            }
            fmt::main(path, fmt::Mode { write: truth(matches, "write"), test: truth(matches, "test") })
        }
        "validate" => {
            run::flags::check_config_format(matches)?;
            let permissions = Permissions { stability: stability(matches)? };
            validate::main(only_argument(matches)?, permissions, truth(matches, "json"))
        }
        "eval" => eval::main(only_argument(matches)?),
        "schema" => schema::main(),
        "completion" => {
            let shell = only_argument(matches)?;
            let shell = shell
                .parse()
                .map_err(|_| format!("invalid shell {}, must be one of {}", quote(shell), SHELLS.join(", ")))?;
            complete(shell);
            Ok(())
        }
        other => Err(format!("unknown command {} for \"corten\"", quote(other))),
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn command() -> Command {
    let flags = |wanted: &'static [&'static str]| {
        FLAGS.iter().filter(move |flag| wanted.is_empty() || wanted.contains(&flag.name)).map(argument_of)
    };
    let validated: &[&str] = &[
        "config.bypass-conversion-errors",
        "config.extra-args",
        "config.format",
        "feature.community-components.enabled",
        "stability.level",
    ];
    Command::new("corten")
        .about("A telemetry collector that runs Grafana Alloy configurations")
        .disable_version_flag(true)
        .args_override_self(true)
        .arg(switch("version", "false", "Print the version").short('v'))
        .subcommand(
            Command::new("run")
                .about("Run a configuration: a file, or the *.alloy files of a directory as one")
                .override_usage("corten run [flags] PATH")
                .args_override_self(true)
                .args(flags(&[]))
                .arg(positional("PATH", "The file or directory")),
        )
        .subcommand(
            Command::new("fmt")
                .alias("format")
                .about("Format a configuration file, or standard input")
                .override_usage("corten fmt [flags] [FILE]")
                .args_override_self(true)
                .arg(switch("write", "false", "Write the result to the file instead of standard output").short('w'))
                .arg(switch("test", "false", "Write nothing, and fail if the file is not formatted").short('t'))
                .arg(positional("FILE", "The file, or - for standard input")),
        )
        .subcommand(
            Command::new("validate")
                .about("Check a configuration without running it")
                .override_usage("corten validate [flags] PATH")
                .args_override_self(true)
                .args(flags(validated))
                .arg(switch("json", "false", "Print what was found as a JSON array"))
                .arg(positional("PATH", "The file or directory")),
        )
        .subcommand(
            Command::new("plan")
                .about("Show what a reload of the program that runs would change")
                .override_usage("corten plan [flags]")
                .after_help("Exits with 0 where nothing would change, with 2 where something would, and with 1 where the configuration would be refused.")
                .args_override_self(true)
                .args(remote::flags())
                .arg(switch("json", "false", "Print the plan as JSON"))
                .arg(positional("", "")),
        )
        .subcommand(
            Command::new("tap")
                .about("Show data that passes through a component of the program that runs")
                .override_usage("corten tap [flags] COMPONENT")
                .args_override_self(true)
                .args(remote::flags())
                .arg(switch("in", "false", "Show only what the component takes"))
                .arg(switch("out", "false", "Show only what the component hands on"))
                .arg(
                    Arg::new("filter")
                        .long("filter")
                        .help("Show only items that have these words and fields, as level=error job=~\"api.*\" timeout")
                        .allow_hyphen_values(true)
                        .value_name("string"),
                )
                .arg(
                    Arg::new("rate")
                        .long("rate")
                        .help("Show so many items a second at most")
                        .default_value("30")
                        .allow_hyphen_values(true)
                        .value_parser(parse_int)
                        .value_name("int"),
                )
                .arg(switch("json", "false", "Print each item as a line of JSON"))
                .arg(positional("COMPONENT", "The component's id, as prometheus.scrape.default")),
        )
        .subcommand(
            Command::new("gql")
                .alias("graphql")
                .about("Send a query of GraphQL to the program that runs, with --server.http.enable-graphql")
                .override_usage("corten gql [flags] QUERY")
                .args_override_self(true)
                .arg(
                    Arg::new("endpoint")
                        .long("endpoint")
                        .help("Where queries are answered")
                        .default_value(gql::ENDPOINT)
                        .value_name("string"),
                )
                .args(remote::access_flags())
                .arg(positional("QUERY", "The query, or the fields that it asks for: components { id name }")),
        )
        .subcommand(
            Command::new("eval")
                .about("Evaluate an expression of the configuration language and print its value, secrets hidden")
                .override_usage("corten eval EXPRESSION")
                .arg(positional("EXPRESSION", "The expression")),
        )
        .subcommand(Command::new("schema").about("Print all that a configuration may say, as JSON"))
        .subcommand(
            Command::new("completion")
                .about("Print the completion script of a shell")
                .override_usage("corten completion bash|fish|powershell|zsh")
                .arg(positional("SHELL", "The shell")),
        )
}

/// The arguments of a command besides its flags. How many there may be is checked by the command, whose text for that is
/// the reference's.
fn positional(name: &'static str, help: &'static str) -> Arg {
    // Whatever stands there is an argument, also an expression that begins with a minus.
    Arg::new("arguments").value_name(name).num_args(0..).help(help).hide(true).action(ArgAction::Append)
}

fn arguments_of(matches: &ArgMatches) -> impl ExactSizeIterator<Item = &str> {
    matches.get_many::<String>("arguments").unwrap_or_default().map(String::as_str)
}

fn only_argument(matches: &ArgMatches) -> Result<&str, String> {
    let mut arguments = arguments_of(matches);
    match (arguments.next(), arguments.len()) {
        (Some(only), 0) => Ok(only),
        (first, more) => Err(format!("accepts 1 arg(s), received {}", usize::from(first.is_some()) + more)),
    }
}

fn argument_of(flag: &Flag) -> Arg {
    let arg = match flag.kind {
        FlagKind::Truth | FlagKind::NoEffect => switch(flag.name, flag.default, flag.help),
        kind => Arg::new(flag.name)
            .long(flag.name)
            .help(flag.help)
            .default_values((!flag.default.is_empty()).then_some(flag.default))
            .allow_hyphen_values(true)
            .value_parser(value_parser_of(kind))
            .value_name(match kind {
                FlagKind::Duration => "duration",
                FlagKind::Count => "int",
                FlagKind::Bytes => "bytes",
                _ => "string",
            }),
    };
    arg.hide(flag.kind == FlagKind::NoEffect)
}

fn value_parser_of(kind: FlagKind) -> ValueParser {
    match kind {
        FlagKind::Duration => (|text: &str| duration::parse(text).map_err(|error| error.to_string())).into(),
        FlagKind::Count => parse_int.into(),
        FlagKind::Bytes => parse_bytes.into(),
        FlagKind::Stability => (|text: &str| text.parse::<Stability>().map_err(|error| error.to_string())).into(),
        FlagKind::Text | FlagKind::Truth | FlagKind::NoEffect => ValueParser::string(),
    }
}

/// A flag of a truth value: bare, or with `=` and one of the words that Go's `strconv.ParseBool` takes.
pub(crate) fn switch(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    let parser = |text: &str| match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {}: invalid syntax", quote(text))),
    };
    Arg::new(name)
        .long(name)
        .help(help)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .default_value(default)
        .hide_default_value(default == "false")
        .value_name("bool")
        .value_parser(parser)
}

/// A whole number, with the errors of Go's `strconv.ParseInt`.
fn parse_int(text: &str) -> Result<i64, String> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    text.parse().map_err(|error: std::num::ParseIntError| {
        let why =
            if matches!(error.kind(), PosOverflow | NegOverflow) { "value out of range" } else { "invalid syntax" };
        format!("strconv.ParseInt: parsing {}: {why}", quote(text))
    })
}

/// A number of bytes, bare or with one of the units `KiB`, `MiB`, `GiB`, `TiB`.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        unit => return Err(format!("unknown unit {}, must be one of B, KiB, MiB, GiB, TiB", quote(unit))),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{} is no number of bytes", quote(text)))?;
    number.checked_mul(unit).filter(|bytes| *bytes > 0).ok_or_else(|| format!("{} is out of range", quote(text)))
}

/// The value of a flag of a truth value.
pub(crate) fn truth(matches: &ArgMatches, name: &str) -> bool {
    matches.get_one::<bool>(name).copied().unwrap_or_default()
}

/// The level of stability that the flag of that name sets.
pub(crate) fn stability(matches: &ArgMatches) -> Result<Stability, String> {
    matches.get_one::<Stability>("stability.level").copied().ok_or_else(|| "--stability.level has no value".to_owned())
}

fn complete(shell: clap_complete::Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "corten", &mut script);
    output::print(&String::from_utf8_lossy(&script));
}

/// What is wrong with the arguments, in the words of the reference.
fn message(error: &clap::Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let argument = context(ContextKind::InvalidArg);
    let name = argument.split([' ', '=', '[']).next().unwrap_or_default();
    match error.kind() {
        ErrorKind::UnknownArgument if argument.starts_with("--") => format!("unknown flag: {name}"),
        ErrorKind::UnknownArgument if argument.starts_with('-') => {
            let letter = argument.chars().nth(1).unwrap_or('-');
            format!("unknown shorthand flag: '{letter}' in {argument}")
        }
        ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand => {
            let command = if argument.is_empty() { context(ContextKind::InvalidSubcommand) } else { argument };
            match NOT_IMPLEMENTED.contains(&command) {
                true => format!("command {} is not implemented", quote(command)),
                false => format!("unknown command {} for \"corten\"", quote(command)),
            }
        }
        ErrorKind::InvalidValue if context(ContextKind::InvalidValue).is_empty() => {
            format!("flag needs an argument: {name}")
        }
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let why = std::error::Error::source(error).map_or_else(|| "invalid value".to_owned(), ToString::to_string);
            format!("invalid argument {} for {} flag: {why}", quote(context(ContextKind::InvalidValue)), quote(name))
        }
        // The first paragraph says what is wrong, the rest how to use the command.
        _ => {
            let text = error.to_string();
            text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_in_order() {
        command().debug_assert();
        assert!(FLAGS.is_sorted_by(|a, b| a.name < b.name));
    }

    #[test]
    fn bytes_are_read_with_their_unit() {
        for (text, bytes) in
            [("1", Ok(1)), ("512B", Ok(512)), ("3KiB", Ok(3072)), ("10GiB", Ok(10 << 30)), ("1TiB", Ok(1 << 40))]
        {
            assert_eq!(parse_bytes(text), bytes, "{text}");
        }
        for (text, error) in [
            ("0", "\"0\" is out of range"),
            ("99999999TiB", "\"99999999TiB\" is out of range"),
            ("-1", "\"-1\" is no number of bytes"),
            ("GiB", "\"GiB\" is no number of bytes"),
            ("", "\"\" is no number of bytes"),
            ("1GB", "unknown unit \"GB\", must be one of B, KiB, MiB, GiB, TiB"),
        ] {
            assert_eq!(parse_bytes(text), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn flags_are_read_as_pflag_reads_them() {
        let run = |arguments: &[&str]| {
            let all = ["corten", "run"].iter().chain(arguments).copied();
            let matches = command().try_get_matches_from(all).map_err(|error| message(&error))?;
            let (_, matches) = matches.subcommand().ok_or("no command")?;
            crate::run::flags::options(matches, only_argument(matches)?)
        };
        let options = run(&["--storage.path", "-odd-", "path", "--cluster.enabled=F", "--storage.path=last"]).unwrap();
        assert_eq!((options.path.to_str(), options.storage_path.to_str()), (Some("path"), Some("last")));
        assert_eq!(options.listen_address, "127.0.0.1:12345");
        assert_eq!(options.shutdown_deadline, std::time::Duration::from_secs(600));
        assert_eq!(options.queue_bytes_max, None);
        // A bare flag of a truth value takes no argument: what follows is the path.
        assert!(run(&["--disable-reporting", "true"]).is_ok_and(|options| options.path.to_str() == Some("true")));
        assert_eq!(run(&["a", "--", "--b"]).unwrap_err(), "accepts 1 arg(s), received 2");
        let negative = run(&["a", "--feature.component-shutdown-deadline=-1s"]).unwrap_err();
        assert_eq!(negative, "--feature.component-shutdown-deadline must not be negative");
    }
}
