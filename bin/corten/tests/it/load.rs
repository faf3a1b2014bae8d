//! `run`: the first load, the log, reloads.

use crate::support::{Corten, Folder};

#[test]
fn what_runs_answers_and_logs_as_configured() {
    let corten = Corten::start("logging {\n\tlevel = \"debug\"\n}\n");
    assert_eq!(corten.get("/-/ready").body, "Alloy is ready.\n");
    assert_eq!(corten.get("/-/healthy").body, "All Alloy components are healthy.\n");
    assert_eq!(corten.get("/api/v0/web/components").body, "[]");
    let line = corten.line("now listening");
    let rest = format!(" level=info msg=\"now listening for http traffic\" service=http addr={}", corten.address);
    assert!(line.starts_with("ts=20") && line.ends_with(&rest), "{line}");
    corten.line("{^_^} Alloy is running");
    let all = corten.lines();
    let at = |text: &str| all.iter().position(|line| line.contains(text)).unwrap_or_else(|| panic!("{text}: {all:#?}"));
    assert!(at("starting complete graph evaluation") < at("finished node evaluation"));
    assert!(at("finished node evaluation") < at("now listening"));
    let line = corten.line("starting complete graph evaluation");
    assert!(line.contains(" controller_path=/ controller_id=\"\""), "{line}");
    corten.end();
}

#[test]
fn an_empty_configuration_runs_with_the_default_log() {
    let corten = Corten::start("");
    let line = corten.line("starting complete graph evaluation");
    assert!(line.starts_with("ts="), "{line}");
    let metrics = corten.get("/metrics").body;
    for name in ["alloy_build_info{", "process_resident_memory_bytes ", "alloy_config_hash{cluster_name=\"\",sha256=\""]
    {
        assert!(metrics.lines().any(|line| line.starts_with(name)), "{name}: {metrics}");
    }
    let seed = std::fs::read_to_string(corten.folder.path().join("data/alloy_seed.json")).expect("the seed");
    assert!(seed.contains("\"UID\":\"") && seed.contains("\"created_at\":\"20"), "{seed}");
    corten.end();
}

#[test]
fn the_format_of_the_log_counts_from_its_first_line_and_goes_with_its_block() {
    let corten = Corten::start("logging {\n\tformat = \"json\"\n\tlevel  = \"info\"\n}\n");
    assert!(corten.lines().iter().all(|line| line.starts_with("{\"ts\":\"")), "{:#?}", corten.lines());
    let line = corten.line("now listening");
    assert!(
        line.contains("\"level\":\"info\",\"msg\":\"now listening for http traffic\",\"service\":\"http\",\"addr\":\""),
        "{line}"
    );
    assert_eq!(corten.reload("").status, 200);
    assert!(corten.line("config reloaded").starts_with("ts="));
    assert_eq!(corten.reload("logging {\n\tlevel = \"warn\"\n}\n").status, 200);
    assert_eq!(corten.reload("logging {\n\tlevel = \"error\"\n}\n").status, 200);
    let lines = corten.end();
    let told = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert_eq!((told("config reloaded"), told("shutting down")), (1, 0), "{lines:#?}");
}

#[test]
fn a_configuration_that_is_wrong_ends_the_program_with_its_diagnostics() {
    let folder = Folder::new("logging {\n\tlevel = \"loud\"\n}\n");
    let (stdout, stderr) = folder.refused(&[]);
    assert_eq!(stdout, "\n");
    assert!(stderr.starts_with("Error: ") && stderr.contains("unrecognized log level \"loud\"\n"), "{stderr}");
    assert!(stderr.contains("\n  |             ^^^^^^\n") || stderr.contains("2 | "), "{stderr}");
    assert!(stderr.ends_with("\nError: could not perform the initial load successfully\n"), "{stderr}");
    assert!(!stderr.contains("level=info"), "the log is lost: {stderr}");

    folder.write("logging {\n");
    let (_, stderr) = folder.refused(&[]);
    assert!(stderr.starts_with(&format!("Error: {}:2:1: expected }}, got EOF\n", folder.config_text())), "{stderr}");
    assert!(stderr.ends_with("\nError: could not perform the initial load successfully\n"), "{stderr}");

    folder.write("nonsense \"x\" { }\n");
    let (_, stderr) = folder.refused(&[]);
    assert!(stderr.contains("cannot find the definition of component name \"nonsense\"\n"), "{stderr}");

    std::fs::remove_file(folder.config()).expect("there is a file");
    let (_, stderr) = folder.refused(&[]);
    let path = folder.config_text();
    assert_eq!(stderr, format!("Error: reading config path \"{path}\": stat {path}: no such file or directory\n"));
}

#[test]
fn a_reload_that_is_refused_changes_nothing() {
    let corten = Corten::start("logging {\n\tlevel = \"debug\"\n}\n");
    let hash = |corten: &Corten| {
        let metrics = corten.get("/metrics").body;
        metrics.lines().find(|line| line.starts_with("alloy_config_hash")).map(str::to_owned)
    };
    let first = hash(&corten);
    let refused = corten.reload("logging {\n\tformat = \"json\"\n\tlevel  = \"loud\"\n}\n");
    assert_eq!(refused.status, 400);
    assert!(refused.body.starts_with("error during the initial load: "), "{}", refused.body);
    assert!(refused.body.contains("unrecognized log level \"loud\""), "{}", refused.body);
    assert!(refused.has_header("X-Content-Type-Options: nosniff"), "{refused:?}");
    let line = corten.line("failed to reload config");
    assert!(line.starts_with("ts=") && line.contains("level=error"), "{line}");
    let refused = corten.reload("logging {\n");
    assert!(
        refused.body.starts_with(&format!("reading config path \"{}\": ", corten.folder.config_text())),
        "{refused:?}"
    );
    assert_eq!(hash(&corten), first);
    let metrics = corten.get("/metrics").body;
    assert!(metrics.contains("\nalloy_config_last_load_successful 0\n"), "{metrics}");
    assert!(metrics.contains("\nalloy_config_load_failures_total 2\n"), "{metrics}");
    let reloaded = corten.reload("logging {\n\tlevel = \"info\"\n}\n");
    assert_eq!((reloaded.status, &*reloaded.body), (200, "config reloaded\n"));
    assert_ne!(hash(&corten), first);
    assert!(corten.get("/metrics").body.contains("\nalloy_config_last_load_successful 1\n"));
    corten.line("reload requested via /-/reload endpoint");
    corten.end();
}

#[test]
fn an_address_in_use_is_told_at_once() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("an address");
    let address = other.local_addr().expect("an address").to_string();
    let (_, stderr) = Folder::new("").refused(&["--server.http.listen-addr", &address]);
    assert_eq!(stderr, format!("Error: failed to listen on {address}: address already in use\n"));
}

#[test]
fn data_belong_to_one_process() {
    let corten = Corten::start("");
    let storage = corten.folder.path().join("data").display().to_string();
    let (_, stderr) = Folder::new("").refused(&["--storage.path", &storage]);
    assert_eq!(stderr, format!("Error: storage path \"{storage}\" is in use by another process\n"));
    corten.end();
}

#[test]
fn flags_of_the_reference_that_ask_for_what_is_done_are_accepted() {
    let flags = [
        "--cluster.advertise-address=10.0.0.1",
        "--cluster.advertise-interfaces=all",
        "--cluster.enable-tls=false",
        "--cluster.enabled=false",
        "--cluster.join-addresses=a:1",
        "--cluster.max-join-peers=0",
        "--cluster.name=x",
        "--cluster.node-name=one",
        "--cluster.rejoin-interval=0",
        "--cluster.use-discovery-v1",
        "--cluster.wait-for-size=0",
        "--cluster.wait-timeout=0s",
        "--config.bypass-conversion-errors=false",
        "--config.extra-args=",
        "--config.format=alloy",
        "--disable-reporting",
        "--feature.community-components.enabled=true",
        "--feature.component-shutdown-deadline=1m",
        "--feature.prometheus.direct-fanout.enabled",
        "--server.http.disable-support-bundle",
        "--server.http.enable-graphql=false",
        "--server.http.enable-pprof=true",
        "--server.http.memory-addr=other.internal:1",
        "--server.http.ui-path-prefix=/ui",
        "--stability.level=experimental",
        "--storage.queue.max-bytes=1GiB",
        "--windows.priority=normal",
    ];
    let corten = Corten::start_in(Folder::new(""), &flags);
    let notice = "Flag --cluster.use-discovery-v1 has been deprecated, This flag is deprecated and has no effect.";
    assert_eq!(corten.line("has been deprecated"), notice);
    let peers = corten.get("/ui/api/v0/web/peers").body;
    let port = corten.address.rsplit(':').next().expect("a port");
    let expected = format!(r#"[{{"name":"one","addr":"10.0.0.1:{port}","isSelf":true,"state":"participant"}}]"#);
    assert_eq!(peers, expected);
    corten.end();
}
