//! Scenarios of OTLP: requests come at a steady rate, and what they carry is sent on.

pub(crate) mod configure;
pub(crate) mod load;
pub(crate) mod message;
pub(crate) mod sink;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::net::TcpStream;

use self::{
    configure::OtlpJob,
    message::{DROPPED_EVERY, Signal},
    sink::Stats,
};
use crate::{
    callgrind,
    driver::{Edge, Figures, LOOK_EVERY, Measured, live_view, wait_ready, watch_memory},
    error::{Error, Result},
    http::{self, Follow},
    logs::Settings,
    process::Process,
    subject::{self, Subject},
};

/// What ours does with what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// It is batched and sent on with gzip.
    Gzip,
    /// It is batched and sent on as it is.
    Plain,
    /// The same over gRPC, in and out.
    Grpc,
    /// An attribute of each item gets another name.
    Rename,
    /// One condition on an attribute decides what goes on.
    Filter,
    /// Spans are counted by four of their attributes.
    SpanMetrics,
    /// Points become samples, and are sent by remote write.
    RemoteWrite,
}

/// What comes, and what is done with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Load {
    /// What comes.
    pub(crate) signal: Signal,
    /// What is done with it.
    pub(crate) work: Work,
    /// Items of a request.
    pub(crate) items: usize,
    /// Items in a second.
    pub(crate) rate: u64,
}

/// How long a subject may take until it listens.
const LISTEN_WAIT: Duration = Duration::from_secs(30);

/// How long requests come before the window begins.
const WARM: Duration = Duration::from_secs(5);

/// How long nothing may arrive until a run is given up.
const STALL: Duration = Duration::from_secs(30);

/// Measures one run. Whether its instructions are counted, and if so whether somebody looks at what passes.
pub(crate) async fn measure(
    settings: Settings<'_>,
    subject: &Subject,
    load: &Load,
    instructions: Option<bool>,
) -> Measured {
    let (counted, looked_at) = (instructions.is_some(), instructions == Some(true));
    let load = if subject.kind == subject::Kind::CortenRun { *load } else { configure::of_peer(load) };
    let (mut sink, sink_at) = Process::harness("otlpsink", &[], settings.dir, settings.cpus.1).await?;
    let listen = subject::free_address()?;
    let job = OtlpJob { dir: settings.dir, load: &load, listen, sink: sink_at.address, live_view: looked_at };
    let launch = configure::prepare(subject, &job)?;
    let (program, args) = match counted {
        true => callgrind::command(&subject.binary, &launch.args, settings.dir),
        false => (subject.binary.clone(), launch.args.clone()),
    };
    let mut process = Process::start(&subject.name, &program, &args, settings.dir, settings.cpus.0)?;
    if let Some(address) = launch.ready {
        wait_ready(address).await?;
    }
    wait_listening(listen, &mut process).await?;
    let mut args = vec![
        format!("--to={listen}"),
        format!("--signal={}", load.signal.name()),
        format!("--items={}", load.items),
        format!("--rate={}", load.rate),
        format!("--seed={}", settings.seed),
    ];
    if load.work == Work::Grpc {
        args.push("--grpc".to_owned());
    }
    let (sender, sender_at) = Process::harness("otlpload", &args, settings.dir, settings.cpus.1).await?;
    let run = Run { load, sink: sink_at.address, sender: sender_at.address };
    tokio::time::sleep(WARM).await;
    let view = match (looked_at, launch.ready) {
        (true, Some(address)) => Some(Follow::start(address, &live_view("otelcol.processor.batch.bench")).await?),
        _ => None,
    };

    let mut figures = Figures::new();
    let harness = [sink.pid(), sender.pid(), std::process::id()];
    let counted_before = run.counted().await?;
    if counted {
        callgrind::zero(process.pid()).await?;
    }
    let shown_before = view.as_ref().map(Follow::items);
    let before = Edge::read(process.pid(), &harness)?;
    watch_memory(&mut process, before.at + settings.window, &mut figures).await?;
    let after = Edge::read(process.pid(), &harness)?;
    let counted_after = run.counted().await?;
    // It holds up the subject while it writes.
    let spent_instructions = if counted { Some(callgrind::count(process.pid(), settings.dir).await?) } else { None };
    let shown = view.as_ref().zip(shown_before).map(|(view, before)| view.items() - before);
    let void = view.as_ref().and_then(Follow::ended);
    drop(view);
    let void = run.end(&mut process).await?.or(void);

    after.load(&before, &mut figures);
    let seconds = (after.at - before.at).as_secs_f64();
    let spent = after.subject.since(&before.subject);
    let items = (counted_after.sent.items - counted_before.sent.items) as f64;
    let (arrived, arrived_before) = (&counted_after.arrived, &counted_before.arrived);
    figures.insert("items_per_second", items / seconds);
    figures.insert("cpu_us_per_item", spent.total_ns as f64 / 1e3 / items);
    figures.insert("cpu_user_share", spent.user_share);
    if let Some(instructions) = spent_instructions {
        figures.insert("instructions_per_item", instructions as f64 / items);
        figures.insert("instructions_per_second", instructions as f64 / seconds);
    }
    figures.extend(shown.map(|shown| ("shown_per_second", shown as f64 / seconds)));
    figures.insert("wire_bytes_per_item", (arrived.wire_bytes - arrived_before.wire_bytes) as f64 / items);
    let requests = (arrived.requests - arrived_before.requests) as f64;
    figures.insert("items_per_request", items / requests);
    figures.retain(|_, value| value.is_finite());
    let planned = load.rate as f64 * seconds;
    let void = void
        .or_else(|| (items < planned * 0.9).then(|| format!("{:.0} % of the plan was taken", 100.0 * items / planned)));
    process.stop().await?;
    sender.stop().await?;
    sink.check()?;
    sink.stop().await?;
    Ok((figures, void))
}

/// Waits until somebody listens.
async fn wait_listening(at: SocketAddr, process: &mut Process) -> Result<()> {
    let give_up = Instant::now() + LISTEN_WAIT;
    while TcpStream::connect(at).await.is_err() {
        process.check()?;
        if Instant::now() > give_up {
            return Err(Error::new(format!("nobody listens on {at}")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// What was sent and what arrived, at one moment.
struct Counted {
    sent: load::Stats,
    arrived: Stats,
}

struct Run {
    load: Load,
    sink: SocketAddr,
    sender: SocketAddr,
}

impl Run {
    async fn counted(&self) -> Result<Counted> {
        Ok(Counted {
            sent: http::get_json(self.sender, "/stats").await?,
            arrived: http::get_json(self.sink, "/stats").await?,
        })
    }

    /// Ends the sending, waits until everything has arrived or nothing does any more, and says what is wrong.
    async fn end(&self, process: &mut Process) -> Result<Option<String>> {
        http::get(self.sender, "/stop").await?;
        let mut last = (Instant::now(), Stats::default());
        loop {
            process.check()?;
            let Counted { sent, arrived } = self.counted().await?;
            let wrong = wrong(&self.load, &sent, &arrived);
            if sent.sending == 0 && (wrong.is_none() || last.0.elapsed() > STALL) {
                return Ok(wrong);
            }
            if arrived != last.1 {
                last = (Instant::now(), arrived);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// What is missing, too much or wrong of what was sent.
fn wrong(load: &Load, sent: &load::Stats, arrived: &Stats) -> Option<String> {
    if arrived.malformed > 0 {
        return Some(format!("{} malformed requests: {}", arrived.malformed, arrived.malformed_last));
    }
    let (what, came, wanted) = match load.work {
        Work::SpanMetrics => ("spans were counted", arrived.calls, sent.items),
        // Each request tells of its resource once, in a sample of `target_info`.
        Work::RemoteWrite => ("samples arrived", arrived.samples, sent.items + sent.requests),
        Work::Rename if arrived.renamed != arrived.items => ("items have the new name", arrived.renamed, arrived.items),
        Work::Filter => ("items arrived", arrived.items, sent.items - sent.items / DROPPED_EVERY),
        _ => ("items arrived", arrived.items, sent.items),
    };
    let count = |count: u64, what: &str| (count > 0).then(|| format!("{count} {what}"));
    count(arrived.damaged, "items arrived damaged")
        // A request that was sent again may have come twice.
        .or_else(|| if sent.again > 0 { None } else { count(arrived.duplicate, "items arrived again") })
        .or_else(|| (came != wanted).then(|| format!("{came} of {wanted} {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_void_when_items_are_missing_doubled_or_wrong() {
        let load = Load { signal: Signal::Logs, work: Work::Plain, items: 10, rate: 100 };
        let sent = load::Stats { items: 100, ..load::Stats::default() };
        let arrived = Stats { items: 100, renamed: 100, ..Stats::default() };
        assert_eq!(wrong(&load, &sent, &arrived), None);
        assert_eq!(wrong(&load, &sent, &Stats { items: 99, ..arrived.clone() }).unwrap(), "99 of 100 items arrived");
        assert!(wrong(&load, &sent, &Stats { duplicate: 1, ..arrived.clone() }).is_some());
        let again = load::Stats { again: 1, ..sent.clone() };
        assert!(wrong(&load, &again, &Stats { duplicate: 1, ..arrived.clone() }).is_none());
        assert!(wrong(&load, &sent, &Stats { damaged: 1, ..arrived.clone() }).is_some());
        let rename = Load { work: Work::Rename, ..load };
        assert_eq!(wrong(&rename, &sent, &arrived), None);
        assert!(wrong(&rename, &sent, &Stats { renamed: 99, ..arrived.clone() }).is_some());
        let filter = Load { work: Work::Filter, ..load };
        assert_eq!(wrong(&filter, &sent, &Stats { items: 90, ..arrived }), None);
    }
}
