//! `loki.process`.

mod extracted;
mod json;
mod program;
mod selector;
mod series;
mod stage;
mod stage_cri;
mod stage_decolorize;
mod stage_docker;
mod stage_drop;
mod stage_eventlogmessage;
mod stage_geoip;
mod stage_json;
mod stage_label_drop;
mod stage_label_keep;
mod stage_labels;
mod stage_limit;
mod stage_logfmt;
mod stage_luhn;
mod stage_match;
mod stage_metrics;
mod stage_multiline;
mod stage_output;
mod stage_pack;
mod stage_pattern;
mod stage_regex;
mod stage_replace;
mod stage_sampling;
mod stage_split_json;
mod stage_static_labels;
mod stage_structured_metadata;
mod stage_structured_metadata_drop;
mod stage_template;
mod stage_tenant;
mod stage_timestamp;
mod stage_truncate;
mod stage_windowsevent;
mod stages;
#[cfg(test)]
mod testing;
mod work;

use std::sync::Arc;
use std::time::Duration;

use corten_component::{Component, Context, Error, Task};
use corten_config::{Arguments, Exports};
use corten_signal::flow::BoxFuture;
use corten_signal::logs::{Logs, LogsBatch};
use corten_signal::{Consume, ConsumeError, Fanout, Inlet, Receiver};
use tokio::task::JoinHandle;

use self::program::Program;
pub use self::stages::StageConfig;
use crate::forward::fanout;

/// How long a pipeline that ends may take to hand on what it holds.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(120);

/// Changes, drops and splits log entries with stages, in the order in which they stand, and sends what comes out to all
/// receivers of `forward_to`.
///
/// Stages share a map of extracted values, which is made anew for each entry: it begins with the entry's labels.
///
/// A change of the stages begins anew with their state; lines that `stage.multiline` collected are sent on first. A change
/// of `forward_to` alone keeps it.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct ProcessArguments {
    /// Where to send the entries.
    forward_to: Vec<Receiver<Logs>>,
    /// Stages that entries pass, in order.
    #[block(group = "stage")]
    stages: Vec<StageConfig>,
}

/// What others can refer to.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct ProcessExports {
    /// Takes the log entries that are to be processed.
    receiver: Receiver<Logs>,
}

/// The component.
pub struct Process {
    inlet: Arc<Inlet<Logs>>,
    stages: Vec<StageConfig>,
    pipeline: Arc<Pipeline>,
    /// Sends on what time alone makes due.
    timer: Option<Task>,
    /// Sends on what pipelines held that were replaced.
    closing: Option<JoinHandle<()>>,
}

/// What is to be put in place.
pub struct Prepared {
    inlet: Arc<Inlet<Logs>>,
    stages: Vec<StageConfig>,
    program: Arc<Program>,
    forward_to: Vec<Receiver<Logs>>,
}

impl Component for Process {
    const NAME: &'static str = "loki.process";
    type Arguments = ProcessArguments;
    type Exports = ProcessExports;
    type Prepared = Prepared;

    async fn prepare(
        arguments: ProcessArguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, ProcessExports), Error> {
        let program = match current {
            Some(current) if current.stages == arguments.stages => Arc::clone(&current.pipeline.program),
            _ => {
                let program = Program::new(&arguments.stages, cx.metrics(), cx.logger(), cx.ledger());
                Arc::new(program.map_err(|error| error.to_string())?)
            }
        };
        let inlet = current.map_or_else(|| Arc::new(Inlet::of(cx.ledger())), |current| Arc::clone(&current.inlet));
        let exports = ProcessExports { receiver: inlet.receiver() };
        Ok((Prepared { inlet, stages: arguments.stages, program, forward_to: arguments.forward_to }, exports))
    }

    fn commit(current: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let forward = fanout(cx, prepared.forward_to);
        let pipeline = Arc::new(Pipeline { program: prepared.program, forward });
        prepared.inlet.attach(Arc::clone(&pipeline) as Arc<dyn Consume<Logs>>);
        let mut closing = None;
        if let Some(current) = current {
            closing = current.closing.filter(|closing| !closing.is_finished());
            if !Arc::ptr_eq(&current.pipeline.program, &pipeline.program) {
                // What was collected goes where entries go now: where it went before may be gone.
                let (old, new, cx) = (Arc::clone(&current.pipeline.program), Arc::clone(&pipeline), cx.clone());
                let before = closing.take();
                closing = Some(tokio::spawn(async move {
                    close(&old, &new.forward, &cx).await;
                    if let Some(before) = before {
                        let _ = before.await;
                    }
                }));
            }
        }
        let timer = pipeline.program.holds().then(|| {
            let (pipeline, logger) = (Arc::clone(&pipeline), cx.logger().clone());
            cx.spawn("flush", move |mut stop| {
                let (pipeline, logger) = (Arc::clone(&pipeline), logger.clone());
                async move {
                    loop {
                        tokio::select! {
                            () = pipeline.program.due() => {}
                            () = stop.wait() => return Ok(()),
                        }
                        if let Err(error) = pipeline.program.tick(&pipeline.forward).await {
                            logger.warn("held entries were not taken", &[("err", error.to_string().into())]);
                        }
                    }
                }
            })
        });
        Process { inlet: prepared.inlet, stages: prepared.stages, pipeline, timer, closing }
    }

    async fn drain(self, cx: &Context<Self>) {
        self.inlet.close();
        if let Some(timer) = self.timer {
            timer.stop().await;
        }
        close(&self.pipeline.program, &self.pipeline.forward, cx).await;
        if let Some(closing) = self.closing {
            // Bounded as the one above.
            let _ = closing.await;
        }
    }
}

async fn close(program: &Program, forward: &Fanout<Logs>, cx: &Context<Process>) {
    let error = match tokio::time::timeout(DRAIN_WAIT_MAX, program.close(forward)).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the receivers took too long".to_owned(),
    };
    let left = program.held() as u64;
    cx.logger().warn("held entries were not taken", &[("err", error.into()), ("left", left.into())]);
}

/// A pipeline and where its entries go.
#[derive(Debug)]
struct Pipeline {
    program: Arc<Program>,
    forward: Fanout<Logs>,
}

impl Consume<Logs> for Pipeline {
    fn consume(&self, batch: LogsBatch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(self.program.consume(batch, &self.forward))
    }
}

#[cfg(test)]
mod tests;
