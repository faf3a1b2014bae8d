//! Components for the tests.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use corten_component::{Component, Context, Definition, Error};
use corten_config::schema::Stability;
use corten_config::{Arguments, CheckErrors, Exports};
use tokio::sync::Semaphore;

/// The family.
pub(crate) const FAMILY: &[Definition] = &[Definition::of::<Experiment>(), Definition::of::<Value>()];

type Poke = Box<dyn Fn(&str) + Send>;

static TRACES: LazyLock<Mutex<Vec<(String, String)>>> = LazyLock::new(Mutex::default);
static LET_GO: Semaphore = Semaphore::const_new(0);
static POKES: LazyLock<Mutex<HashMap<String, Poke>>> = LazyLock::new(Mutex::default);

fn note(key: &str, what: String) {
    TRACES.lock().unwrap().push((key.to_owned(), what));
}

/// What the components with this key did, in order.
pub(crate) fn trace(key: &str) -> Vec<String> {
    TRACES.lock().unwrap().iter().filter(|(have, _)| have == key).map(|(_, what)| what.clone()).collect()
}

/// When a component with this key was drained, among all that was noted.
pub(crate) fn place_of_drain(key: &str) -> usize {
    TRACES.lock().unwrap().iter().position(|(have, what)| have == key && what == "drain").expect("it was drained")
}

/// Lets a component go that waits while it is made.
pub(crate) fn let_go() {
    LET_GO.add_permits(1);
}

/// Makes a component export something else.
pub(crate) fn poke(key: &str, output: &str) {
    POKES.lock().unwrap()[key](output);
}

/// Exports what it is given.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct ValueArguments {
    /// What to export. `refuse me` is refused, `panic` panics, `wait` waits for [`let_go`], and of `later` something else is
    /// exported at once.
    input: String,
    /// Names the component to the test.
    #[arg(default = "")]
    key: String,
}

impl ValueArguments {
    fn check_build(&self, minimum: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let holds = self.input != "experimental" || minimum == Stability::Experimental;
        errors.require(holds, &["input"], "input is experimental");
        errors.into_result()
    }
}

/// What it was given.
#[derive(Exports, Clone, Debug, PartialEq)]
pub(crate) struct ValueExports {
    /// The input.
    output: String,
}

pub(crate) struct Value(ValueArguments);

impl Component for Value {
    const NAME: &'static str = "test.value";
    type Arguments = ValueArguments;
    type Exports = ValueExports;
    type Prepared = ValueArguments;

    async fn prepare(
        arguments: ValueArguments,
        _: &Context<Self>,
        _: Option<&Self>,
    ) -> Result<(ValueArguments, ValueExports), Error> {
        assert!(arguments.input != "panic", "asked for it");
        if arguments.input == "wait" {
            note(&arguments.key, "waits".to_owned());
            LET_GO.acquire().await.expect("it is not closed").forget();
        }
        if arguments.input == "refuse me" {
            return Err(Error::new("refused"));
        }
        let exports = ValueExports { output: arguments.input.clone() };
        Ok((arguments, exports))
    }

    fn commit(_: Option<Self>, arguments: ValueArguments, cx: &Context<Self>) -> Self {
        assert!(arguments.input != "panic in commit", "asked for it");
        note(&arguments.key, format!("commit {}", arguments.input));
        let context = cx.clone();
        let poke: Poke = Box::new(move |output| context.export(&ValueExports { output: output.to_owned() }));
        if arguments.input == "later" {
            poke("later still");
        }
        POKES.lock().unwrap().entry(arguments.key.clone()).or_insert(poke);
        Value(arguments)
    }

    async fn drain(self, _: &Context<Self>) {
        if self.0.input == "never ends" {
            std::future::pending::<()>().await;
        }
        assert!(self.0.input != "panic in drain", "asked for it");
        note(&self.0.key, "drain".to_owned());
    }
}

/// Does nothing yet.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct ExperimentArguments {}

pub(crate) struct Experiment;

impl Component for Experiment {
    const NAME: &'static str = "test.experiment";
    const STABILITY: Stability = Stability::Experimental;
    type Arguments = ExperimentArguments;
    type Exports = ();
    type Prepared = ();

    async fn prepare(_: ExperimentArguments, _: &Context<Self>, _: Option<&Self>) -> Result<((), ()), Error> {
        Ok(((), ()))
    }

    fn commit(_: Option<Self>, (): (), _: &Context<Self>) -> Self {
        Experiment
    }
}
