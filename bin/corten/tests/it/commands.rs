//! The commands that run nothing.

use crate::support::{Folder, output, output_of_input};

const UNFORMATTED: &str = "logging {\nlevel=\"debug\"\n  format = \"json\" }\n";
const FORMATTED: &str = "logging {\n\tlevel  = \"debug\"\n\tformat = \"json\"\n}\n";

fn refused(arguments: &[&str]) -> String {
    let (success, stdout, stderr) = output(arguments);
    assert!(!success && stdout.is_empty(), "{arguments:?}: {stdout}{stderr}");
    stderr
}

#[test]
fn help_and_version_are_printed() {
    for arguments in [&[][..], &["--help"], &["help"], &["-h"]] {
        let (success, stdout, stderr) = output(arguments);
        assert!(success && stdout.contains("Usage: corten [COMMAND]") && stderr.is_empty(), "{arguments:?}: {stderr}");
    }
    for arguments in [["--version"], ["-v"]] {
        let (success, stdout, _) = output(&arguments);
        let first = format!("corten, version v{} (branch: ", env!("CARGO_PKG_VERSION"));
        assert!(success && stdout.starts_with(&first) && stdout.contains("\n  platform:         "), "{stdout}");
    }
    let (_, help, _) = output(&["run", "--help"]);
    for flag in ["--server.http.listen-addr <string>", "--storage.queue.max-bytes <bytes>", "[default: 10m]"] {
        assert!(help.contains(flag), "{flag}: {help}");
    }
}

#[test]
fn what_is_wrong_with_arguments_is_told_in_one_line() {
    for (arguments, expected) in [
        (&["run"][..], "accepts 1 arg(s), received 0"),
        (&["run", "a", "b"], "accepts 1 arg(s), received 2"),
        (&["validate"], "accepts 1 arg(s), received 0"),
        (&["fmt", "a", "b"], "accepts between 0 and 1 arg(s), received 2"),
        (&["run", "--nonsense", "a"], "unknown flag: --nonsense"),
        (&["run", "--nonsense=1", "a"], "unknown flag: --nonsense"),
        (&["fmt", "-x"], "unknown shorthand flag: 'x' in -x"),
        (&["nonsense"], "unknown command \"nonsense\" for \"corten\""),
        (&["convert"], "command \"convert\" is not implemented"),
        (&["run", "a", "--storage.path"], "flag needs an argument: --storage.path"),
        (
            &["run", "a", "--cluster.enabled=maybe"],
            "invalid argument \"maybe\" for \"--cluster.enabled\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax",
        ),
        (
            &["run", "a", "--cluster.rejoin-interval=5"],
            "invalid argument \"5\" for \"--cluster.rejoin-interval\" flag: time: missing unit in duration \"5\"",
        ),
        (
            &["run", "a", "--cluster.max-join-peers=x"],
            "invalid argument \"x\" for \"--cluster.max-join-peers\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            &["run", "a", "--cluster.wait-for-size=99999999999999999999"],
            "invalid argument \"99999999999999999999\" for \"--cluster.wait-for-size\" flag: strconv.ParseInt: parsing \
             \"99999999999999999999\": value out of range",
        ),
        (&["run", ""], "path argument not provided"),
        (
            &["run", "a", "--stability.level=solid"],
            "invalid argument \"solid\" for \"--stability.level\" flag: invalid stability level \"solid\"",
        ),
        (
            &["run", "a", "--storage.queue.max-bytes=1kg"],
            "invalid argument \"1kg\" for \"--storage.queue.max-bytes\" flag: unknown unit \"kg\", must be one of B, KiB, \
             MiB, GiB, TiB",
        ),
        (&["completion", "tcsh"], "invalid shell \"tcsh\", must be one of bash, fish, powershell, zsh"),
    ] {
        assert_eq!(refused(arguments), format!("Error: {expected}\n"), "{arguments:?}");
    }
}

#[test]
fn a_flag_that_asks_for_what_is_not_there_is_refused() {
    for (flags, expected) in [
        (&["--cluster.enabled"][..], "--cluster.enabled is not implemented"),
        (&["--cluster.enabled=true"], "--cluster.enabled is not implemented"),
        (&["--config.format=otelcol"], "--config.format=otelcol is not implemented, only alloy is"),
        (&["--config.format", "toml"], "unrecognized config format \"toml\""),
        (
            &["--server.http.enable-graphql"],
            "'--server.http.enable-graphql' can only be used at experimental stability level. Use \
             --stability.level=experimental to enable.",
        ),
        (
            &["--feature.prometheus.direct-fanout.enabled"],
            "'--feature.prometheus.direct-fanout.enabled' can only be used at experimental stability level. Use \
             --stability.level=experimental to enable.",
        ),
        (&["--windows.priority=high"], "--windows.priority is only available on Windows"),
        (
            &["--cluster.join-addresses=a,b", "--cluster.discover-peers=c"],
            "at most one of join peers and discover peers may be set, got join peers [\"a\" \"b\"] and discover peers \"c\"",
        ),
    ] {
        let arguments: Vec<&str> = ["run", "nowhere.alloy"].into_iter().chain(flags.iter().copied()).collect();
        assert_eq!(refused(&arguments), format!("Error: {expected}\n"), "{flags:?}");
    }
    let error = refused(&["validate", "nowhere.alloy", "--config.format=static"]);
    assert_eq!(error, "Error: --config.format=static is not implemented, only alloy is\n");
}

#[test]
fn a_file_is_formatted_to_standard_output_in_place_or_not_at_all() {
    let folder = Folder::new(UNFORMATTED);
    let file = folder.config_text();
    for name in ["fmt", "format"] {
        assert_eq!(output(&[name, &file]), (true, FORMATTED.to_owned(), String::new()));
    }
    assert_eq!(refused(&["fmt", "-t", &file]), format!("Error: file {file} is not formatted correctly\n"));
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), UNFORMATTED);
    assert_eq!(output(&["fmt", "--write", &file]), (true, String::new(), String::new()));
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), FORMATTED);
    assert_eq!(output(&["fmt", "--test", &file]), (true, String::new(), String::new()));
}

#[test]
fn standard_input_is_formatted() {
    for arguments in [&["fmt"][..], &["fmt", "-"]] {
        assert_eq!(output_of_input(arguments, UNFORMATTED), (true, FORMATTED.to_owned(), String::new()));
    }
    let expected = "Error: file <stdin> is not formatted correctly\n".to_owned();
    assert_eq!(output_of_input(&["fmt", "-t"], UNFORMATTED), (false, String::new(), expected));
}

#[test]
fn what_cannot_be_formatted_is_told() {
    let folder = Folder::new("a = ]\nb = )\n");
    let (file, dir) = (folder.config_text(), folder.path().display().to_string());
    assert_eq!(refused(&["fmt", "-w", "-t", &file]), "Error: cannot use -w/--write and -t/--test at the same time\n");
    assert_eq!(refused(&["fmt", "-w"]), "Error: cannot use -w with standard input\n");
    assert_eq!(refused(&["fmt", &dir]), "Error: cannot format a directory\n");
    assert_eq!(refused(&["fmt", "/nowhere"]), "Error: stat /nowhere: no such file or directory\n");
    let errors = refused(&["fmt", "-w", &file]);
    let expected = format!(
        "{file}:1:5: expected expression, got ]\n{file}:2:5: expected expression, got )\nError: encountered errors during \
         formatting\n"
    );
    assert_eq!(errors, expected);
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), "a = ]\nb = )\n");
}

#[test]
fn a_good_configuration_is_validated_in_silence() {
    let folder = Folder::new(FORMATTED);
    assert_eq!(output(&["validate", &folder.config_text()]), (true, String::new(), String::new()));
    assert_eq!(output(&["validate", &folder.path().display().to_string()]), (true, String::new(), String::new()));
    assert_eq!(output(&["validate", "--json", &folder.config_text()]), (true, "[]\n".to_owned(), String::new()));
}

#[test]
fn all_that_is_wrong_with_a_configuration_is_shown_at_its_place() {
    let folder = Folder::new(
        "logging {\n\tlevel = \"loud\"\n\tcolour = true\n}\n\nhttp {\n\ttls {\n\t\tcert_pem = \"x\"\n\t}\n}\n",
    );
    let file = folder.config_text();
    let errors = refused(&["validate", &file]);
    let expected = format!(
        "Error: {file}:2:10: unrecognized log level \"loud\"\n\n1 | logging {{\n2 |     level = \"loud\"\n  |             ^^^^^^\n\
         3 |     colour = true\n"
    );
    assert!(
        errors.contains(&expected) || errors.contains(&expected.replacen("unrec", "\"loud\" unrec", 1)),
        "{errors}"
    );
    assert!(errors.contains(&format!("Error: {file}:3:2: unrecognized attribute name \"colour\"\n")), "{errors}");
    assert!(errors.contains("must specify either key_pem or key_file\n"), "{errors}");
    assert!(errors.ends_with("\nError: validation failed\n"), "{errors}");
}

#[test]
fn a_warning_fails_a_validation() {
    let folder = Folder::new("logging {\n\tlevel = env(\"LEVEL\")\n}\n");
    let file = folder.config_text();
    let errors = refused(&["validate", &file]);
    let expected = format!(
        "Warning: {file}:2:10: this stdlib function is deprecated; please refer to the documentation for updated usage and \
         alternatives: env is now sys.env\n"
    );
    assert!(errors.starts_with(&expected), "{errors}");
    let (success, json, errors) = output(&["validate", "--json", &file]);
    assert!(!success && errors == "Error: validation failed\n", "{errors}");
    let json: serde_json::Value = serde_json::from_str(&json).expect("json");
    let found = &json[0];
    assert_eq!((&found["severity"], &found["file"]), (&"warning".into(), &file.as_str().into()));
    assert_eq!((&found["line"], &found["column"]), (&2.into(), &10.into()));
    assert_eq!((&found["end_line"], &found["end_column"]), (&2.into(), &12.into()));
}

#[test]
fn a_configuration_that_cannot_be_read_fails_a_validation() {
    assert_eq!(refused(&["validate", "/nowhere"]), "Error: stat /nowhere: no such file or directory\n");
    let folder = Folder::new("logging {\n");
    let (success, json, _) = output(&["validate", "--json", &folder.config_text()]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("json");
    assert!(!success && json[0]["severity"] == "error" && json[0]["line"] == 2, "{json}");
}

#[test]
fn an_expression_is_evaluated() {
    for (expression, value) in [
        ("1 + 2", "3\n"),
        ("-1", "-1\n"),
        ("{b = [1, \"x\"], a = null}", "{\n\ta = null,\n\tb = [1, \"x\"],\n}\n"),
        ("string.join([\"a\", \"b\"], \"-\")", "\"a-b\"\n"),
    ] {
        let arguments: &[&str] =
            if expression.starts_with('-') { &["eval", "--", expression] } else { &["eval", expression] };
        assert_eq!(output(arguments), (true, value.to_owned(), String::new()), "{expression}");
    }
    let errors = refused(&["eval", "1 + nobody"]);
    assert!(
        errors.starts_with("Error: <expression>:1:5: identifier \"nobody\" does not exist\n\n1 | 1 + nobody\n"),
        "{errors}"
    );
    let errors = refused(&["eval", "1 +"]);
    assert!(errors.starts_with("Error: <expression>:1:4: expected expression, got EOF\n"), "{errors}");
}

#[test]
fn the_schema_lists_blocks_functions_and_constants() {
    let (success, text, _) = output(&["schema"]);
    let schema: serde_json::Value = serde_json::from_str(&text).expect("json");
    assert!(success);
    let logging = &schema["config_blocks"]["logging"];
    assert_eq!(logging["stability"], "generally-available");
    let names: Vec<&str> =
        logging["arguments"].as_array().expect("a list").iter().map(|a| a["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["level", "format", "destination", "write_to"]);
    let blocks = schema["config_blocks"]["http"]["blocks"].as_array().expect("a list");
    assert!(blocks.iter().any(|block| block["path"] == "auth > filter"), "{blocks:?}");
    assert!(schema["stdlib"].get("string.join").is_some());
    assert!(schema["constants"].as_array().expect("a list").contains(&"constants.hostname".into()));
}

#[test]
fn each_shell_has_a_completion_script() {
    for shell in ["bash", "fish", "powershell", "zsh"] {
        let (success, script, errors) = output(&["completion", shell]);
        assert!(success && script.contains("server.http.listen-addr") && errors.is_empty(), "{shell}: {errors}");
    }
}
