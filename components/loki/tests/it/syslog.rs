//! `loki.source.syslog` and a sender that is not ours: util-linux's `logger`.

use std::io::Write as _;
use std::process::{Command, Stdio};

use corten_loki::COMPONENTS;
use corten_testkit::{Pipeline, load, until, until_some};

/// The port of the listener with this protocol.
async fn port(pipeline: &Pipeline, listener: &str) -> String {
    until_some("it listens", || {
        let logs = pipeline.logs();
        let line = logs.lines().find(|line| {
            line.contains("syslog listening on address") && line.contains(&format!("component_id={listener} "))
        })?;
        let address = line.split(" addr=").nth(1)?.split_whitespace().next()?.trim_matches('"').to_owned();
        Some(address.rsplit_once(':')?.1.to_owned())
    })
    .await
}

/// Sends a message with `logger`; whether there is one.
async fn logger(port: &str, arguments: &'static [&'static str]) -> bool {
    let port = port.to_owned();
    let run = move || {
        let mut command = Command::new("logger");
        command.args(["--server", "127.0.0.1", "--port", &port]).args(arguments).stdin(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test]
async fn what_logger_sends_is_read() {
    let has_logger = Command::new("logger").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !has_logger {
        let _ = writeln!(std::io::stderr(), "not run: there is no logger");
        return;
    }
    let component = |name: &str, more: &str| {
        format!(
            "loki.source.syslog \"{name}\" {{\n forward_to = [loki.echo.e.receiver]\n \
             relabel_rules = loki.relabel.r.rules\n listener {{\n address = \"127.0.0.1:0\"\n \
             label_structured_data = true\n labels = {{ listener = \"{name}\" }}\n {more}\n }}\n }}\n"
        )
    };
    let text = [
        "loki.relabel \"r\" {\n forward_to = []\n rule {\n action = \"labelmap\"\n \
         regex = \"__syslog_message_(app_name|severity|facility|msg_id|sd_x_1_k)\"\n }\n }\nloki.echo \"e\" { }\n"
            .to_owned(),
        component("new", ""),
        component("packets", "protocol = \"udp\""),
        component("old", "syslog_format = \"rfc3164\""),
    ];
    let pipeline = load(&text.concat(), &[COMPONENTS]).await.unwrap();
    let (new, packets, old) = (
        port(&pipeline, "loki.source.syslog.new").await,
        port(&pipeline, "loki.source.syslog.packets").await,
        port(&pipeline, "loki.source.syslog.old").await,
    );
    for (port, arguments) in [
        (
            &new,
            &[
                "--tcp",
                "--rfc5424=notq",
                "-t",
                "app",
                "--msgid",
                "M1",
                "--sd-id",
                "x@1",
                "--sd-param",
                "k=\"v\"",
                "one",
            ][..],
        ),
        (&new, &["--tcp", "--octet-count", "--rfc5424=notq", "-t", "app", "-p", "local3.err", "two"]),
        (&packets, &["--udp", "--rfc5424=notq", "-t", "app", "three"]),
        (&old, &["--tcp", "--rfc3164", "-t", "app", "-p", "auth.warning", "four"]),
        (&old, &["--tcp", "--octet-count", "--rfc3164", "-t", "app", "five"]),
    ] {
        assert!(logger(port, arguments).await, "{arguments:?}");
    }
    let lines = || {
        let logs = pipeline.logs();
        let mut lines: Vec<String> = logs
            .lines()
            .filter(|line| line.contains("received log entry"))
            .filter_map(|line| {
                let entry = line.split(" entry=").nth(1)?.split(' ').next()?;
                let labels = line.split(" labels=").nth(1)?.split(" structured_metadata=").next()?;
                Some(format!("{entry} {}", labels.replace("\\\"", "'")))
            })
            .collect();
        lines.sort();
        lines
    };
    until("all have come", || lines().len() == 5).await;
    assert_eq!(
        lines(),
        [
            "five \"{app_name='app', facility='user', listener='old', severity='notice'}\"",
            "four \"{app_name='app', facility='auth', listener='old', severity='warning'}\"",
            "one \"{app_name='app', facility='user', listener='new', msg_id='M1', sd_x_1_k='v', severity='notice'}\"",
            "three \"{app_name='app', facility='user', listener='packets', severity='notice'}\"",
            "two \"{app_name='app', facility='local3', listener='new', severity='error'}\"",
        ]
    );
    pipeline.shutdown().await;
}
