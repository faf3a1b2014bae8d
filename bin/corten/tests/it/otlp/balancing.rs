//! Servers that the surroundings of the process tell of: a cluster of Kubernetes, and Cloud Map of AWS.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use crate::otlp::{Backend, listening, request};
use crate::support::{Corten, Folder, corten, exchange};
use crate::torture::net::Server;
use crate::torture::until;

/// Answers a request: to a list with a slice of one endpoint, to a watch with nothing, and to Cloud Map with one instance.
fn answer(stream: TcpStream, port: &str, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    seen.lock().expect("requests").push(head.clone() + &String::from_utf8_lossy(&body));
    let mut stream = reader.into_inner();
    if head.contains("watch=true") {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").ok()?;
        // It lasts as long as who watches.
        return stream.read_to_end(&mut Vec::new()).ok().map(|_| ());
    }
    let said = if head.starts_with("GET") {
        r#"{"metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"a"},"endpoints":[{"addresses":["127.0.0.1"]}]}]}"#
            .to_owned()
    } else {
        format!(
            r#"{{"Instances":[{{"Attributes":{{"AWS_INSTANCE_IPV4":"127.0.0.1","AWS_INSTANCE_PORT":"{port}"}}}}]}}"#
        )
    };
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", said.len());
    stream.write_all((head + &said).as_bytes()).ok()
}

#[test]
fn servers_are_found_by_what_the_environment_says() {
    let backend = Backend::start();
    let receivers = format!(
        "otelcol.receiver.otlp \"server\" {{\ngrpc {{\nendpoint = \"127.0.0.1:0\"\n}}\noutput {{\ntraces = \
         [otelcol.exporter.otlphttp.out.input]\n}}\n}}\notelcol.exporter.otlphttp \"out\" {{\nclient {{\nendpoint = \
         \"http://{}\"\ncompression = \"none\"\n}}\nencoding = \"json\"\n}}\n",
        backend.address()
    );
    let folder = Folder::new(&receivers);
    let (seen, port) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(String::new())));
    let surroundings = Server::start({
        let (seen, port) = (Arc::clone(&seen), Arc::clone(&port));
        move |stream| {
            let port = port.lock().expect("a port").clone();
            answer(stream, &port, &seen);
        }
    });
    let kubeconfig = folder.path().join("kubeconfig");
    let address = surroundings.address;
    let config = format!(
        "current-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\nclusters: [{{name: c, cluster: \
         {{server: \"http://{address}\"}}}}]\nusers: [{{name: u, user: {{token: account}}}}]\n"
    );
    std::fs::write(&kubeconfig, config).expect("a file");
    let arguments = folder.run_arguments(&[]);
    let mut command = corten(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    command
        .env("KUBECONFIG", &kubeconfig)
        .env("AWS_ENDPOINT_URL_SERVICEDISCOVERY", format!("http://{address}"))
        .env("AWS_ACCESS_KEY_ID", "AKID")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_REGION", "eu-west-1");
    let corten = Corten::start_by(command, folder);
    let server = listening(&corten, "Starting GRPC server");
    let (_, own) = server.rsplit_once(':').expect("a port");
    *port.lock().expect("a port") = own.to_owned();
    let balancing = |name: &str, resolver: &str| {
        format!(
            "otelcol.exporter.loadbalancing \"{name}\" {{\nresolver {{\n{resolver}\n}}\nprotocol {{\notlp {{\nclient \
             {{\ntls {{\ninsecure = true\n}}\n}}\n}}\n}}\nsending_queue {{}}\nretry_on_failure {{\ninitial_interval = \
             \"10ms\"\n}}\n}}\n"
        )
    };
    let whole = format!(
        "{receivers}otelcol.receiver.otlp \"in\" {{\nhttp {{\nendpoint = \"127.0.0.1:0\"\n}}\noutput {{\ntraces = \
         [otelcol.exporter.loadbalancing.k8s.input, otelcol.exporter.loadbalancing.aws.input]\n}}\n}}\n{}{}",
        balancing("k8s", &format!("kubernetes {{\nservice = \"tempo.tracing\"\nports = [{own}]\n}}")),
        balancing("aws", "aws_cloud_map {\nnamespace = \"n\"\nservice_name = \"s\"\n}"),
    );
    assert_eq!(corten.reload(&whole).status, 200);
    let entrance = listening(&corten, "Starting HTTP server");
    let spans =
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"01010101010101010101010101010101","name":"s"}]}]}]}"#;
    let answer = exchange(&entrance, &request("traces", spans)).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(backend.await_recorded("spans", 2).len(), 2);
    for name in ["k8s", "aws"] {
        until(&format!("{name} has brought its own"), || {
            let metrics = corten.get("/metrics").body;
            let brought = |line: &str| {
                line.starts_with("otelcol_loadbalancer_backend_outcome_total{")
                    && line.contains(&format!("component_id=\"otelcol.exporter.loadbalancing.{name}\""))
                    && line.contains("success=\"true\"")
                    && line.ends_with(" 1")
            };
            if metrics.lines().any(brought) { Ok(()) } else { Err(metrics.clone()) }
        });
    }
    let seen = seen.lock().expect("requests");
    let list =
        seen.iter().find(|head| head.starts_with("GET /apis/discovery.k8s.io/v1/namespaces/tracing/endpointslices?"));
    assert!(list.expect("a list").contains("uthorization: Bearer account\r\n"));
    let look = seen.iter().find(|head| head.starts_with("POST / ")).expect("a look");
    assert!(look.contains("Credential=AKID/") && look.contains("/eu-west-1/servicediscovery/aws4_request"), "{look}");
    assert!(look.ends_with(r#"{"HealthStatus":"HEALTHY","NamespaceName":"n","ServiceName":"s"}"#), "{look}");
}
