//! What discoverers share: looking again and again, keeping what was found, and exporting it not too often.
//!
//! A discoverer looks at once, then every so often, and whenever it notices a change. What cannot be found out keeps what
//! was found before. The first result is exported as soon as it is there, a later one at the earliest [`EXPORT_EVERY`]
//! after the one before, because everything that refers to the targets is evaluated each time.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use corten_component::metrics::{Counter, Histogram, Registry, Summary};
use corten_component::{Component, Context, Health, HealthState, Stop, Task, Turn};
use corten_signal::target::Target;
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::Offer;

/// How often targets are exported at most.
const EXPORT_EVERY: Duration = Duration::from_secs(5);

/// How long a discoverer waits after a change was noticed: mostly more come with it, and a folder in which something
/// happens all the time is not read all the time.
const SETTLE: Duration = Duration::from_millis(250);

/// Looks for targets.
pub(crate) trait Discoverer: Send + 'static {
    /// Its name in the metrics of refreshes; nothing for one that has metrics of its own.
    const MECHANISM: Option<&'static str>;

    /// Looks for targets. Dropped when the component ends meanwhile.
    ///
    /// # Errors
    ///
    /// Why nothing at all can be said. All that was found before is kept then.
    fn refresh(&mut self) -> impl Future<Output = Result<Found, String>> + Send;

    /// Waits for a reason to look again before it is time to.
    fn changed(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// What a look has found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The targets by where they come from; nothing where that could not be found out. What came from elsewhere is gone.
    pub(crate) groups: BTreeMap<String, Option<Vec<Target>>>,
    /// What the user should know.
    pub(crate) problem: Option<String>,
}

/// A discoverer at work.
#[derive(Debug)]
pub(crate) struct Poll<C> {
    turn: Turn<C>,
    task: Task,
    state: Arc<Mutex<State>>,
}

/// What outlives a change of the arguments.
#[derive(Debug, Default)]
struct State {
    groups: BTreeMap<String, Vec<Target>>,
    exported: Offer,
    /// When the task in charge has exported something.
    exported_at: Option<Instant>,
    /// Whether what is exported is not what was found.
    due: bool,
}

impl<C: Component<Exports = Offer>> Poll<C> {
    /// What a component exports when its arguments change: what it exported before, until it has found something else.
    pub(crate) fn offer(current: Option<&Self>) -> Offer {
        current.map(|current| current.state.lock().exported.clone()).unwrap_or_default()
    }

    /// Starts a discoverer in place of the one that was there. `make` is called again should it fail.
    pub(crate) fn start<D: Discoverer>(
        current: Option<Self>,
        cx: &Context<C>,
        every: Duration,
        make: impl Fn() -> D + Send + 'static,
    ) -> Self {
        let turn = current.as_ref().map_or_else(|| Turn::first(cx), |current| current.turn.next());
        let state = current.as_ref().map_or_else(Arc::default, |current| Arc::clone(&current.state));
        {
            let mut state = state.lock();
            // What new arguments find first is exported at once, as it is at the start.
            state.exported_at = None;
            turn.export(&state.exported);
        }
        let metrics = D::MECHANISM.map(|mechanism| RefreshMetrics::new(cx.metrics(), mechanism));
        let runner = Arc::new(Runner { turn: turn.clone(), state: Arc::clone(&state), metrics, every });
        let task = cx.spawn("discover", move |stop| {
            let (runner, discoverer) = (Arc::clone(&runner), make());
            async move { runner.run(discoverer, stop).await }
        });
        Poll { turn, task, state }
    }

    /// Ends the discoverer.
    pub(crate) async fn stop(self) {
        self.task.stop().await;
    }
}

struct Runner<C> {
    turn: Turn<C>,
    state: Arc<Mutex<State>>,
    metrics: Option<RefreshMetrics>,
    every: Duration,
}

impl<C: Component<Exports = Offer>> Runner<C> {
    async fn run<D: Discoverer>(&self, mut discoverer: D, mut stop: Stop) -> Result<(), String> {
        let mut tick = interval(self.every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = stop.wait() => return Ok(()),
                () = self.export_is_due() => {
                    self.export();
                    continue;
                }
                _ = tick.tick() => {}
                () = discoverer.changed() => {
                    if !stop.sleep(SETTLE).await {
                        return Ok(());
                    }
                }
            }
            let started = Instant::now();
            let refresh = discoverer.refresh();
            tokio::pin!(refresh);
            let outcome = loop {
                tokio::select! {
                    () = stop.wait() => return Ok(()),
                    () = self.export_is_due() => self.export(),
                    outcome = &mut refresh => break outcome,
                }
            };
            if let Some(metrics) = &self.metrics {
                metrics.took(started.elapsed(), outcome.is_err());
            }
            match outcome {
                Ok(found) => self.take(found),
                Err(error) => self.fail(&error),
            }
        }
    }

    /// Takes over what was found.
    fn take(&self, found: Found) {
        let problem = found.problem;
        self.turn.speak(|cx| {
            let mut state = self.state.lock();
            let mut before = std::mem::take(&mut state.groups);
            for (source, targets) in found.groups {
                if let Some(targets) = targets.or_else(|| before.remove(&source)) {
                    state.groups.insert(source, targets);
                }
            }
            state.due = !state.groups.values().flatten().eq(&state.exported.targets);
            cx.report_health(problem.map(|problem| Health::now(HealthState::Unhealthy, problem)));
        });
        if self.export_at().is_some_and(|at| at <= Instant::now()) {
            self.export();
        }
    }

    fn fail(&self, error: &str) {
        self.turn.speak(|cx| {
            cx.logger().error("Unable to refresh target groups", &[("err", error.into())]);
            let message = format!("unable to refresh target groups: {error}");
            cx.report_health(Some(Health::now(HealthState::Unhealthy, message)));
        });
    }

    /// From when on there is something to export.
    fn export_at(&self) -> Option<Instant> {
        let state = self.state.lock();
        state.due.then(|| state.exported_at.map_or_else(Instant::now, |at| at + EXPORT_EVERY))
    }

    async fn export_is_due(&self) {
        match self.export_at() {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    fn export(&self) {
        self.turn.speak(|cx| {
            let mut state = self.state.lock();
            state.exported = Offer { targets: state.groups.values().flatten().cloned().collect() };
            state.exported_at = Some(Instant::now());
            state.due = false;
            cx.export(&state.exported);
        });
    }
}

/// What the reference counts of refreshes. It knows no names for configurations: that label is empty.
struct RefreshMetrics {
    failures: Counter,
    duration: Summary,
    histogram: Histogram,
}

impl RefreshMetrics {
    fn new(registry: &Registry, mechanism: &str) -> Self {
        let labels = &["mechanism", "config"];
        RefreshMetrics {
            failures: registry
                .counters(
                    "prometheus_sd_refresh_failures_total",
                    "Number of refresh failures for the given SD mechanism.",
                    labels,
                )
                .with(&[mechanism, ""]),
            duration: registry
                .summaries(
                    "prometheus_sd_refresh_duration_seconds",
                    "The duration of a refresh in seconds for the given SD mechanism.",
                    labels,
                    &[0.5, 0.9, 0.99],
                )
                .with(&[mechanism, ""]),
            histogram: registry
                .histograms(
                    "prometheus_sd_refresh_duration_histogram_seconds",
                    "The duration of a refresh for the given SD mechanism.",
                    &["mechanism"],
                    &[0.01, 0.1, 1.0, 10.0],
                )
                .with(&[mechanism]),
        }
    }

    fn took(&self, duration: Duration, failed: bool) {
        self.duration.observe(duration.as_secs_f64());
        self.histogram.observe_duration(duration);
        if failed {
            self.failures.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use corten_component::{Definition, Error};
    use corten_config::Arguments;
    use corten_testkit::{Unit, World, host, labels, stays, until};
    use tokio::sync::Notify;

    use super::*;

    /// What the fake finds, one look after the other; the last again and again.
    type Script = Arc<Mutex<VecDeque<Result<&'static str, &'static str>>>>;

    /// Finds what a script says.
    #[derive(Arguments, Clone, Debug, PartialEq)]
    struct Config {
        /// The number of the script.
        script: usize,
        /// How long to take.
        #[arg(default = "0s")]
        takes: Duration,
    }

    struct Fake {
        script: Script,
        takes: Duration,
        looks: Arc<Mutex<Vec<Instant>>>,
        changed: Arc<Notify>,
    }

    /// `a=1,2 b=? problem`: groups by source, with `?` for what could not be found out.
    fn parse(text: &str) -> Found {
        let mut found = Found::default();
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            let Some((source, targets)) = word.split_once('=') else {
                found.problem = Some(word.to_owned());
                continue;
            };
            let of = |address: &str| Target::new([("__address__", address)]).unwrap();
            let known = (targets != "?").then(|| targets.split_terminator(',').map(of).collect());
            found.groups.insert(source.to_owned(), known);
        }
        found
    }

    impl Discoverer for Fake {
        const MECHANISM: Option<&'static str> = Some("fake");

        async fn refresh(&mut self) -> Result<Found, String> {
            self.looks.lock().push(Instant::now());
            tokio::time::sleep(self.takes).await;
            let next = {
                let mut script = self.script.lock();
                if script.len() > 1 { script.pop_front() } else { script.front().copied() }
            };
            match next {
                Some(Ok("panic")) => panic!("as the script says"),
                Some(Ok(text)) => Ok(parse(text)),
                Some(Err(error)) => Err(error.to_owned()),
                None => std::future::pending().await,
            }
        }

        async fn changed(&self) {
            self.changed.notified().await;
        }
    }

    /// The scripts of a test, shared with the component, which knows only its arguments.
    struct Stage {
        scripts: Vec<Script>,
        looks: Arc<Mutex<Vec<Instant>>>,
        changed: Arc<Notify>,
    }

    tokio::task_local! {
        static STAGE: Arc<Stage>;
    }

    struct Faker(Poll<Self>);

    impl Component for Faker {
        const NAME: &'static str = "discovery.fake";
        type Arguments = Config;
        type Exports = Offer;
        type Prepared = Config;

        async fn prepare(config: Config, _: &Context<Self>, current: Option<&Self>) -> Result<(Config, Offer), Error> {
            Ok((config, Poll::offer(current.map(|current| &current.0))))
        }

        fn commit(current: Option<Self>, config: Config, cx: &Context<Self>) -> Self {
            let stage = STAGE.get();
            let every = Duration::from_secs(30);
            Faker(Poll::start(current.map(|current| current.0), cx, every, move || Fake {
                script: Arc::clone(&stage.scripts[config.script]),
                takes: config.takes,
                looks: Arc::clone(&stage.looks),
                changed: Arc::clone(&stage.changed),
            }))
        }

        async fn drain(self, _: &Context<Self>) {
            self.0.stop().await;
        }
    }

    const DEFINITION: Definition = Definition::of::<Faker>();

    async fn on_stage<T: Future<Output = ()>>(
        scripts: &[&[Result<&'static str, &'static str>]],
        test: impl FnOnce(World, Arc<Stage>) -> T,
    ) {
        let scripts = scripts.iter().map(|script| Arc::new(Mutex::new(script.iter().copied().collect()))).collect();
        let stage = Arc::new(Stage { scripts, looks: Arc::default(), changed: Arc::default() });
        STAGE.scope(Arc::clone(&stage), test(host("discovery.fake.x"), stage)).await;
    }

    fn targets(world: &World) -> String {
        let exports = world.exports();
        let targets = exports.last().and_then(|exports| exports.field("targets"));
        let lines = targets.map_or_else(Vec::new, |targets| labels(&targets));
        lines.join(" ").replace("__address__=", "")
    }

    async fn until_targets(world: &World, expected: &str) {
        until(&format!("the targets are {expected}"), || targets(world) == expected).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_look_is_at_once_and_the_others_follow_the_interval() {
        on_stage(&[&[Ok("b=2 a=1,3")]], |world, stage| async move {
            let started = Instant::now();
            let _unit = Unit::start(world.clone(), &DEFINITION, "script = 0").await.unwrap();
            until_targets(&world, "1 3 2").await;
            assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
            until("there were three looks", || stage.looks.lock().len() == 3).await;
            assert_eq!(started.elapsed().as_secs(), 60);
            assert_eq!(world.exports().len(), 2, "what stays the same is not exported again");
            let labels = [("mechanism", "fake"), ("config", "")];
            until("they are counted", || {
                world.metrics().get("prometheus_sd_refresh_duration_seconds", &labels) == Some(3.0)
            })
            .await;
            let name = "prometheus_sd_refresh_duration_histogram_seconds";
            assert_eq!(world.metrics().get(name, &[("mechanism", "fake")]), Some(3.0));
            assert_eq!(world.metrics().get("prometheus_sd_refresh_failures_total", &labels), Some(0.0));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_that_fails_keeps_what_was_found_and_is_counted() {
        on_stage(&[&[Ok("a=1"), Err("no route"), Ok("a=2")]], |world, _| async move {
            let _unit = Unit::start(world.clone(), &DEFINITION, "script = 0").await.unwrap();
            until_targets(&world, "1").await;
            let text = "unhealthy: unable to refresh target groups: no route";
            until("it is unhealthy", || world.health_text() == text).await;
            assert_eq!(targets(&world), "1");
            assert!(world.logs().contains("msg=\"Unable to refresh target groups\""), "{}", world.logs());
            let labels = [("mechanism", "fake"), ("config", "")];
            assert_eq!(world.metrics().get("prometheus_sd_refresh_failures_total", &labels), Some(1.0));
            until_targets(&world, "2").await;
            assert_eq!(world.health_text(), "healthy: component evaluated");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_cannot_be_asked_keeps_its_targets_and_one_that_is_gone_does_not() {
        let script: &[_] = &[Ok("a=1 b=2 c=3"), Ok("a=? c= d=? problem"), Ok("b=4")];
        on_stage(&[script], |world, _| async move {
            let _unit = Unit::start(world.clone(), &DEFINITION, "script = 0").await.unwrap();
            until_targets(&world, "1 2 3").await;
            until_targets(&world, "1").await;
            assert_eq!(world.health_text(), "unhealthy: problem");
            until_targets(&world, "4").await;
            assert_eq!(world.health_text(), "healthy: component evaluated");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn targets_are_exported_every_five_seconds_at_most() {
        let script: &[_] = &[Ok("a=1"), Ok("a=2"), Ok("a=3"), Ok("a=4"), Ok("a=4"), Ok("a=4")];
        on_stage(&[script], |world, stage| async move {
            let _unit = Unit::start(world.clone(), &DEFINITION, "script = 0").await.unwrap();
            until_targets(&world, "1").await;
            let started = Instant::now();
            for look in 2..=4 {
                stage.changed.notify_one();
                until("it has looked", || stage.looks.lock().len() == look).await;
            }
            stays("nothing is exported yet", Duration::from_secs(4), || targets(&world) == "1").await;
            until_targets(&world, "4").await;
            assert!((4_900..=5_100).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
            let all = world.exports().len();
            assert_eq!(all, 3, "nothing, the first and the last");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_export_that_waits_does_not_wait_for_the_next_look_to_end() {
        let script: &[_] = &[Ok("a=1"), Ok("a=2"), Ok("a=3")];
        on_stage(&[script], |world, stage| async move {
            let _unit = Unit::start(world.clone(), &DEFINITION, "script = 0\ntakes = \"3s\"").await.unwrap();
            until_targets(&world, "1").await;
            let started = Instant::now();
            stage.changed.notify_one();
            until("the second look is under way", || stage.looks.lock().len() == 2).await;
            stage.changed.notify_one();
            until("the third look is under way", || stage.looks.lock().len() == 3).await;
            until_targets(&world, "2").await;
            assert_eq!(started.elapsed().as_secs(), 5);
            until_targets(&world, "3").await;
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn new_arguments_keep_the_targets_until_they_have_found_others() {
        on_stage(&[&[Ok("a=1 b=2")], &[Err("not yet"), Ok("b=? c=3")]], |world, _| async move {
            let mut unit = Unit::start(world.clone(), &DEFINITION, "script = 0").await.unwrap();
            until_targets(&world, "1 2").await;
            unit.update("script = 1").await.unwrap();
            until("the first look has failed", || world.health_text().contains("not yet")).await;
            assert_eq!(targets(&world), "1 2");
            until_targets(&world, "2 3").await;
            assert_eq!(world.exports().len(), 3, "nothing, the first, and the last");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_old_arguments_find_late_is_not_exported() {
        on_stage(&[&[Ok("a=1")], &[Ok("a=2")]], |world, stage| async move {
            let mut unit = Unit::start(world.clone(), &DEFINITION, "script = 0\ntakes = \"20s\"").await.unwrap();
            until("the first look is under way", || stage.looks.lock().len() == 1).await;
            unit.update("script = 1").await.unwrap();
            stays("only the second finds anything", Duration::from_secs(60), || targets(&world) != "1").await;
            assert_eq!(targets(&world), "2");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_discoverer_that_fails_is_started_again() {
        on_stage(&[&[Ok("panic"), Ok("a=1")]], |world, _| async move {
            let _unit = Unit::start(world.clone(), &DEFINITION, "script = 0").await.unwrap();
            until_targets(&world, "1").await;
            assert!(world.logs().contains("task failed and is started again"), "{}", world.logs());
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_reloads_leave_nothing_behind() {
        on_stage(&[&[Ok("a=1")], &[]], |world, _| async move {
            let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
            let mut unit = Unit::start(world.clone(), &DEFINITION, "script = 0").await.unwrap();
            for n in 1..=1_000 {
                // Every other one never ends its look by itself.
                unit.update(&format!("script = {}", n % 2)).await.unwrap();
            }
            until("the old tasks are gone", || tasks() == 1).await;
            unit.drain().await;
            until("the last task is gone", || tasks() == 0).await;
        })
        .await;
    }
}
