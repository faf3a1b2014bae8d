//! What a component is, for whoever writes one and for the runtime that drives it.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use corten_config::arguments::{Arguments, Exports, Record};
use corten_config::decode::{DecodeContext, DecodeErrors, Decoded, decode};
use corten_config::encode::{self, Item};
use corten_config::schema::{Schema, Stability};
use corten_config::value::{Object, Value};
use corten_signal::flow::BoxFuture;
use corten_syntax::Block;

use crate::context::{Context, Host};

/// A component: everything about it stands in its file.
///
/// A change of its configuration takes two steps, so that it cannot be half done: [`prepare`](Component::prepare) may
/// fail and changes nothing that runs, [`commit`](Component::commit) cannot fail.
pub trait Component: Sized + Send + Sync + 'static {
    /// The name in a configuration, `prometheus.scrape`.
    const NAME: &'static str;
    /// The level below which a user cannot have it.
    const STABILITY: Stability = Stability::GenerallyAvailable;
    /// What the user writes. Its doc comment is the component's page.
    type Arguments: Arguments + Clone + PartialEq + Send + Sync;
    /// What others can refer to.
    type Exports: Exports + Clone + PartialEq + Send + Sync;
    /// What [`prepare`](Component::prepare) leaves for [`commit`](Component::commit).
    type Prepared: Send;

    /// All that can fail because of the configuration: compiles, validates, reads. Changes nothing that runs.
    ///
    /// What only the outside world can refuse (bind, connect, authenticate, open) is no error here: the component is
    /// unhealthy then and tries again.
    fn prepare(
        arguments: Self::Arguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> impl Future<Output = Result<(Self::Prepared, Self::Exports), Error>> + Send;

    /// Puts in place what was prepared.
    fn commit(current: Option<Self>, prepared: Self::Prepared, cx: &Context<Self>) -> Self;

    /// Hands on what is still held. Nothing new arrives any more.
    fn drain(self, cx: &Context<Self>) -> impl Future<Output = ()> + Send {
        let _ = cx;
        async { drop(self) }
    }
}

/// Why a component failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    /// An error with this text: lower case, no full stop.
    pub fn new(text: impl Into<String>) -> Self {
        Error(text.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<String> for Error {
    fn from(text: String) -> Self {
        Error(text)
    }
}

impl From<&str> for Error {
    fn from(text: &str) -> Self {
        Error(text.to_owned())
    }
}

/// An entry in a family's list of components.
#[derive(Clone, Copy)]
pub struct Definition {
    /// The name in a configuration.
    pub name: &'static str,
    /// The level below which a user cannot have it.
    pub stability: Stability,
    /// The table of its arguments.
    pub arguments: &'static Schema,
    /// The table of its exports.
    pub exports: &'static Schema,
    /// What it exports before it has exported anything.
    pub zero_exports: fn() -> Value,
    /// Makes one that is not evaluated yet.
    pub create: fn(Arc<Host>) -> Box<dyn Driver>,
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Definition").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Definition {
    /// The definition of a component.
    pub const fn of<C: Component>() -> Self {
        Definition {
            name: C::NAME,
            stability: C::STABILITY,
            arguments: <C::Arguments as Record>::SCHEMA,
            exports: <C::Exports as Record>::SCHEMA,
            zero_exports: || C::Exports::zero().map_or_else(|| Value::object(Object::new()), |e| e.to_value()),
            create: |host| Box::new(Driven::<C> { cx: Context::new(host), current: None, arguments: None }),
        }
    }
}

/// Decoded arguments of some component.
pub struct ErasedArguments {
    decoded: Box<dyn Any + Send>,
    /// What the user wrote although it is deprecated, one text for each.
    pub deprecated: Vec<String>,
}

/// What some component prepared.
pub struct Prepared {
    arguments: Box<dyn Any + Send>,
    prepared: Box<dyn Any + Send>,
    /// What the component will export.
    pub exports: Value,
}

/// A component without its type: what the runtime drives. Compiled once for all components but for these few functions.
pub trait Driver: Send + Sync {
    /// Reads the arguments out of a block.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them.
    fn decode(&self, block: &Block, cx: &DecodeContext<'_>) -> Result<ErasedArguments, DecodeErrors>;
    /// Whether these are the arguments with which the component runs.
    fn is_current(&self, arguments: &ErasedArguments) -> bool;
    /// The first step of a change.
    fn prepare(&self, arguments: ErasedArguments) -> BoxFuture<'_, Result<Prepared, Error>>;
    /// The second step of a change.
    fn commit(&mut self, prepared: Prepared);
    /// Whether it was ever committed.
    fn is_running(&self) -> bool;
    /// Ends the component.
    fn drain(&mut self) -> BoxFuture<'_, ()>;
    /// The arguments with which the component runs, for the HTTP API: secrets are marked.
    fn shown_arguments(&self) -> Vec<Item>;
    /// Decoded arguments in the same form.
    fn shown(&self, arguments: &ErasedArguments) -> Vec<Item>;
}

struct Driven<C: Component> {
    cx: Context<C>,
    current: Option<C>,
    arguments: Option<Decoded<C::Arguments>>,
}

impl<C: Component> Driver for Driven<C> {
    fn decode(&self, block: &Block, cx: &DecodeContext<'_>) -> Result<ErasedArguments, DecodeErrors> {
        decode::<C::Arguments>(block, cx).map(|mut decoded| ErasedArguments {
            deprecated: std::mem::take(&mut decoded.deprecated),
            decoded: Box::new(decoded),
        })
    }

    fn is_current(&self, arguments: &ErasedArguments) -> bool {
        let current = self.arguments.as_ref().filter(|_| self.current.is_some());
        current.is_some() && arguments.decoded.downcast_ref::<Decoded<C::Arguments>>() == current
    }

    fn prepare(&self, arguments: ErasedArguments) -> BoxFuture<'_, Result<Prepared, Error>> {
        Box::pin(async move {
            let arguments = arguments.decoded.downcast::<Decoded<C::Arguments>>();
            let arguments = arguments.map_err(|_| Error::new("arguments of another component"))?;
            let (prepared, exports) = C::prepare(arguments.value.clone(), &self.cx, self.current.as_ref()).await?;
            Ok(Prepared { arguments, prepared: Box::new(prepared), exports: exports.to_value() })
        })
    }

    fn commit(&mut self, prepared: Prepared) {
        let arguments = prepared.arguments.downcast::<Decoded<C::Arguments>>();
        let (Ok(arguments), Ok(ready)) = (arguments, prepared.prepared.downcast::<C::Prepared>()) else {
            return;
        };
        self.current = Some(C::commit(self.current.take(), *ready, &self.cx));
        self.arguments = Some(*arguments);
    }

    fn is_running(&self) -> bool {
        self.current.is_some()
    }

    fn drain(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.arguments = None;
            if let Some(current) = self.current.take() {
                current.drain(&self.cx).await;
            }
        })
    }

    fn shown_arguments(&self) -> Vec<Item> {
        let arguments = self.arguments.as_ref();
        arguments.map_or_else(Vec::new, |decoded| encode::arguments(&decoded.value, &decoded.sensitive))
    }

    fn shown(&self, arguments: &ErasedArguments) -> Vec<Item> {
        let decoded = arguments.decoded.downcast_ref::<Decoded<C::Arguments>>();
        decoded.map_or_else(Vec::new, |decoded| encode::arguments(&decoded.value, &decoded.sensitive))
    }
}
