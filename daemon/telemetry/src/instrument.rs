//! Instruments: a description and the cells that hold the values.

use crate::page::Samples;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, LabelSetEncoder, MetricEncoder};
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::{MetricType, counter, gauge, histogram};
use std::fmt::Error;
use std::sync::OnceLock;
use std::time::Duration;

/// Bounds, in seconds, for what usually takes micro- to milliseconds: a sync, a commit, a request.
pub const FAST: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Bounds, in seconds, for what takes milliseconds to minutes: a start, a snapshot.
pub const SLOW: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];

/// Bounds for counts of things handled together.
pub const SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// What kind of number a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

impl Kind {
    /// Prometheus' word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric's description: one row of `docs/metrics.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// With its unit, and with `_total` if it is a counter.
    pub name: &'static str,
    /// What kind of number.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// For people, one sentence.
    pub help: &'static str,
}

/// Something that stands on a page of metrics.
pub trait Instrument: Sync {
    /// Its description.
    fn about(&self) -> About;

    /// Writes its values. `samples` are those read off the state for this page.
    ///
    /// # Errors
    /// The page takes no more, which a page in memory never does.
    fn encode(&self, encoder: MetricEncoder<'_>, samples: &Samples) -> Result<(), Error>;
}

/// Labels of one series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Labels<const N: usize> {
    names: &'static [&'static str; N],
    values: [&'static str; N],
}

impl<const N: usize> EncodeLabelSet for Labels<N> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let pairs: [(&str, &str); N] = std::array::from_fn(|at| (self.names[at], self.values[at]));
        pairs.encode(encoder)
    }
}

/// Counts what happens. `N` is the number of labels.
pub struct Counter<const N: usize = 0> {
    name: &'static str,
    labels: &'static [&'static str; N],
    help: &'static str,
    cells: OnceLock<Family<Labels<N>, counter::Counter>>,
}

impl<const N: usize> Counter<N> {
    /// A counter; its name ends in `_total`.
    pub const fn new(name: &'static str, labels: &'static [&'static str; N], help: &'static str) -> Self {
        Self { name, labels, help, cells: OnceLock::new() }
    }

    /// One more.
    pub fn inc(&self, values: [&'static str; N]) {
        self.add(values, 1);
    }

    /// So many more.
    pub fn add(&self, values: [&'static str; N], more: u64) {
        self.cells().get_or_create(&Labels { names: self.labels, values }).inc_by(more);
    }

    fn cells(&self) -> &Family<Labels<N>, counter::Counter> {
        self.cells.get_or_init(Family::default)
    }
}

impl<const N: usize> Instrument for Counter<N> {
    fn about(&self) -> About {
        About { name: self.name, kind: Kind::Counter, labels: self.labels, help: self.help }
    }

    fn encode(&self, encoder: MetricEncoder<'_>, _: &Samples) -> Result<(), Error> {
        if N == 0 {
            // A counter without labels is there from the start, so that its first step shows as one.
            self.add([""; N], 0);
        }
        self.cells().encode(encoder)
    }
}

/// What rises and falls with what happens.
pub struct Gauge<const N: usize = 0> {
    name: &'static str,
    labels: &'static [&'static str; N],
    help: &'static str,
    cells: OnceLock<Family<Labels<N>, gauge::Gauge>>,
}

impl<const N: usize> Gauge<N> {
    /// A gauge.
    pub const fn new(name: &'static str, labels: &'static [&'static str; N], help: &'static str) -> Self {
        Self { name, labels, help, cells: OnceLock::new() }
    }

    /// One more until the guard is dropped.
    pub fn hold(&'static self, values: [&'static str; N]) -> Held<N> {
        self.step(values, 1);
        Held { gauge: self, values }
    }

    /// It is so much.
    pub fn set(&self, values: [&'static str; N], value: i64) {
        self.cells().get_or_create(&Labels { names: self.labels, values }).set(value);
    }

    fn step(&self, values: [&'static str; N], by: i64) {
        self.cells().get_or_create(&Labels { names: self.labels, values }).inc_by(by);
    }

    fn cells(&self) -> &Family<Labels<N>, gauge::Gauge> {
        self.cells.get_or_init(Family::default)
    }
}

/// Counts in a gauge for as long as it lives.
pub struct Held<const N: usize> {
    gauge: &'static Gauge<N>,
    values: [&'static str; N],
}

impl<const N: usize> Drop for Held<N> {
    fn drop(&mut self) {
        self.gauge.step(self.values, -1);
    }
}

impl<const N: usize> Instrument for Gauge<N> {
    fn about(&self) -> About {
        About { name: self.name, kind: Kind::Gauge, labels: self.labels, help: self.help }
    }

    fn encode(&self, encoder: MetricEncoder<'_>, _: &Samples) -> Result<(), Error> {
        if N == 0 {
            self.step([""; N], 0);
        }
        self.cells().encode(encoder)
    }
}

/// Makes a histogram with these bounds.
#[derive(Clone)]
struct Bounds(&'static [f64]);

impl MetricConstructor<histogram::Histogram> for Bounds {
    fn new_metric(&self) -> histogram::Histogram {
        histogram::Histogram::new(self.0.iter().copied())
    }
}

/// Counts by size, in seconds, bytes or pieces.
pub struct Histogram<const N: usize = 0> {
    name: &'static str,
    labels: &'static [&'static str; N],
    help: &'static str,
    bounds: &'static [f64],
    cells: OnceLock<Family<Labels<N>, histogram::Histogram, Bounds>>,
}

impl<const N: usize> Histogram<N> {
    /// A histogram with these upper bounds.
    pub const fn new(
        name: &'static str,
        labels: &'static [&'static str; N],
        bounds: &'static [f64],
        help: &'static str,
    ) -> Self {
        Self { name, labels, help, bounds, cells: OnceLock::new() }
    }

    /// One of this size.
    pub fn observe(&self, values: [&'static str; N], size: f64) {
        self.cells().get_or_create(&Labels { names: self.labels, values }).observe(size);
    }

    /// One that took so long.
    pub fn took(&self, values: [&'static str; N], time: Duration) {
        self.observe(values, time.as_secs_f64());
    }

    fn cells(&self) -> &Family<Labels<N>, histogram::Histogram, Bounds> {
        self.cells.get_or_init(|| Family::new_with_constructor(Bounds(self.bounds)))
    }
}

impl<const N: usize> Instrument for Histogram<N> {
    fn about(&self) -> About {
        About { name: self.name, kind: Kind::Histogram, labels: self.labels, help: self.help }
    }

    fn encode(&self, encoder: MetricEncoder<'_>, _: &Samples) -> Result<(), Error> {
        if N == 0 {
            drop(self.cells().get_or_create(&Labels { names: self.labels, values: [""; N] }));
        }
        self.cells().encode(encoder)
    }
}

/// What is read off the state for each page; its values are put into the page's [`Samples`].
pub struct AtScrape<const N: usize = 0> {
    about: About,
}

impl<const N: usize> AtScrape<N> {
    /// Goes up and down.
    pub const fn gauge(name: &'static str, labels: &'static [&'static str; N], help: &'static str) -> Self {
        Self { about: About { name, kind: Kind::Gauge, labels, help } }
    }

    /// Only rises; its name ends in `_total`.
    pub const fn counter(name: &'static str, labels: &'static [&'static str; N], help: &'static str) -> Self {
        Self { about: About { name, kind: Kind::Counter, labels, help } }
    }
}

impl<const N: usize> Instrument for AtScrape<N> {
    fn about(&self) -> About {
        self.about
    }

    fn encode(&self, mut encoder: MetricEncoder<'_>, samples: &Samples) -> Result<(), Error> {
        for (values, value) in samples.of(self.about.name) {
            let labels: Vec<(&str, &str)> = self.about.labels.iter().copied().zip(values.iter().map(String::as_str)).collect();
            let mut series = encoder.encode_family(&labels)?;
            match self.about.kind {
                Kind::Counter => series.encode_counter::<Labels<0>, f64, f64>(value, None)?,
                Kind::Gauge | Kind::Histogram => series.encode_gauge(value)?,
            }
        }
        Ok(())
    }
}

impl Kind {
    pub(crate) fn metric_type(self) -> MetricType {
        match self {
            Self::Counter => MetricType::Counter,
            Self::Gauge => MetricType::Gauge,
            Self::Histogram => MetricType::Histogram,
        }
    }
}
