//! Marathon's `/v2`, as its surviving clients parse it (Marathon 1.8, where versions differ). Read [`definition`] for what
//! comes in and [`app`] for what goes out; the rest is one file per resource.
//!
//! Rules that hold for every shape: absent values are left out and never `null`; clients get no key they do not know, since
//! some fail on it; whole numbers are printed as such; times are UTC with three fraction digits. On the way in, `null` means
//! absent, unknown keys are ignored, and every fault is told at once with its path.

pub mod error;
mod read;

pub mod definition;
mod fields;

pub mod app;
pub mod deployment;
pub mod embed;
pub mod event;
pub mod group;
pub mod info;
pub mod queue;
pub mod selector;
pub mod task;

#[cfg(test)]
mod tests;

pub use error::{Error, Faults};

use drover_core::time::Timestamp;
use serde::{Serialize, Serializer};

/// A time as this API prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A decimal number that is printed without a fraction when it has none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decimal {
    value: u64,
    unit: u64,
}

impl Decimal {
    /// From thousandths.
    pub fn milli(value: u64) -> Self {
        Self { value, unit: 1000 }
    }

    /// Bytes, printed in MiB.
    pub fn mebibytes(value: u64) -> Self {
        Self { value, unit: 1 << 20 }
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.value.is_multiple_of(self.unit) {
            serializer.serialize_u64(self.value / self.unit)
        } else {
            serializer.serialize_f64(self.value as f64 / self.unit as f64)
        }
    }
}

/// The answer to whatever starts a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentResult {
    /// The version it brings.
    pub version: String,
    /// Its id, found in `/v2/deployments` until it is over.
    pub deployment_id: String,
}
