//! Components through which log entries flow when a test asks for it, and one with many targets.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use corten_component::context::{DebugInfo, HttpHandler};
use corten_component::targets::{DroppedBy, LastTime, ShownTarget, TargetState, TargetView};
use corten_component::{Component, Context, Definition, Error};
use corten_config::decode::Secret;
use corten_config::encode::Item;
use corten_config::{Arguments, Exports};
use corten_signal::flow::BoxFuture;
use corten_signal::ledger::{End, EndSnapshot, Kind, Ledger};
use corten_signal::target::Target;
use corten_signal::{Consume, ConsumeError, Fanout, Inlet, Logs, LogsBatch, Receiver};
use corten_testkit::logs;
use parking_lot::{Condvar, Mutex};

/// All, sorted by name.
pub(crate) const FLOW: &[Definition] = &[
    Definition::of::<Emit>(),
    Definition::of::<Keep>(),
    Definition::of::<Slow>(),
    Definition::of::<Many>(),
    Definition::of::<Uses>(),
];

/// Sends entries.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct EmitArguments {
    /// Where to.
    forward_to: Vec<Receiver<Logs>>,
}

/// A request for `/3` sends three entries.
pub(crate) struct Emit;

impl Component for Emit {
    const NAME: &'static str = "test.emit";
    type Arguments = EmitArguments;
    type Exports = ();
    type Prepared = Fanout<Logs>;

    async fn prepare(
        arguments: EmitArguments,
        cx: &Context<Self>,
        _: Option<&Self>,
    ) -> Result<(Fanout<Logs>, ()), Error> {
        Ok((Fanout::of(cx.ledger(), arguments.forward_to), ()))
    }

    fn commit(_: Option<Self>, fanout: Fanout<Logs>, cx: &Context<Self>) -> Self {
        cx.serve_http(Arc::new(Sender { fanout, ledger: Arc::clone(cx.ledger()) }));
        Emit
    }
}

struct Sender {
    fanout: Fanout<Logs>,
    ledger: Arc<Ledger>,
}

impl HttpHandler for Sender {
    fn handle(&self, request: http::Request<()>) -> BoxFuture<'_, http::Response<Bytes>> {
        Box::pin(async move {
            let count: usize = request.uri().path().trim_start_matches('/').parse().unwrap_or(1);
            let lines: Vec<String> = (1..=count).map(|at| format!("line {at} token=hush-hush level=info")).collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let sent = self.fanout.consume(logs(&[("job", "test")], &lines)).await;
            if sent.is_ok() {
                self.ledger.row(Kind::LokiLog).received(count);
            }
            http::Response::new(Bytes::from(format!("{sent:?}")))
        })
    }
}

/// Takes entries.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct KeepArguments {
    /// Whether to refuse them.
    #[arg(default = false)]
    refuse: bool,
    /// Nobody may see it.
    password: Option<Secret>,
}

/// What others send to.
#[derive(Exports, Clone, Debug, PartialEq)]
pub(crate) struct KeepExports {
    /// Takes entries.
    receiver: Receiver<Logs>,
}

pub(crate) struct Keep {
    inlet: Arc<Inlet<Logs>>,
    _end: Arc<Store>,
}

impl Component for Keep {
    const NAME: &'static str = "test.keep";
    type Arguments = KeepArguments;
    type Exports = KeepExports;
    type Prepared = (Arc<Inlet<Logs>>, bool);

    async fn prepare(
        arguments: KeepArguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<((Arc<Inlet<Logs>>, bool), KeepExports), Error> {
        let inlet = current.map_or_else(|| Arc::new(Inlet::of(cx.ledger())), |current| Arc::clone(&current.inlet));
        let exports = KeepExports { receiver: inlet.receiver() };
        Ok(((inlet, arguments.refuse), exports))
    }

    fn commit(_: Option<Self>, (inlet, refuse): (Arc<Inlet<Logs>>, bool), cx: &Context<Self>) -> Self {
        let end = Arc::new(Store(Mutex::new(0)));
        let known: Arc<dyn End> = end.clone();
        cx.ledger().add_end(Arc::downgrade(&known));
        inlet.attach(Arc::new(Stage { refuse, ledger: Arc::clone(cx.ledger()), store: Arc::clone(&end) }));
        Keep { inlet, _end: end }
    }
}

struct Store(Mutex<u64>);

impl End for Store {
    fn snapshot(&self) -> EndSnapshot {
        let kept = *self.0.lock();
        EndSnapshot {
            kind: Kind::LokiLog,
            name: "store".to_owned(),
            url: "http://user:hush-url@store/".to_owned(),
            offered: kept,
            restored: 0,
            delivered: kept,
            dropped: Vec::new(),
            pending: 0,
            pending_bytes: 0,
            in_flight: 0,
            oldest_ms: None,
            capacity_bytes: Some(100),
            retries: 0,
            last_answer: (kept > 0).then(|| (SystemTime::UNIX_EPOCH, "204 hush-hush".to_owned())),
        }
    }
}

struct Stage {
    refuse: bool,
    ledger: Arc<Ledger>,
    store: Arc<Store>,
}

impl Consume<Logs> for Stage {
    fn consume(&self, batch: LogsBatch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let items = batch.entries.len();
            let row = self.ledger.row(Kind::LokiLog);
            if self.refuse {
                let mut pass = row.pass();
                pass.dropped("unwanted", items);
                return pass.end(Ok(()));
            }
            row.out(items);
            *self.store.0.lock() += items as u64;
            batch.acks.safe();
            Ok(())
        })
    }
}

/// Has targets.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct ManyArguments {
    /// How many.
    count: i64,
    /// What drops some.
    #[block]
    rule: Vec<Rule>,
}

/// What others can refer to.
#[derive(Exports, Clone, Debug, PartialEq)]
pub(crate) struct ManyExports {
    /// The first three.
    targets: Vec<Target>,
}

/// Uses targets.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct UsesArguments {
    /// Which.
    targets: Vec<Target>,
}

pub(crate) struct Uses;

impl Component for Uses {
    const NAME: &'static str = "test.uses";
    type Arguments = UsesArguments;
    type Exports = ();
    type Prepared = ();

    async fn prepare(_: UsesArguments, _: &Context<Self>, _: Option<&Self>) -> Result<((), ()), Error> {
        Ok(((), ()))
    }

    fn commit(_: Option<Self>, (): (), _: &Context<Self>) -> Self {
        Uses
    }
}

/// A rule.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    /// What it does.
    action: String,
}

pub(crate) struct Many;

impl Component for Many {
    const NAME: &'static str = "test.targets";
    type Arguments = ManyArguments;
    type Exports = ManyExports;
    type Prepared = i64;

    async fn prepare(
        arguments: ManyArguments,
        _: &Context<Self>,
        _: Option<&Self>,
    ) -> Result<(i64, ManyExports), Error> {
        let targets = (0..arguments.count.min(3)).map(|at| One::new(at).discovered).collect();
        Ok((arguments.count, ManyExports { targets }))
    }

    fn commit(_: Option<Self>, count: i64, cx: &Context<Self>) -> Self {
        cx.serve_http(Arc::new(Shrink(cx.clone())));
        cx.show_debug_info(Arc::new(Shown((0..count).map(|at| Arc::new(One::new(at))).collect())));
        Many
    }
}

/// A request leaves one target of those that are exported.
struct Shrink(Context<Many>);

impl HttpHandler for Shrink {
    fn handle(&self, _: http::Request<()>) -> BoxFuture<'_, http::Response<Bytes>> {
        self.0.export(&ManyExports { targets: vec![One::new(0).discovered] });
        Box::pin(async { http::Response::new(Bytes::new()) })
    }
}

struct Shown(Vec<Arc<One>>);

impl DebugInfo for Shown {
    fn debug_info(&self) -> Vec<Item> {
        Vec::new()
    }

    fn targets(&self) -> Option<&dyn TargetView> {
        Some(self)
    }
}

impl TargetView for Shown {
    fn targets(&self) -> Vec<Arc<dyn ShownTarget>> {
        self.0.iter().map(|one| Arc::clone(one) as Arc<dyn ShownTarget>).collect()
    }
}

struct One {
    at: i64,
    url: String,
    discovered: Target,
    labels: Target,
}

impl One {
    fn new(at: i64) -> Self {
        let address = format!("host{at}:80");
        let (pod, instance, token) = (format!("pod-{at}"), address.clone(), format!("hush-{at}"));
        let found = [
            ("__address__", &*address),
            ("__meta_kubernetes_pod_name", &pod),
            ("__meta_zone", "north"),
            ("__param_token", &token),
        ];
        One {
            at,
            url: format!("http://{address}/metrics"),
            discovered: Target::new(found).expect("labels"),
            labels: Target::new([("instance", &*instance), ("job", "many")]).expect("labels"),
        }
    }
}

impl ShownTarget for One {
    fn state(&self) -> TargetState {
        TargetState::ALL[self.at as usize % 5]
    }

    fn url(&self) -> &str {
        &self.url
    }

    fn discovered(&self) -> &Target {
        &self.discovered
    }

    fn labels(&self) -> Option<&Target> {
        (self.state() != TargetState::Dropped).then_some(&self.labels)
    }

    fn last(&self) -> LastTime {
        match self.state() {
            TargetState::Up => LastTime {
                at: Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(self.at as u64)),
                took: Some(std::time::Duration::from_millis(self.at as u64)),
                samples: Some(self.at as u64),
                error: None,
            },
            TargetState::Down => LastTime { error: Some("connection refused".to_owned()), ..LastTime::default() },
            _ => LastTime::default(),
        }
    }

    fn dropped_by(&self) -> Option<DroppedBy> {
        (self.state() == TargetState::Dropped).then(|| DroppedBy { index: 1, action: "drop".to_owned() })
    }
}

/// Does not say what its targets are until it may.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct SlowArguments {}

/// A request for `/asked` says how often it was asked; one for `/open` lets it answer.
pub(crate) struct Slow;

impl Component for Slow {
    const NAME: &'static str = "test.slow";
    type Arguments = SlowArguments;
    type Exports = ();
    type Prepared = ();

    async fn prepare(_: SlowArguments, _: &Context<Self>, _: Option<&Self>) -> Result<((), ()), Error> {
        Ok(((), ()))
    }

    fn commit(_: Option<Self>, (): (), cx: &Context<Self>) -> Self {
        let gate = Arc::new(Gate::default());
        cx.serve_http(Arc::clone(&gate) as Arc<dyn HttpHandler>);
        cx.show_debug_info(gate);
        Slow
    }
}

#[derive(Default)]
struct Gate {
    /// How often it was asked, and whether it may answer.
    state: Mutex<(u32, bool)>,
    opened: Condvar,
}

/// After this it answers all the same: a test that fails must not wait for ever.
const GATE_WAIT: Duration = Duration::from_secs(120);

impl HttpHandler for Gate {
    fn handle(&self, request: http::Request<()>) -> BoxFuture<'_, http::Response<Bytes>> {
        let mut state = self.state.lock();
        if request.uri().path() == "/open" {
            state.1 = true;
            self.opened.notify_all();
        }
        let asked = Bytes::from(state.0.to_string());
        Box::pin(async { http::Response::new(asked) })
    }
}

impl DebugInfo for Gate {
    fn debug_info(&self) -> Vec<Item> {
        Vec::new()
    }

    fn targets(&self) -> Option<&dyn TargetView> {
        Some(self)
    }
}

impl TargetView for Gate {
    fn targets(&self) -> Vec<Arc<dyn ShownTarget>> {
        let mut state = self.state.lock();
        state.0 += 1;
        self.opened.wait_while_for(&mut state, |state| !state.1, GATE_WAIT);
        vec![Arc::new(One::new(0))]
    }
}
