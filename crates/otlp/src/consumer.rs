//! The signals, and the one value that takes all three.

use std::any::Any;

use corten_config::decode::CapsuleType;
use corten_config::schema::CapsuleInfo;
use corten_config::value::Capsule;
use corten_signal::tap::Look;
use corten_signal::{Acks, Kind, Receiver, Signal};

use crate::batch::Batch;
use crate::data::Record;
use crate::logs::LogRecord;
use crate::metrics::Metric;
use crate::shown;
use crate::traces::Span;

static CONSUMER: CapsuleInfo =
    CapsuleInfo { type_name: "otelcol.Consumer", shown: "otelcol.Consumer", object_like: false, from: &[] };

/// One of the three signals.
pub trait OtlpSignal: Signal<Batch = Batch<Self::Record>> {
    /// What it consists of.
    type Record: Record;

    /// Where a consumer takes it.
    fn of(consumer: &Consumer) -> &Receiver<Self>;
}

macro_rules! signal {
    ($(#[$doc:meta])* $name:ident, $record:ty, $field:ident, $kind:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $name {}

        impl Signal for $name {
            type Batch = Batch<$record>;
            const NAME: &'static str = <$record as Record>::SIGNAL;
            const RECEIVER: &'static CapsuleInfo = &CONSUMER;
            const KIND: Kind = Kind::$kind;

            fn items(batch: &Self::Batch) -> usize {
                batch.items()
            }

            fn bytes(batch: &Self::Batch) -> usize {
                batch.held_bytes()
            }

            fn weight(batch: &Self::Batch) -> usize {
                batch.weight()
            }

            fn show(batch: &Self::Batch, look: &mut Look<'_>) {
                shown::show(batch, look);
            }

            fn acks(batch: &mut Self::Batch) -> Option<&mut Acks> {
                Some(&mut batch.acks)
            }

            fn unwanted(batch: Self::Batch) {
                batch.acks.safe();
            }
        }

        impl OtlpSignal for $name {
            type Record = $record;

            fn of(consumer: &Consumer) -> &Receiver<Self> {
                &consumer.$field
            }
        }
    };
}

signal! {
    /// Traces: spans.
    Traces, Span, traces, OtelTrace
}
signal! {
    /// Metrics of OpenTelemetry.
    OtlpMetrics, Metric, metrics, OtelMetric
}
signal! {
    /// Logs of OpenTelemetry.
    OtlpLogs, LogRecord, logs, OtelLog
}

/// What a component takes: any of the three signals. In a configuration it is one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Where traces go.
    pub traces: Receiver<Traces>,
    /// Where metrics go.
    pub metrics: Receiver<OtlpMetrics>,
    /// Where logs go.
    pub logs: Receiver<OtlpLogs>,
}

impl Capsule for Consumer {
    fn type_name(&self) -> &'static str {
        CONSUMER.type_name
    }

    fn equals(&self, other: &dyn Capsule) -> bool {
        other.as_any().downcast_ref::<Self>() == Some(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl CapsuleType for Consumer {
    const INFO: &'static CapsuleInfo = &CONSUMER;

    fn null() -> Option<Self> {
        Some(Consumer { traces: Receiver::NOWHERE, metrics: Receiver::NOWHERE, logs: Receiver::NOWHERE })
    }
}
