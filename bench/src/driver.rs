//! `run`: starts target, sink and subject, measures between two moments, and puts pairs side by side.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::json;

use crate::{
    args::Args,
    callgrind,
    error::{Context, Error, Result},
    hole::Hole,
    http::{self, Follow},
    logs::{self, Load, Way},
    otlp,
    peers::{self, PEERS},
    process::Process,
    procfs::{self, Cpu, Memory},
    report::{self, Run, Totals},
    scenario::{self, Kind, Pipeline, SCENARIOS, Scenario},
    sink::{self, Second, delay_percentile},
    stats::Summary,
    subject::{self, Job, Subject, Targets},
    target,
};

/// How often memory is looked at.
const MEMORY_EVERY: Duration = Duration::from_millis(200);

/// How often a condition is looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often readiness is asked for.
const READY_EVERY: Duration = Duration::from_micros(500);

/// How long a subject may take until it is ready.
const READY_WAIT: Duration = Duration::from_secs(60);

/// How long an idle subject rests before it is looked at, and how long it is looked at then.
const IDLE_REST: Duration = Duration::from_secs(10);
const IDLE_WINDOW: Duration = Duration::from_secs(4);

/// Starts in one run of `start`; the first only warms the page cache.
const STARTS: usize = 6;

/// A run that delivers less than this share of the planned samples within the window is void.
const DELIVERED_SHARE_MIN: f64 = 0.9;

/// With fewer targets than this, the edges of the window are kept away from their scrapes.
const FEW_TARGETS: usize = 8;

/// The cap of the queue beside a black hole: some minutes of samples, so that it is reached before long.
const HOLE_QUEUE_CAP: &str = "8MiB";

/// Bytes of a MiB.
pub(crate) const MIB: f64 = 1_048_576.0;

/// The settings of the command.
#[derive(Debug)]
pub(crate) struct Settings {
    scenario: &'static Scenario,
    subjects: Vec<Subject>,
    pairs: usize,
    window: Duration,
    seed: u64,
    /// The port of the targets in all runs: it is part of what tells them apart, and so decides when in the interval each is
    /// scraped.
    target_port: u16,
    gzip: bool,
    pin: bool,
    keep: bool,
    dir: PathBuf,
    out: Option<PathBuf>,
}

impl Settings {
    /// Takes the settings from the command line.
    pub(crate) fn take(args: &mut Args) -> Result<Self> {
        let names = || SCENARIOS.iter().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ");
        let name = args.positional().ok_or_else(|| Error::new(format!("which scenario? one of {}", names())))?;
        let scenario = scenario::find(&name)
            .ok_or_else(|| Error::new(format!("there is no scenario {name:?}, only {}", names())))?;
        let build = peers::build_dir()?;
        let peers_dir = args.text("--peers-dir")?.map_or_else(|| build.join("peers"), PathBuf::from);

        let extra = args.texts("--ours-arg")?;
        let mut subjects = Vec::new();
        for (index, path) in args.texts("--ours")?.into_iter().enumerate() {
            // Subjects are started in a directory of their own.
            let binary = fs::canonicalize(&path).context(format!("option --ours: {path}"))?;
            let name = if index == 0 { "corten".to_owned() } else { format!("corten{}", index + 1) };
            subjects.push(Subject {
                name,
                kind: subject::Kind::CortenRun,
                binary,
                extra: extra.clone(),
                version: None,
                libraries: Vec::new(),
            });
        }
        let wanted = args.text("--peers")?.unwrap_or_else(|| scenario.peers().to_owned());
        for name in wanted.split(',').filter(|name| !name.is_empty() && *name != "none") {
            let peer = PEERS
                .iter()
                .find(|peer| peer.name == name)
                .ok_or_else(|| Error::new(format!("option --peers: there is no peer {name:?}")))?;
            subjects.push(peer.subject(&peers_dir)?);
        }
        if subjects.is_empty() {
            return Err(Error::new("nothing to measure: give --ours or --peers"));
        }
        if scenario.alone() && (subjects.len() != 1 || subjects[0].kind != subject::Kind::CortenRun) {
            return Err(Error::new(format!("{name} compares ours with itself: give one --ours and no peers")));
        }
        let settings = Self {
            scenario,
            subjects,
            pairs: args.parsed("--pairs", 5)?,
            window: args.duration("--window")?.unwrap_or_else(|| scenario.window()),
            seed: args.parsed("--seed", 1)?,
            target_port: subject::free_address()?.port(),
            gzip: args.flag("--gzip"),
            pin: args.flag("--pin"),
            keep: args.flag("--keep"),
            dir: args.text("--work-dir")?.map_or_else(|| build.join("bench"), PathBuf::from),
            out: args.text("--out")?.map(PathBuf::from),
        };
        if settings.pairs == 0 || settings.window.is_zero() {
            return Err(Error::new("options --pairs and --window must not be zero"));
        }
        Ok(settings)
    }

    /// How one run is done. The two sides of a pair have the same seed.
    fn run<'a>(&self, dir: &'a Path, pair: usize) -> logs::Settings<'a> {
        let seed = self.seed.wrapping_add(pair as u64 - 1);
        logs::Settings { dir, cpus: self.cpus(), window: self.window, seed }
    }

    /// The processor of the subject and that of the harness, if they are to be kept apart.
    fn cpus(&self) -> (Option<usize>, Option<usize>) {
        if self.pin { (Some(0), Some(1)) } else { (None, None) }
    }
}

/// A subject as one of those that are put side by side.
#[derive(Debug)]
struct Side<'a> {
    /// What the report calls it.
    name: String,
    subject: &'a Subject,
    work: Work,
}

/// What a side has to do that others may not.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// What the scenario says.
    Pipeline(Pipeline),
    /// The same, with a small queue and perhaps a second endpoint that never answers.
    Queue(Pipeline, bool),
    /// The same, with the instructions counted, while somebody looks at what passes or not.
    Instructions(Pipeline, bool),
    Logs(Load, Way),
    Otlp(otlp::Load),
    /// The same, with the instructions counted, while somebody looks at what passes or not.
    OtlpInstructions(otlp::Load, bool),
    Idle,
    Start,
}

/// All sides; the first is compared with each other one.
fn sides<'a>(kind: &Kind, subjects: &'a [Subject]) -> Vec<Side<'a>> {
    let side =
        |subject: &'a Subject, what: &str, work: Work| Side { name: format!("{}{what}", subject.name), subject, work };
    let of = |subject: &'a Subject| match *kind {
        Kind::Pipeline(pipeline) => vec![side(subject, "", Work::Pipeline(pipeline))],
        Kind::BlackHole(pipeline) => vec![
            side(subject, " beside a hole", Work::Queue(pipeline, true)),
            side(subject, " without", Work::Queue(pipeline, false)),
        ],
        Kind::Instructions(pipeline) => vec![
            side(subject, " with rules", Work::Instructions(Pipeline { relabel: true, ..pipeline }, false)),
            side(subject, " without", Work::Instructions(pipeline, false)),
        ],
        Kind::LiveView(pipeline) => [(" looked at", true), ("", false)]
            .map(|(what, looked)| side(subject, what, Work::Instructions(pipeline, looked)))
            .into(),
        Kind::OtlpLiveView(load) => [(" looked at", true), ("", false)]
            .map(|(what, looked)| side(subject, what, Work::OtlpInstructions(load, looked)))
            .into(),
        Kind::Logs(load) => {
            let way = if load.rate > 0 { Way::Steady } else { Way::Backlog };
            vec![side(subject, "", Work::Logs(load, way))]
        }
        Kind::LogsQueue(load) => [("", true), (" without a disk", false)]
            .map(|(what, durable)| side(subject, what, Work::Logs(load, Way::Counted { durable })))
            .into(),
        Kind::LogsRest(load) => vec![
            side(subject, " with files", Work::Logs(load, Way::Rest)),
            side(subject, " without", Work::Logs(Load { files: 0, ..load }, Way::Rest)),
        ],
        Kind::Otlp(load) => vec![side(subject, "", Work::Otlp(load))],
        Kind::OtlpSmall(load) => vec![
            side(subject, " of ten", Work::Otlp(otlp::Load { items: 10, ..load })),
            side(subject, " of a thousand", Work::Otlp(load)),
        ],
        Kind::Idle => vec![side(subject, "", Work::Idle)],
        Kind::Start => vec![side(subject, "", Work::Start)],
    };
    subjects.iter().flat_map(of).collect()
}

/// Runs the scenario. `say` is told of progress; the tables are returned, and whether every run was valid.
pub(crate) async fn run(settings: Settings, mut say: impl FnMut(String)) -> Result<(String, bool)> {
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let scenario = settings.scenario;
    let session = settings.dir.join(format!("{}-{began}", scenario.name));
    let mut runs: Vec<Run> = Vec::new();
    let sides = sides(&scenario.kind, &settings.subjects);
    for pair in 1..=settings.pairs {
        for side in &sides {
            say(format!("{} #{pair} of {}: {}", scenario.name, settings.pairs, side.name));
            let dir = session.join(format!("{pair}-{}", side.name.replace(' ', "-")));
            fs::create_dir_all(&dir).context(format!("cannot make {}", dir.display()))?;
            let dir = fs::canonicalize(&dir).context(format!("cannot find {}", dir.display()))?;
            let measured = match &side.work {
                Work::Pipeline(pipeline) | Work::Queue(pipeline, _) | Work::Instructions(pipeline, _) => {
                    measure_pipeline(&settings, pipeline, side, pair, &dir).await
                }
                Work::Logs(load, way) => logs::measure(settings.run(&dir, pair), side.subject, load, *way).await,
                Work::Otlp(load) => otlp::measure(settings.run(&dir, pair), side.subject, load, None).await,
                Work::OtlpInstructions(load, looked) => {
                    otlp::measure(settings.run(&dir, pair), side.subject, load, Some(*looked)).await
                }
                Work::Idle => measure_idle(&settings, side.subject, &dir).await,
                Work::Start => measure_start(&settings, side.subject, &dir).await,
            };
            let (figures, void) = match measured {
                Ok((figures, void)) => (figures, void),
                Err(error) => (Figures::new(), Some(error.to_string())),
            };
            if let Some(why) = &void {
                say(format!("  void: {why}"));
            }
            if !settings.keep {
                // What cannot be removed lies below the build directory and does no harm.
                let _ = fs::remove_dir_all(&dir);
            }
            runs.push(Run { subject: side.name.clone(), pair, figures, void });
        }
    }
    if !settings.keep {
        let _ = fs::remove_dir_all(&session);
    }

    let names: Vec<String> = sides.iter().map(|side| side.name.clone()).collect();
    let columns = report::columns(&scenario.kind);
    let totals = Totals::of(&names, columns, &runs);
    let (model, kernel) = procfs::machine();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let mut versions = BTreeMap::new();
    for subject in &settings.subjects {
        versions.insert(subject.name.clone(), version(subject).await);
    }
    let document = json!({
        "scenario": scenario.name,
        "about": scenario.about,
        "began_unix_seconds": began,
        "pairs": settings.pairs,
        "window_ms": settings.window.as_millis() as u64,
        "seed": settings.seed,
        "gzip": settings.gzip,
        "pinned": settings.pin,
        "machine": { "processor": model, "kernel": kernel, "cores": cores },
        "versions": versions,
        "runs": runs,
        "totals": totals,
    });
    let out = settings
        .out
        .clone()
        .unwrap_or_else(|| settings.dir.join("results").join(format!("{}-{began}.json", scenario.name)));
    if let Some(parent) = out.parent() {
        fs::create_dir_all(parent).context(format!("cannot make {}", parent.display()))?;
    }
    let text = serde_json::to_string_pretty(&document).context("cannot write the results")?;
    fs::write(&out, text + "\n").context(format!("cannot write {}", out.display()))?;

    let mut report = format!("## {}: {}\n\n{model}, {cores} cores, Linux {kernel}", scenario.name, scenario.about);
    for (name, version) in &versions {
        report += &format!("; {name}: {version}");
    }
    report += &format!("\n\n{}\nresults: {}\n", totals.markdown(columns, &runs), out.display());
    Ok((report, runs.iter().all(|run| run.void.is_none())))
}

/// The version of the package, or the first line that the program says of its version.
async fn version(subject: &Subject) -> String {
    if let Some(version) = &subject.version {
        return version.clone();
    }
    let mut command = tokio::process::Command::new(&subject.binary);
    command.arg("--version").kill_on_drop(true);
    let said = tokio::time::timeout(Duration::from_secs(5), command.output()).await;
    let Ok(Ok(output)) = said else { return "unknown".to_owned() };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("unknown");
    line.trim().chars().take(120).collect()
}

/// Figures by column, and why they say nothing, if so.
pub(crate) type Measured = Result<(Figures, Option<String>)>;

/// Figures by column.
pub(crate) type Figures = BTreeMap<&'static str, f64>;

/// All that is read at one edge of a window.
pub(crate) struct Edge {
    /// The moment.
    pub(crate) at: Instant,
    unix_ms: i64,
    /// The subject's processor time.
    pub(crate) subject: Cpu,
    harness: Vec<Cpu>,
    machine: (u64, u64),
    /// Bytes that the subject has caused to be written to storage.
    pub(crate) written: Option<u64>,
}

impl Edge {
    /// Reads all of it now.
    pub(crate) fn read(subject: u32, harness: &[u32]) -> Result<Self> {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            at: Instant::now(),
            unix_ms: i64::try_from(unix.as_millis()).unwrap_or(i64::MAX),
            subject: Cpu::read(subject)?,
            harness: harness.iter().map(|&pid| Cpu::read(pid)).collect::<Result<_>>()?,
            machine: procfs::machine_busy()?,
            written: procfs::written(subject),
        })
    }

    /// Puts in what the machine did besides the subject.
    pub(crate) fn load(&self, before: &Self, figures: &mut Figures) {
        let seconds = (self.at - before.at).as_secs_f64();
        let cores = |ns: u64| ns as f64 / 1e9 / seconds;
        let subject = self.subject.since(&before.subject).total_ns;
        let harness: u64 =
            self.harness.iter().zip(&before.harness).map(|(now, before)| now.since(before).total_ns).sum();
        let busy = self.machine.0.saturating_sub(before.machine.0);
        figures.insert("harness_cores", cores(harness));
        figures.insert("other_cores", cores(busy.saturating_sub(subject + harness)));
        figures.insert("stolen_cores", cores(self.machine.1.saturating_sub(before.machine.1)));
    }
}

/// Looks at the memory until the moment comes; gives the means.
pub(crate) async fn watch_memory(subject: &mut Process, until: Instant, figures: &mut Figures) -> Result<()> {
    procfs::reset_peak(subject.pid())?;
    let (mut count, mut rss, mut anonymous) = (0.0, 0.0, 0.0);
    let mut next = Instant::now();
    loop {
        subject.check()?;
        let memory = Memory::read(subject.pid())?;
        count += 1.0;
        rss += memory.rss as f64;
        anonymous += memory.anonymous as f64;
        figures.insert("rss_peak_mib", memory.peak as f64 / MIB);
        figures.insert("threads", memory.threads as f64);
        next += MEMORY_EVERY;
        if next >= until {
            break;
        }
        tokio::time::sleep_until(next.into()).await;
    }
    tokio::time::sleep_until(until.into()).await;
    figures.insert("rss_mean_mib", rss / count / MIB);
    figures.insert("anonymous_mean_mib", anonymous / count / MIB);
    Ok(())
}

/// The path of what a component takes and hands on, as it happens.
pub(crate) fn live_view(component: &str) -> String {
    format!("/api/v0/corten/tap/{component}?side=both")
}

async fn measure_pipeline(
    settings: &Settings,
    pipeline: &Pipeline,
    side: &Side<'_>,
    pair: usize,
    dir: &Path,
) -> Measured {
    let subject = side.subject;
    let (hole, queue_cap) = match side.work {
        Work::Queue(_, true) => (Some(Hole::open().await?), Some(HOLE_QUEUE_CAP)),
        Work::Queue(_, false) => (None, Some(HOLE_QUEUE_CAP)),
        _ => (None, None),
    };
    let counted = matches!(side.work, Work::Instructions(..));
    let looked_at = matches!(side.work, Work::Instructions(_, true));
    let (subject_cpu, harness_cpu) = settings.cpus();
    let (list, file_sd) = (dir.join("targets.list"), dir.join("targets.json"));
    let mut args = vec![
        format!("--targets={}", pipeline.targets),
        format!("--series={}", pipeline.series),
        format!("--churn={}", pipeline.churn),
        // The two sides of a pair get the same pages; the next pair gets others.
        format!("--seed={}", settings.seed.wrapping_add(pair as u64 - 1)),
        format!("--port={}", settings.target_port),
        format!("--list={}", list.display()),
        format!("--file-sd={}", file_sd.display()),
    ];
    if settings.gzip {
        args.push("--gzip".to_owned());
    }
    let (mut target, target_at) = Process::harness("target", &args, dir, harness_cpu).await?;
    let (mut sink, sink_at) = Process::harness("sink", &[], dir, harness_cpu).await?;
    let (target_at, sink_at) = (target_at.address, sink_at.address);

    let launch = subject.prepare(&Job {
        dir,
        interval: pipeline.interval,
        targets: Some(Targets { list: &list, file_sd: &file_sd }),
        sink: sink_at,
        relabel: pipeline.relabel,
        hole: hole.as_ref().map(Hole::address),
        queue_cap,
        live_view: looked_at,
    })?;
    let (program, args) = match counted {
        true => callgrind::command(&subject.binary, &launch.args, dir),
        false => (subject.binary.clone(), launch.args.clone()),
    };
    let mut process = Process::start(&subject.name, &program, &args, dir, subject_cpu)?;

    // First scrapes are spread over an interval; a peer may rest before the first, and batch for some seconds.
    let give_up = Instant::now() + pipeline.interval * 4 + Duration::from_secs(60);
    loop {
        process.check()?;
        let stats: sink::Stats = http::get_json(sink_at, "/stats").await?;
        if stats.targets_seen >= pipeline.targets as u64 {
            break;
        }
        if Instant::now() > give_up {
            let seen = stats.targets_seen;
            return Err(Error::new(format!("only {seen} of {} targets arrived in time", pipeline.targets)));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    tokio::time::sleep(pipeline.interval * 2).await;
    let told_at = || launch.ready.ok_or_else(|| Error::new("it does not tell its metrics"));
    if let Some(hole) = &hole {
        hole.wait_full(told_at()?).await?;
    }
    if pipeline.targets < FEW_TARGETS {
        away_from_scrapes(&mut process, pipeline, sink_at).await?;
    }

    let view = match looked_at {
        true => Some(Follow::start(told_at()?, &live_view("prometheus.scrape.bench")).await?),
        false => None,
    };
    let mut figures = Figures::new();
    let harness = [target.pid(), sink.pid(), std::process::id()];
    let sink_before: sink::Stats = http::get_json(sink_at, "/stats").await?;
    let target_before: target::Stats = http::get_json(target_at, "/stats").await?;
    let dropped_before = match &hole {
        Some(hole) => hole.dropped(told_at()?).await?,
        None => 0.0,
    };
    if counted {
        callgrind::zero(process.pid()).await?;
    }
    let shown_before = view.as_ref().map(Follow::items);
    let before = Edge::read(process.pid(), &harness)?;
    let length = pipeline.interval * intervals(settings.window, pipeline.interval);
    watch_memory(&mut process, before.at + length, &mut figures).await?;
    let sink_after: sink::Stats = http::get_json(sink_at, "/stats").await?;
    let target_after: target::Stats = http::get_json(target_at, "/stats").await?;
    let shown = view.as_ref().zip(shown_before).map(|(view, before)| view.items() - before);
    // Last: it holds up the subject while it writes.
    let instructions = if counted { Some(callgrind::count(process.pid(), dir).await?) } else { None };
    let after = Edge::read(process.pid(), &harness)?;

    after.load(&before, &mut figures);
    let seconds = (after.at - before.at).as_secs_f64();
    let payload = (sink_after.payload - sink_before.payload) as f64;
    let spent = after.subject.since(&before.subject);
    let samples = (sink_after.samples - sink_before.samples) as f64;
    let requests = (sink_after.sample_requests - sink_before.sample_requests) as f64;
    let wire = (sink_after.sample_wire_bytes - sink_before.sample_wire_bytes) as f64;
    figures.insert("samples_per_second", payload / seconds);
    figures.insert("cpu_us_per_sample", spent.total_ns as f64 / 1e3 / payload);
    figures.insert("cpu_user_share", spent.user_share);
    figures.insert("wire_bytes_per_sample", wire / samples);
    figures.insert("samples_per_request", samples / requests);
    figures.insert("stale_per_sample", (sink_after.stale - sink_before.stale) as f64 / payload);
    figures.insert("automatic_per_sample", (sink_after.automatic - sink_before.automatic) as f64 / payload);
    figures.insert("window_seconds", seconds);
    figures.insert("data_directory_mib", procfs::directory_bytes(dir.join("data")) as f64 / MIB);
    if let (Some(before), Some(after)) = (before.written, after.written) {
        figures.insert("written_bytes_per_sample", after.saturating_sub(before) as f64 / payload);
    }
    for (key, share) in [("delay_p50_ms", 0.5), ("delay_p99_ms", 0.99)] {
        let delay = delay_percentile(&sink_before.delay, &sink_after.delay, share);
        figures.extend(delay.map(|delay| (key, delay)));
    }
    figures.extend(procfs::proportional(process.pid()).map(|bytes| ("proportional_mib", bytes as f64 / MIB)));
    if let Some(instructions) = instructions {
        figures.insert("instructions_per_sample", instructions as f64 / payload);
        figures.insert("instructions_per_second", instructions as f64 / seconds);
    }
    figures.extend(shown.map(|shown| ("shown_per_second", shown as f64 / seconds)));
    let mut void = view.as_ref().and_then(Follow::ended);
    if let Some(hole) = &hole {
        let dropped = hole.dropped(told_at()?).await? - dropped_before;
        figures.insert("hole_dropped_per_second", dropped / seconds);
        figures.insert("hole_connections", hole.connections() as f64);
        if dropped <= 0.0 {
            void = Some("nothing was dropped for the hole: its queue was not at its cap".to_owned());
        }
    }
    // A figure that would divide by nothing is none.
    figures.retain(|_, value| value.is_finite());

    let planned = pipeline.rate() * seconds;
    let scraped = (target_after.scrapes - target_before.scrapes) as f64 * pipeline.series as f64;
    figures.insert("scraped_share", scraped / planned);
    let missing = settle(&mut process, pipeline, sink_at, before.unix_ms, after.unix_ms).await?;
    let void = missing.or(void).or_else(|| {
        (payload < planned * DELIVERED_SHARE_MIN).then(|| {
            let share = |samples: f64| 100.0 * samples / planned;
            format!("{:.0} % of the planned samples arrived, {:.0} % were scraped", share(payload), share(scraped))
        })
    });
    process.stop().await?;
    target.check()?;
    sink.check()?;
    target.stop().await?;
    sink.stop().await?;
    Ok((figures, void))
}

/// Whole intervals that last at least as long as the window.
fn intervals(window: Duration, interval: Duration) -> u32 {
    u32::try_from(window.as_millis().div_ceil(interval.as_millis().max(1))).unwrap_or(u32::MAX).max(1)
}

/// Waits for the middle between two scrapes, so that neither edge cuts one.
async fn away_from_scrapes(process: &mut Process, pipeline: &Pipeline, sink: SocketAddr) -> Result<()> {
    let first: sink::Stats = http::get_json(sink, "/stats").await?;
    let give_up = Instant::now() + pipeline.interval * 4;
    loop {
        process.check()?;
        let stats: sink::Stats = http::get_json(sink, "/stats").await?;
        if stats.scrapes > first.scrapes {
            break;
        }
        if Instant::now() > give_up {
            return Err(Error::new("scrapes stopped arriving"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    tokio::time::sleep(pipeline.interval / 2).await;
    Ok(())
}

/// Waits until what was scraped within the window has arrived whole; says what is missing if it does not.
///
/// Only then is the subject stopped: what it would drop or keep on disk when it is stopped is not what is measured.
async fn settle(
    process: &mut Process,
    pipeline: &Pipeline,
    sink: SocketAddr,
    from_ms: i64,
    to_ms: i64,
) -> Result<Option<String>> {
    let give_up = Instant::now() + (pipeline.interval * 2).max(Duration::from_secs(20));
    loop {
        process.check()?;
        let stats: sink::Stats = http::get_json(sink, "/stats").await?;
        let seconds: BTreeMap<i64, Second> = http::get_json(sink, "/seconds").await?;
        let why = missing(&stats, &seconds, pipeline, from_ms, to_ms);
        if why.is_none() || Instant::now() > give_up {
            return Ok(why);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What is missing or too much of what was scraped within the window.
fn missing(
    stats: &sink::Stats,
    seconds: &BTreeMap<i64, Second>,
    pipeline: &Pipeline,
    from_ms: i64,
    to_ms: i64,
) -> Option<String> {
    if stats.malformed > 0 {
        return Some(format!("{} malformed requests: {}", stats.malformed, stats.malformed_last));
    }
    if stats.lost > 0 {
        return Some(format!("{} scrapes lost", stats.lost));
    }
    if stats.duplicate > 0 {
        return Some(format!("{} scrapes arrived again", stats.duplicate));
    }
    if stats.invalid_sequences > 0 {
        return Some(format!("{} impossible sequence numbers", stats.invalid_sequences));
    }
    // Seconds that lie within the window as a whole.
    let whole = from_ms.div_euclid(1000) + 1..to_ms.div_euclid(1000);
    let wrong = seconds
        .iter()
        .filter(|(at, _)| whole.contains(at))
        .map(|(at, second)| (at, second, second.scrapes * pipeline.series as u64))
        .find(|(_, second, wanted)| second.payload != *wanted);
    wrong.map(|(at, second, wanted)| {
        format!("of the {} scrapes of second {at}, {} of {wanted} samples arrived", second.scrapes, second.payload)
    })
}

/// An address at which nobody listens, for subjects that have nothing to send.
fn nowhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9))
}

fn empty_job(dir: &Path) -> Job<'_> {
    Job {
        dir,
        interval: Duration::from_secs(5),
        targets: None,
        sink: nowhere(),
        relabel: false,
        hole: None,
        queue_cap: None,
        live_view: false,
    }
}

async fn measure_idle(settings: &Settings, subject: &Subject, dir: &Path) -> Measured {
    let launch = subject.prepare(&empty_job(dir))?;
    let mut process = Process::start(&subject.name, &subject.binary, &launch.args, dir, settings.cpus().0)?;
    if let Some(ready) = launch.ready {
        wait_ready(ready).await?;
    }
    tokio::time::sleep(IDLE_REST).await;
    process.check()?;
    let mut figures = Figures::new();
    let harness = [std::process::id()];
    let before = Edge::read(process.pid(), &harness)?;
    watch_memory(&mut process, before.at + IDLE_WINDOW, &mut figures).await?;
    let after = Edge::read(process.pid(), &harness)?;
    after.load(&before, &mut figures);
    let seconds = (after.at - before.at).as_secs_f64();
    let spent = after.subject.since(&before.subject).total_ns as f64;
    figures.insert("cpu_ms_per_second", spent / 1e6 / seconds);
    figures.extend(procfs::proportional(process.pid()).map(|bytes| ("proportional_mib", bytes as f64 / MIB)));
    process.stop().await?;
    Ok((figures, None))
}

async fn measure_start(settings: &Settings, subject: &Subject, dir: &Path) -> Measured {
    let (mut ready_ms, mut cpu_ms) = (Vec::new(), Vec::new());
    let mut figures = Figures::new();
    let machine_before = (Instant::now(), procfs::machine_busy()?.0);
    let mut subject_ns = 0;
    for start in 0..STARTS {
        let dir = dir.join(start.to_string());
        fs::create_dir_all(&dir).context(format!("cannot make {}", dir.display()))?;
        let launch = subject.prepare(&empty_job(&dir))?;
        let ready =
            launch.ready.ok_or_else(|| Error::new(format!("{} does not say when it is ready", subject.name)))?;
        let began = Instant::now();
        let process = Process::start(&subject.name, &subject.binary, &launch.args, &dir, settings.cpus().0)?;
        let took = wait_ready(ready).await? - began;
        let spent = Cpu::read(process.pid())?.since(&Cpu::default()).total_ns;
        subject_ns += spent;
        if start > 0 {
            ready_ms.push(took.as_secs_f64() * 1e3);
            cpu_ms.push(spent as f64 / 1e6);
        }
        process.stop().await?;
    }
    let busy = procfs::machine_busy()?.0.saturating_sub(machine_before.1 + subject_ns);
    figures.insert("other_cores", busy as f64 / 1e9 / machine_before.0.elapsed().as_secs_f64());
    for (key, values) in [("ready_ms", ready_ms), ("cpu_ms", cpu_ms)] {
        figures.extend(Summary::of(values).map(|summary| (key, summary.median)));
    }
    Ok((figures, None))
}

/// Asks until `/-/ready` answers 200; gives the moment. On a thread of its own, whose sleep is finer than the runtime's.
pub(crate) async fn wait_ready(address: SocketAddr) -> Result<Instant> {
    let asked = tokio::task::spawn_blocking(move || {
        let give_up = Instant::now() + READY_WAIT;
        loop {
            if is_ready(address) {
                return Ok(Instant::now());
            }
            if Instant::now() > give_up {
                return Err(Error::new(format!("not ready within {} s", READY_WAIT.as_secs())));
            }
            std::thread::sleep(READY_EVERY);
        }
    });
    asked.await.context("cannot ask whether it is ready")?
}

fn is_ready(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<Option<u16>> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(format!("GET /-/ready HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
        let mut line = [0; 12];
        stream.read_exact(&mut line)?;
        Ok(http::status(&line))
    };
    matches!(ask(), Ok(Some(200)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPELINE: Pipeline =
        Pipeline { targets: 2, series: 100, interval: Duration::from_secs(5), churn: 0.0, relabel: false };

    #[test]
    fn windows_are_whole_intervals() {
        let seconds = Duration::from_secs;
        assert_eq!(intervals(seconds(30), seconds(5)), 6);
        assert_eq!(intervals(seconds(31), seconds(15)), 3);
        assert_eq!(intervals(Duration::from_millis(1), seconds(5)), 1);
    }

    #[test]
    fn a_run_is_void_when_something_is_missing_or_too_much() {
        let whole = Second { payload: 200, scrapes: 2 };
        let part = Second { payload: 199, scrapes: 2 };
        let clean = sink::Stats::default();
        let why = |stats: &sink::Stats, seconds: &[(i64, Second)]| {
            missing(stats, &seconds.iter().copied().collect(), &PIPELINE, 100_500, 110_500)
        };
        assert_eq!(why(&clean, &[(101, whole), (109, whole)]), None);
        // Seconds that the edges cut are not judged.
        assert_eq!(why(&clean, &[(100, part), (101, whole), (110, part)]), None);
        let text = "of the 2 scrapes of second 105, 199 of 200 samples arrived";
        assert_eq!(why(&clean, &[(105, part)]).as_deref(), Some(text));
        // Samples whose sequence number never arrived.
        assert!(why(&clean, &[(105, Second { payload: 99, scrapes: 0 })]).is_some());
        let lost = sink::Stats { lost: 3, ..clean.clone() };
        assert_eq!(why(&lost, &[]).as_deref(), Some("3 scrapes lost"));
        assert!(why(&sink::Stats { duplicate: 1, ..clean.clone() }, &[]).is_some());
        assert!(why(&sink::Stats { malformed: 1, ..clean }, &[]).is_some());
    }

    #[test]
    fn settings_are_refused_when_they_make_no_sense() {
        let take = |line: &str| Settings::take(&mut Args::new(line.split_whitespace().map(str::to_owned)));
        let error = |line: &str| take(line).unwrap_err().to_string();
        assert!(error("").starts_with("which scenario? one of blackhole, idle, "));
        assert!(error("s9").starts_with("there is no scenario \"s9\""));
        assert_eq!(error("s1 --peers none"), "nothing to measure: give --ours or --peers");
        assert!(error("s1 --peers alloy").contains("there is no peer \"alloy\""));
        assert!(error("s1 --peers vmagent --peers-dir /nonexistent").starts_with("not run: vmagent"));
        assert!(error("s1 --peers none --ours /nonexistent/corten").starts_with("option --ours"));
        let one = "relabel compares ours with itself: give one --ours and no peers";
        assert_eq!(error("relabel --ours /bin/sh --ours /bin/sh"), one);
        assert!(error("s1 --peers none --ours /bin/sh --pairs 0").contains("must not be zero"));
        let settings = take("s1 --peers none --ours /bin/sh --ours /bin/sh --window 60s --pin").unwrap();
        let names: Vec<_> = settings.subjects.iter().map(|subject| subject.name.as_str()).collect();
        assert_eq!((names, settings.cpus()), (vec!["corten", "corten2"], (Some(0), Some(1))));
    }

    #[test]
    fn a_hole_and_rules_are_put_beside_the_same_without() {
        let subject = |name: &str| Subject {
            name: name.to_owned(),
            kind: subject::Kind::CortenRun,
            binary: PathBuf::from("x"),
            extra: Vec::new(),
            version: None,
            libraries: Vec::new(),
        };
        let subjects = [subject("corten")];
        let named = |kind: &Kind| sides(kind, &subjects).into_iter().map(|side| side.name).collect::<Vec<_>>();
        assert_eq!(named(&Kind::BlackHole(PIPELINE)), ["corten beside a hole", "corten without"]);
        let all = sides(&Kind::Instructions(PIPELINE), &subjects);
        let rules =
            all.iter().map(|side| matches!(side.work, Work::Instructions(Pipeline { relabel: true, .. }, false)));
        assert_eq!(rules.collect::<Vec<_>>(), [true, false]);
        let named =
            |name: &str| sides(&scenario::find(name).unwrap().kind, &subjects).into_iter().map(|side| side.name);
        assert_eq!(named("l5").collect::<Vec<_>>(), ["corten with files", "corten without"]);
        assert_eq!(named("l6").collect::<Vec<_>>(), ["corten", "corten without a disk"]);
        assert_eq!(sides(&Kind::Pipeline(PIPELINE), &[subject("a"), subject("b")]).len(), 2);
    }

    #[tokio::test]
    async fn readiness_is_the_first_200() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let count = std::sync::Arc::clone(&asked);
        tokio::spawn(http::serve(listener, move |_| {
            let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let status = if number < 2 { hyper::StatusCode::SERVICE_UNAVAILABLE } else { hyper::StatusCode::OK };
            async move { http::text(status, "") }
        }));
        wait_ready(address).await.unwrap();
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 3);
    }
}
