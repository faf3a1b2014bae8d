//! Signatures of AWS, which AWS's own library checks.

use serde_json::{Value, json};

use super::script::Script;
use super::{listening, request};
use crate::support::{Corten, Folder, corten, exchange};
use crate::torture::until;

/// An exporter with a signer: arguments of the signer, the URL to send to, and more about the client.
fn exporter(name: &str, signer: &str, url: &str, client: &str) -> String {
    format!(
        "otelcol.auth.sigv4 \"{name}\" {{\n{signer}\n}}\notelcol.exporter.otlphttp \"{name}\" {{\nlogs_endpoint = \"{url}\"\n\
         client {{\nendpoint = \"http://unused.invalid\"\nauth = otelcol.auth.sigv4.{name}.handler\n{client}\n}}\n\
         encoding = \"json\"\n}}\n"
    )
}

/// Sends a log record to a receiver, and gives the answer.
fn send(corten: &Corten, text: &str) -> String {
    let records = json!([{"body": {"stringValue": text}}]);
    let body = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}).to_string();
    exchange(&listening(corten, "Starting HTTP server"), &request("logs", &body)).expect("an answer")
}

/// A request, and what its signature says.
struct Case {
    name: &'static str,
    signer: String,
    url: String,
    client: String,
    /// Region, service and key.
    signs: [&'static str; 3],
    coding: Option<&'static str>,
}

/// What a signer says of itself where the host says nothing.
const OWN: &str = "region = \"eu-west-1\"\nservice = \"aps\"";

fn role(name: &str, more: &str) -> String {
    format!("{OWN}\nassume_role {{\narn = \"arn:aws:iam::1:role/{name}\"\n{more}\n}}")
}

fn cases(address: &str) -> Vec<Case> {
    let usual = |name, path: &str| Case {
        name,
        signer: OWN.to_owned(),
        url: format!("http://{address}{path}"),
        client: String::new(),
        signs: ["eu-west-1", "aps", "AKIDOWN"],
        coding: Some("gzip"),
    };
    // Hosts of AWS are reached by a proxy, which is told the whole URL.
    let of_aws = |name, url: &str, region, service| Case {
        name,
        signer: String::new(),
        url: url.to_owned(),
        client: format!("proxy_url = \"http://{address}\""),
        signs: [region, service, "AKIDOWN"],
        coding: Some("gzip"),
    };
    let compression = "compression = \"none\"".to_owned();
    let headers = "headers = {\"X-Scope\" = \"two  words\", \"X-Amz-Meta\" = \"m\"}".to_owned();
    let writer = role("writer", "session_name = \"corten@1\"\nsts_region = \"us-west-2\"");
    let region = "region = \"mars-1\"".to_owned();
    let workspace = "http://aps-workspaces.us-east-2.amazonaws.com/workspaces/ws/logs";
    let xray = "http://xray.us-east-1.amazonaws.com:8080/v1/logs";
    vec![
        usual("packed", "/packed/v1/logs"),
        Case { client: compression, coding: None, ..usual("bare", "/bare/v1/logs") },
        Case { client: headers, ..usual("odd", "/with%20space/~a:b/v1/logs?b=2&a=1%202&a=%2B") },
        Case { signer: writer, signs: ["eu-west-1", "aps", "ASIAROLE"], ..usual("role", "/role/v1/logs") },
        of_aws("prometheus", workspace, "us-east-2", "aps"),
        of_aws("search", "http://search-mine.ap-south-1.es.amazonaws.com/v1/logs", "ap-south-1", "es"),
        of_aws("cloudwatch", "http://logs.eu-north-1.amazonaws.com/v1/logs", "eu-north-1", "logs"),
        Case { signer: region, ..of_aws("half", xray, "mars-1", "xray") },
    ]
}

#[test]
fn requests_are_signed_as_the_library_of_aws_signs_them() {
    let Some(aws) = Script::start("sigv4.py", "botocore", &[]) else { return };
    let address = aws.address("address");
    let at = |path: &str| format!("http://{address}{path}");
    let cases = cases(address);
    let mut config: String =
        cases.iter().map(|case| exporter(case.name, &case.signer, &case.url, &case.client)).collect();
    config += &exporter("liar", &role("liar", ""), &at("/liar/v1/logs"), "");
    let names: Vec<&str> = cases.iter().map(|case| case.name).chain(["liar"]).collect();
    let to: Vec<String> = names.iter().map(|name| format!("otelcol.exporter.otlphttp.{name}.input")).collect();
    config += &format!(
        "otelcol.receiver.otlp \"in\" {{\nhttp {{\nendpoint = \"127.0.0.1:0\"\n}}\noutput {{\nlogs = [{}]\n}}\n}}\n",
        to.join(", ")
    );
    let folder = Folder::new(&config);
    let arguments = folder.run_arguments(&[]);
    let mut command = corten(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    command.envs([
        ("AWS_ACCESS_KEY_ID", "AKIDOWN"),
        ("AWS_SECRET_ACCESS_KEY", "own+secret/"),
        ("AWS_ENDPOINT_URL_STS", &at("/")),
        ("AWS_CONFIG_FILE", "/nonexistent"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
    ]);
    for name in ["AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"] {
        command.env_remove(name);
    }
    let corten = Corten::start_by(command, folder);
    assert!(send(&corten, "paid").starts_with("HTTP/1.1 200 "));

    for Case { name, url, signs: [region, service, key], coding, .. } in &cases {
        let said = aws.await_said(&format!("the request of {name}"), |said| {
            let target = said["target"].as_str().unwrap_or_default();
            target == url || format!("http://{}{target}", said["host"].as_str().unwrap_or_default()) == *url
        });
        assert_eq!(said["wrong"], Value::Null, "{name}: {said}");
        assert_eq!([&said["region"], &said["service"], &said["key"]], [*region, *service, *key], "{name}");
        assert_eq!(said["coding"].as_str(), *coding, "{name}");
        let record = &said["body"]["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
        assert_eq!(record["body"]["stringValue"], "paid", "{name}: {said}");
        let signed = |header: &str| said["signed"].as_array().is_some_and(|names| names.contains(&json!(header)));
        assert!(signed("content-type") && signed("host") && signed("x-amz-date"), "{name}: {said}");
        assert_eq!(signed("content-encoding"), coding.is_some(), "{name}: {said}");
        assert_eq!(signed("x-amz-security-token"), *key == "ASIAROLE", "{name}: {said}");
    }
    // Roles are asked for with a signature of their own, in their own region where there is one.
    let roles = |name: &str| {
        let arn = format!("arn:aws:iam::1:role/{name}");
        let asked: Vec<Value> = aws.said().into_iter().filter(|said| said["role"] == *arn).collect();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked.into_iter().next().expect("one")
    };
    let writer = roles("writer");
    assert_eq!(
        (&writer["wrong"], &writer["region"], &writer["key"]),
        (&Value::Null, &json!("us-west-2"), &json!("AKIDOWN"))
    );
    assert_eq!(writer["session"], "corten@1");
    // A signature with another secret is told from a right one, so that the above says something.
    let liar = aws.await_said("the request with a wrong secret", |said| said["target"] == "/liar/v1/logs");
    assert_eq!(liar["wrong"], "signature");
    assert_eq!(roles("liar")["region"], "eu-west-1");
    until("what was refused is told", || {
        let lines = corten.lines();
        let told = lines.iter().any(|line| line.contains("otelcol.exporter.otlphttp.liar") && line.contains("403"));
        if told { Ok(()) } else { Err(format!("{lines:#?}")) }
    });
    // Credentials of a role are kept: further requests do not ask for it.
    assert!(send(&corten, "paid again").starts_with("HTTP/1.1 200 "));
    aws.await_said("a second request with the role", |said| {
        said["key"] == "ASIAROLE" && said.to_string().contains("paid again") && said["wrong"].is_null()
    });
    roles("writer");
    corten.end();
}

#[test]
fn a_host_that_says_no_region_is_told_where_requests_are_sent() {
    let Some(aws) = Script::start("sigv4.py", "botocore", &[]) else { return };
    let url = format!("http://{}/v1/logs", aws.address("address"));
    let config = exporter("a", "", &url, "");
    let folder = Folder::new(&format!(
        "{config}otelcol.receiver.otlp \"in\" {{\nhttp {{\nendpoint = \"127.0.0.1:0\"\n}}\noutput {{\n\
         logs = [otelcol.exporter.otlphttp.a.input]\n}}\n}}\n"
    ));
    let arguments = folder.run_arguments(&[]);
    let mut command = corten(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    command.envs([("AWS_ACCESS_KEY_ID", "AKIDOWN"), ("AWS_SECRET_ACCESS_KEY", "s")]);
    let corten = Corten::start_by(command, folder);
    assert!(send(&corten, "paid").starts_with("HTTP/1.1 200 "));
    let line = corten.line("unable to infer region and/or service from the URL");
    assert!(line.contains("otelcol.exporter.otlphttp.a"), "{line}");
    assert!(aws.said().is_empty(), "nothing is sent without a signature: {:?}", aws.said());
    corten.end();
}
