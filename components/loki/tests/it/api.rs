//! `loki.source.api` at the other end of `loki.write`.

use corten_loki::COMPONENTS;
use corten_testkit::{Pipeline, load, until, until_some};

/// Where a component listens that says so in the log with this text.
async fn address(pipeline: &Pipeline, text: &str) -> String {
    until_some("it listens", || {
        let logs = pipeline.logs();
        let line = logs.lines().rfind(|line| line.contains(text))?;
        Some(line.split("addr=").nth(1)?.split_whitespace().next()?.trim_matches('"').to_owned())
    })
    .await
}

/// The value of a field of the lines that `loki.echo` wrote.
fn echoed(pipeline: &Pipeline, field: &str) -> Vec<String> {
    let logs = pipeline.logs();
    let lines = logs.lines().filter(|line| line.contains("received log entry"));
    let value = |line: &str| {
        let rest = line.split(&format!(" {field}=")).nth(1)?;
        let end = if let Some(quoted) = rest.strip_prefix('"') {
            let mut escaped = false;
            quoted.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            })? + 2
        } else {
            rest.find(' ').unwrap_or(rest.len())
        };
        Some(rest[..end].to_owned())
    };
    lines.filter_map(value).collect()
}

const HTTP: &str = "http {\n listen_address = \"127.0.0.1\"\n listen_port = 0\n }";

#[tokio::test]
async fn what_one_program_writes_another_receives() {
    let receiver = format!(
        "loki.source.api \"far\" {{\n forward_to = [loki.echo.e.receiver]\n use_incoming_timestamp = true\n {HTTP}\n }}\n\
         loki.echo \"e\" {{ }}"
    );
    let receiver = load(&receiver, &[COMPONENTS]).await.unwrap();
    let at = address(&receiver, "listening for pushed log entries").await;
    let sender = format!(
        "loki.source.api \"near\" {{\n forward_to = [loki.write.w.receiver]\n use_incoming_timestamp = true\n {HTTP}\n }}\n\
         loki.write \"w\" {{\n endpoint {{\n url = \"http://{at}/loki/api/v1/push\"\n batch_wait = \"10ms\"\n }}\n }}"
    );
    let sender = load(&sender, &[COMPONENTS]).await.unwrap();
    let near = address(&sender, "listening for pushed log entries").await;
    let client = corten_net::Client::new(Default::default(), Default::default()).await.unwrap();
    let body =
        r#"{"streams":[{"stream":{"app":"é \"quoted\""},"values":[["7","one\nline",{"trace":"x"}],["8","two"]]}]}"#;
    let request = http::Request::post(format!("http://{near}/loki/api/v1/push"))
        .header("content-type", "application/json")
        .header("x-scope-orgid", "tenant-1")
        .body(corten_net::Body::from(body))
        .unwrap();
    assert_eq!(client.request(request).await.unwrap().status(), 204);
    until("the entries have come", || echoed(&receiver, "entry").len() == 2).await;
    assert_eq!(echoed(&receiver, "entry"), ["\"one\\nline\"", "two"]);
    let times = echoed(&receiver, "entry_timestamp");
    assert_eq!(times, ["1970-01-01T00:00:00.000000007Z", "1970-01-01T00:00:00.000000008Z"]);
    // The tenant went as a header, and came back as a label.
    let labels = echoed(&receiver, "labels");
    assert!(labels[0].contains("__tenant_id__=\\\"tenant-1\\\"") && labels[0].contains("app="), "{labels:?}");
    assert!(echoed(&receiver, "structured_metadata")[0].contains("trace"));
    sender.shutdown().await;
    receiver.shutdown().await;
}
