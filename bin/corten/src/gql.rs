//! `corten gql`: a query of GraphQL to the program that runs.

use std::process::ExitCode;

use clap::ArgMatches;
use corten_net::Body;
use corten_syntax::quote;
use http::{Request, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::output;
use crate::remote::{ANSWER_WAIT, ASKS_FOR_USER, block_on, client, printable};

/// Where queries are answered unless another place is named.
pub(crate) const ENDPOINT: &str = "http://127.0.0.1:12345/graphql";
/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 5 << 20;

pub(crate) fn main(matches: &ArgMatches, query: &str) -> Result<ExitCode, String> {
    let query = whole(query).map_err(|error| format!("format GraphQL query: {error}"))?;
    let answer = block_on(async {
        // To the answer's last byte.
        let limited = tokio::time::timeout(ANSWER_WAIT, ask(matches, &query)).await;
        let endpoint = matches.get_one::<String>("endpoint").map_or(ENDPOINT, String::as_str);
        limited.map_err(|_| format!("no answer from {endpoint} within {} s", ANSWER_WAIT.as_secs()))?
    });
    let mut answer = answer.map_err(|error| format!("execute GraphQL query: {error}"))?;
    // What is empty is left out, and nothing else is shown than these two.
    let mut shown = Map::new();
    for name in ["data", "errors"] {
        let part =
            answer.remove(name).filter(|part| !part.is_null() && part.as_array().is_none_or(|all| !all.is_empty()));
        if let Some(part) = part {
            shown.insert(name.to_owned(), part);
        }
    }
    let failed = shown.contains_key("errors");
    let text = serde_json::to_string_pretty(&shown).map_err(|error| format!("print GraphQL response: {error}"))?;
    let lines: Vec<String> = text.lines().map(printable).collect();
    output::print(&format!("{}\n", lines.join("\n")));
    if failed { Err("GraphQL response contains errors".to_owned()) } else { Ok(ExitCode::SUCCESS) }
}

/// A query with the word and the braces that may be left out. The texts of errors are the reference's.
fn whole(query: &str) -> Result<String, String> {
    let text = query.trim();
    let (paren, brace) = (text.find('('), text.find('{'));
    if paren.is_some_and(|paren| brace.is_none_or(|brace| paren < brace)) {
        return Err("query parameters are not supported".to_owned());
    }
    let is_operation = ["query", "mutation", "subscription"].iter().any(|word| {
        text.strip_prefix(word).is_some_and(|rest| rest.starts_with(|c: char| c == '{' || c.is_ascii_whitespace()))
    });
    Ok(if is_operation || text.starts_with('{') { query.to_owned() } else { format!("query {{ {query} }}") })
}

async fn ask(matches: &ArgMatches, query: &str) -> Result<Map<String, Value>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("failed to execute request: {error}");
    let (client, endpoint) = client(matches, "endpoint").await.map_err(|error| failed(&error))?;
    let request = Request::post(&endpoint).header(header::CONTENT_TYPE, "application/json");
    let request = request.body(Body::from(json!({ "query": query }).to_string()));
    let request = request.map_err(|_| failed(&format!("{} is no URL", quote(&endpoint))))?;
    let answer = client.request(request).await.map_err(|error| failed(&error))?;
    let status = answer.status();
    if status == StatusCode::UNAUTHORIZED {
        return Err(failed(&ASKS_FOR_USER));
    }
    if status != StatusCode::OK {
        let body = answer.into_body().read_start(ANSWER_BYTES_MAX).await;
        let body = printable(body.trim());
        return Err(match body.as_str() {
            "" => failed(&status),
            body => failed(&format!("{status}: {body}")),
        });
    }
    let body = answer.into_body().read(ANSWER_BYTES_MAX).await;
    let body = body.map_err(|error| format!("failed to read response body: {error}"))?;
    match serde_json::from_slice(&body) {
        Ok(Value::Object(answer)) => Ok(answer),
        Ok(_) => Err("failed to parse GraphQL response: it is no object".to_owned()),
        // As any other path, one that is not there is answered with a page.
        Err(error) if body.starts_with(b"<") => Err(format!(
            "failed to parse GraphQL response: {error}: it is a page; is --server.http.enable-graphql set?"
        )),
        Err(error) => Err(format!("failed to parse GraphQL response: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_may_leave_out_its_word_and_braces() {
        for query in [
            "{ alloy { version } }",
            "{alloy{version}}",
            " {a}",
            "query{ alloy { isReady } }",
            "query\n{\n\ta\n}",
            "query Named\n{ a }",
            "mutation\t{ a }",
            "subscription\n{ a }",
        ] {
            assert_eq!(whole(query).as_deref(), Ok(query));
        }
        assert_eq!(whole("alloy { isReady }").as_deref(), Ok("query { alloy { isReady } }"));
        assert_eq!(whole("queryName { a }").as_deref(), Ok("query { queryName { a } }"));
        for query in ["query($id: ID!) { a }", "query Named($id: ID!) { a }", "component(id: \"a\") { id }", "("] {
            assert_eq!(whole(query), Err("query parameters are not supported".to_owned()), "{query}");
        }
    }
}
