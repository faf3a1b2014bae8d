//! Receivers as another crate would write them.

use std::any::Any;
use std::sync::Arc;

use corten_config::decode::{CapsuleType, Decode};
use corten_config::error::ValueError;
use corten_config::schema::CapsuleInfo;
use corten_config::value::{Capsule, Object, Value};

macro_rules! receiver {
    ($name:ident, $type_name:literal, $shown:literal) => {
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) struct $name(Arc<str>);

        impl $name {
            pub(crate) fn new(name: &str) -> Self {
                Self(name.into())
            }

            pub(crate) fn to_value_for_tests(&self) -> Value {
                self.to_value()
            }
        }

        impl Capsule for $name {
            fn type_name(&self) -> &'static str {
                $type_name
            }

            fn equals(&self, other: &dyn Capsule) -> bool {
                other.as_any().downcast_ref::<Self>() == Some(self)
            }

            fn as_any(&self) -> &dyn Any {
                self
            }
        }

        impl CapsuleType for $name {
            const INFO: &'static CapsuleInfo =
                &CapsuleInfo { type_name: $type_name, shown: $shown, object_like: false, from: &[] };
        }
    };
}

receiver!(MetricsReceiver, "prometheus.Appendable", "MetricsReceiver");
receiver!(LogsReceiver, "loki.LogsReceiver", "LogsReceiver");

/// A capsule that objects convert to and from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Labels(pub(crate) Object);

impl Capsule for Labels {
    fn type_name(&self) -> &'static str {
        "discovery.Target"
    }

    fn equals(&self, other: &dyn Capsule) -> bool {
        other.as_any().downcast_ref::<Self>() == Some(self)
    }

    fn as_object(&self) -> Option<Object> {
        Some(self.0.clone())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl CapsuleType for Labels {
    const INFO: &'static CapsuleInfo =
        &CapsuleInfo { type_name: "discovery.Target", shown: "map(string)", object_like: true, from: &[] };

    fn convert(value: &Value) -> Option<Result<Self, ValueError>> {
        match (value.to_object(), value.as_number()) {
            (Some(object), _) if object.values().any(Value::holds_secret) => {
                Some(Err(ValueError::new(value, "target::ConvertFrom: cannot use a secret as a target value")))
            }
            (Some(object), _) => Some(Ok(Labels((*object).clone()))),
            (None, Some(_)) => {
                Some(Err(ValueError::new(value, "target::ConvertFrom: conversion from 'int64' is not supported")))
            }
            _ => None,
        }
    }

    fn null() -> Option<Self> {
        Some(Labels(Object::new()))
    }
}
