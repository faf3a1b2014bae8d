//! The benchmark harness: targets that are scraped, a sink that counts, and a driver that puts Corten and its peers
//! side by side. It uses none of Corten's crates, so that what counts is independent of what is counted.

mod args;
mod callgrind;
mod driver;
mod error;
mod exposition;
mod hole;
mod http;
mod logs;
mod otlp;
mod peers;
mod process;
mod procfs;
mod report;
mod scenario;
mod sink;
mod stats;
mod subject;
mod target;
mod wire;

use std::{
    env,
    io::{self, Read as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    thread,
};

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    args::Args,
    error::{Context, Error, Result},
    logs::lines::{FILES_MAX, LINES_MAX, Shape},
    scenario::SCENARIOS,
    target::Listening,
};

const HELP: &str = "\
corten-bench run <scenario>    measure Corten and its peers side by side
    --ours <path>              the corten binary; given twice, two builds are compared
    --ours-arg <arg>           a further argument for it; may be repeated
    --peers <a,b>              vmagent, prometheus, rsyslog, rotel, or none (those that do the same; none where ours is compared with
                               itself)
    --pairs <n>                rounds, each of which runs every subject once (5)
    --window <duration>        how long is measured, rounded up to whole scrape intervals (30s, blackhole 10m)
    --seed <n>                 seed of the first pair's pages (1)
    --gzip                     targets compress their pages for whoever takes it
    --pin                      subject on processor 0, target and sink on processor 1
    --keep                     keep configurations, data and logs of each run
    --out <file>               where results go as JSON (below the work directory)
    --work-dir <dir>           (target/bench)
    --peers-dir <dir>          (target/peers)
corten-bench peers             fetch the peers
    --peers-dir <dir>          (target/peers)
corten-bench target            serve pages to scrape
    --targets <n> --series <n> --change <share> --churn <share> --seed <n> --gzip --port <n>
    --file-sd <file>           write the targets for file_sd_configs
    --list <file>              write the targets, one URL a line
corten-bench sink              receive remote write 1 and count; GET /stats, GET /seconds
    --listen <address>         (127.0.0.1:0)
    --status <n> --delay <d>   what is answered (204, 0s)
    --script <a:s[:d],..>      from <a> after the first request on: status <s>, delay <d>
corten-bench lines             write files of lines
    --dir <dir> --files <n> --lines <n> --shape raw|json|nginx --seed <n>
corten-bench logsink           take lines by Loki's push API, or as text by TCP, and count; GET /stats
    --listen <address>         (127.0.0.1:0)
    --times --labels           entries must tell the time of their line; streams must have its labels
corten-bench otlpload          send OTLP until GET /stop; GET /stats
    --to <address>             where
    --signal logs|traces|metrics --items <n> --rate <n> --connections <n> --grpc --seed <n>
corten-bench otlpsink          take OTLP by HTTP and gRPC, and remote write 1, and count; GET /stats
    --listen <address>         (127.0.0.1:0)
target, sink, logsink, otlpload and otlpsink end with their standard input when --exit-with-stdin is given.
";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let command = async {
        let mut args = Args::new(env::args().skip(1));
        let name = args.positional().unwrap_or_default();
        dispatch(&name, args).await
    };
    // Dropping the command ends the processes that it started.
    let ended = tokio::select! {
        ended = command => ended,
        () = interrupted() => Err(Error::new("interrupted")),
    };
    match ended {
        Ok(code) => code,
        Err(error) => {
            say(format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(name: &str, mut args: Args) -> Result<ExitCode> {
    match name {
        "run" => {
            let settings = driver::Settings::take(&mut args)?;
            args.finish()?;
            let (report, valid) = driver::run(settings, say).await?;
            print(&report)?;
            return Ok(if valid { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        "peers" => {
            let dir = args.text("--peers-dir")?.map(PathBuf::from);
            args.finish()?;
            let dir = dir.map_or_else(|| Ok(peers::build_dir()?.join("peers")), Ok)?;
            xtask::peers::fetch(&dir, say).map_err(Error::new)?;
        }
        "target" => {
            let settings = target::Settings::take(&mut args)?;
            let with_stdin = args.flag("--exit-with-stdin");
            args.finish()?;
            end_with_stdin(with_stdin);
            target::run(settings, announce).await?;
        }
        "lines" => {
            let dir = args.text("--dir")?.ok_or_else(|| Error::new("option --dir: where?"))?;
            let files = args.parsed("--files", 1)?;
            let lines = args.parsed("--lines", 1000)?;
            let shape = Shape::named(&args.parsed("--shape", "raw".to_owned())?)?;
            let seed = args.parsed("--seed", 1)?;
            args.finish()?;
            if files > FILES_MAX || lines > LINES_MAX {
                return Err(Error::new(format!("at most {FILES_MAX} files of {LINES_MAX} lines")));
            }
            logs::lines::write(PathBuf::from(dir).as_path(), files, lines, shape, seed)?;
        }
        "logsink" => {
            let settings = logs::sink::Settings::take(&mut args)?;
            let with_stdin = args.flag("--exit-with-stdin");
            args.finish()?;
            end_with_stdin(with_stdin);
            logs::sink::run(settings, announce).await?;
        }
        "otlpload" => {
            let settings = otlp::load::Settings::take(&mut args)?;
            let with_stdin = args.flag("--exit-with-stdin");
            args.finish()?;
            end_with_stdin(with_stdin);
            otlp::load::run(settings, announce).await?;
        }
        "otlpsink" => {
            let settings = otlp::sink::Settings::take(&mut args)?;
            let with_stdin = args.flag("--exit-with-stdin");
            args.finish()?;
            end_with_stdin(with_stdin);
            otlp::sink::run(settings, announce).await?;
        }
        "sink" => {
            let settings = sink::Settings::take(&mut args)?;
            let with_stdin = args.flag("--exit-with-stdin");
            args.finish()?;
            end_with_stdin(with_stdin);
            sink::run(settings, announce).await?;
        }
        _ => {
            let scenarios: String =
                SCENARIOS.iter().map(|scenario| format!("    {:<11}{}\n", scenario.name, scenario.about)).collect();
            print(&format!("{HELP}\nscenarios:\n{scenarios}"))?;
            return Ok(if matches!(name, "" | "help") { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends the process when nobody holds the other end of its standard input any more.
fn end_with_stdin(wanted: bool) {
    if wanted {
        thread::spawn(|| {
            let mut stdin = io::stdin().lock();
            while stdin.read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
            std::process::exit(0);
        });
    }
}

async fn interrupted() {
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            // Then the signal's default ends the process.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
    }
}

fn announce(listening: &Listening) -> Result<()> {
    let line = serde_json::to_string(listening).context("cannot tell the address")?;
    print(&(line + "\n"))
}

fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("cannot write to standard output")
}

/// Tells of progress; a terminal that is gone does not stop a measurement.
fn say(text: String) {
    let _ = writeln!(io::stderr(), "{text}");
}
