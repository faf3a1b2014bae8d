//! Queries of GraphQL against the program.

use serde_json::{Value, json};

use crate::support::{Corten, Folder, WAIT_MAX, exchange, output};

const LEVEL: &str = "--stability.level=experimental";
const ENABLED: &str = "--server.http.enable-graphql";

fn body_of(answer: &str) -> (&str, &str) {
    answer.split_once("\r\n\r\n").expect("an answer")
}

/// Posts a query: the status and the answer.
fn ask(corten: &Corten, query: &str, more: &str) -> (String, Value) {
    let body = json!({ "query": query }).to_string();
    let request = format!(
        "POST /graphql HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n{more}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = exchange(&corten.address, &request).expect("an answer");
    let (head, body) = body_of(&answer);
    let status = head.split(' ').nth(1).expect("a status").to_owned();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// A component whose file is gone, and one with a secret.
fn config(folder: &Folder) -> String {
    format!(
        "local.file \"gone\" {{\n\tfilename       = \"{}\"\n\tdetector       = \"poll\"\n\tpoll_frequency = \"20ms\"\n}}\n\n\
         prometheus.remote_write \"a\" {{\n\tendpoint {{\n\t\turl = \"http://127.0.0.1:9/w\"\n\n\t\tbasic_auth {{\n\
         \t\t\tusername = \"u\"\n\t\t\tpassword = \"hush-password\"\n\t\t}}\n\t}}\n}}\n",
        folder.path().join("file").display()
    )
}

#[test]
fn components_are_told_with_their_health_and_without_secrets() {
    let folder = Folder::new("");
    let file = folder.path().join("file");
    std::fs::write(&file, "here").expect("a file");
    folder.write(&config(&folder));
    let corten = Corten::start_in(folder, &[LEVEL, ENABLED]);
    let all = "{ alloy { version isReady } components { id name health { message lastUpdated } arguments exports debugInfo } }";
    let (status, answer) = ask(&corten, all, "");
    assert_eq!(status, "200", "{answer}");
    assert_eq!(answer["data"]["alloy"]["isReady"], true);
    let ids: Vec<&str> =
        answer["data"]["components"].as_array().expect("a list").iter().filter_map(|one| one["id"].as_str()).collect();
    assert_eq!(ids, ["local.file.gone", "prometheus.remote_write.a"]);
    let text = answer.to_string();
    assert!(!text.contains("hush-password") && text.contains("(secret)"), "{text}");
    let write = &answer["data"]["components"][1];
    let arguments: Value = serde_json::from_str(write["arguments"].as_str().expect("text")).expect("JSON");
    let shown: Value =
        serde_json::from_str(&corten.get("/api/v0/web/components/prometheus.remote_write.a").body).expect("JSON");
    assert_eq!(arguments, shown["arguments"], "as the component page has it");
    assert_eq!(write["health"]["lastUpdated"], shown["health"]["updatedTime"]);
    assert!(answer["data"]["components"][0]["exports"].as_str().expect("text").contains("here"));

    std::fs::remove_file(&file).expect("a file");
    corten.line("no such file");
    let one = "{ component(id: \"local.file.gone\") { health { message } } none: component(id: \"x\") { id } }";
    let started = std::time::Instant::now();
    loop {
        let (status, answer) = ask(&corten, one, "");
        assert_eq!(status, "200", "{answer}");
        assert_eq!(answer["data"]["none"], Value::Null);
        assert_eq!(answer["errors"][0]["message"], "component not found");
        assert_eq!(answer["errors"][0]["path"], json!(["none"]));
        let message = answer["data"]["component"]["health"]["message"].as_str().expect("text");
        if message.contains("no such file") {
            break;
        }
        assert!(started.elapsed() < WAIT_MAX, "{message}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // What is wrong with a query.
    assert_eq!(ask(&corten, "{ nothing }", "").0, "422");
    assert_eq!(ask(&corten, "{ nothing }", "Accept: application/graphql-response+json\r\n").0, "400");
    assert_eq!(corten.get("/graphql?query=%7Balloy%7BisReady%7D%7D").body, r#"{"data":{"alloy":{"isReady":true}}}"#);
    let request = |head: &str| {
        exchange(&corten.address, &format!("{head}Host: localhost\r\nConnection: close\r\n\r\n")).expect("an answer")
    };
    let options = request("OPTIONS /graphql HTTP/1.1\r\n");
    assert!(
        options.starts_with("HTTP/1.1 200") && options.to_lowercase().contains("allow: options, get, post"),
        "{options}"
    );
    assert!(request("HEAD /graphql HTTP/1.1\r\n").starts_with("HTTP/1.1 405"));
    let put = request("PUT /graphql HTTP/1.1\r\n");
    assert!(put.starts_with("HTTP/1.1 400") && put.contains("transport not supported"), "{put}");
    let long = "x".repeat(70 << 10);
    assert_eq!(ask(&corten, &long, "").0, "413");
    // Nobody asked for the page.
    assert!(corten.get("/graphql/playground").body.contains("<base "));
    corten.end();
}

#[test]
fn queries_are_behind_the_prefix_and_the_password_of_everything_else() {
    let auth = "http {\n\tauth {\n\t\tbasic {\n\t\t\tusername = \"u\"\n\t\t\tpassword = \"p\"\n\t\t}\n\t}\n}\n";
    let playground = "--server.http.enable-graphql-playground";
    let flags = [LEVEL, ENABLED, playground, "--server.http.ui-path-prefix=/deep"];
    let corten = Corten::start_in(Folder::new(auth), &flags);
    let path = "/deep/graphql?query=%7Balloy%7BisReady%7D%7D";
    assert_eq!(corten.get(path).status, 401);
    let right = corten.get_as(path, "dTpw");
    assert_eq!((right.status, &*right.body), (200, r#"{"data":{"alloy":{"isReady":true}}}"#));
    let page = corten.get_as("/deep/graphql/playground", "dTpw");
    assert!(page.status == 200 && page.body.contains("GraphQL playground"), "{page:?}");
    assert!(!page.body.contains("http://") && !page.body.contains("https://"), "it asks no other host");
    assert!(corten.get_as("/deep/graphql/playground.js", "dTpw").body.contains("fetch("));
    assert_eq!(corten.get_as("/graphql", "dTpw").status, 404);
    // The command line, too.
    let endpoint = format!("--endpoint=http://{}/deep/graphql", corten.address);
    let (success, _, error) = output(&["gql", &endpoint, "alloy { isReady }"]);
    assert!(!success && error.ends_with("asks for a user: --user and --password-file\n"), "{error}");
    let password = Folder::new("p\n");
    let password = format!("--password-file={}", password.config_text());
    let (success, out, error) = output(&["gql", &endpoint, "--user=u", &password, "alloy { isReady }"]);
    assert!(success && out.contains("\"isReady\": true"), "{error}");
    corten.end_as("dTpw");
}

#[test]
fn queries_need_their_flag_and_the_experimental_level() {
    let folder = Folder::new("");
    for flag in [ENABLED, "--server.http.enable-graphql-playground"] {
        let (success, _, error) = output(&["run", &folder.config_text(), flag]);
        let expected = format!(
            "Error: '{flag}' can only be used at experimental stability level. Use --stability.level=experimental to enable.\n"
        );
        assert_eq!((success, error), (false, expected));
    }
    let corten = Corten::start("");
    assert!(corten.get("/graphql?query=%7Balloy%7BisReady%7D%7D").body.contains("<base "), "a page, as any other path");
    let endpoint = format!("--endpoint=http://{}/graphql", corten.address);
    let (success, _, error) = output(&["gql", &endpoint, "alloy { isReady }"]);
    assert!(!success && error.ends_with("it is a page; is --server.http.enable-graphql set?\n"), "{error}");
    corten.end();
}

#[test]
fn the_command_line_asks_and_says_what_was_wrong() {
    let corten = Corten::start_in(Folder::new("loki.echo \"a\" { }\n"), &[LEVEL, ENABLED]);
    let endpoint = format!("--endpoint=http://{}/graphql", corten.address);
    let (success, out, error) = output(&["gql", &endpoint, "components { id }"]);
    let expected =
        "{\n  \"data\": {\n    \"components\": [\n      {\n        \"id\": \"loki.echo.a\"\n      }\n    ]\n  }\n}\n";
    assert_eq!((success, &*out), (true, expected), "{error}");
    let (success, out, error) = output(&["graphql", &endpoint, "{ component(id: \"x\") { id } alloy { isReady } }"]);
    assert_eq!((success, &*error), (false, "Error: GraphQL response contains errors\n"));
    let told: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (&told["data"]["alloy"]["isReady"], &told["errors"][0]["message"]),
        (&json!(true), &json!("component not found"))
    );
    let (success, _, error) = output(&["gql", &endpoint, "{ nothing }"]);
    let expected = "Error: execute GraphQL query: failed to execute request: 422 Unprocessable Entity: {\"errors\":[{";
    assert!(!success && error.starts_with(expected), "{error}");
    let (success, _, error) = output(&["gql", &endpoint, "component(id: \"x\") { id }"]);
    assert_eq!((success, &*error), (false, "Error: format GraphQL query: query parameters are not supported\n"));
    let (success, _, error) = output(&["gql", "--endpoint=http://127.0.0.1:1/graphql", "{ alloy { version } }"]);
    assert!(!success && error.contains("connection refused"), "{error}");
    corten.end();
}
