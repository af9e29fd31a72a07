//! The page that Prometheus reads.

use crate::instrument::{AtScrape, Instrument, Kind};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;

/// How a page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own text, which everything reads.
    Prometheus,
    /// OpenMetrics 1.0, for those who ask for it.
    OpenMetrics,
}

impl Format {
    /// What an `Accept` header asks for; Prometheus' text unless it says OpenMetrics.
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The `Content-Type` of a page.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Values read off the state for one page.
#[derive(Debug, Default)]
pub struct Samples {
    by_name: BTreeMap<&'static str, Vec<(Vec<String>, f64)>>,
}

impl Samples {
    /// The value of one series. `values` are those of the labels, in their order.
    pub fn put<const N: usize>(&mut self, metric: &AtScrape<N>, values: [&str; N], value: f64) {
        let series = (values.into_iter().map(str::to_owned).collect(), value);
        self.by_name.entry(metric.about().name).or_default().push(series);
    }

    pub(crate) fn of(&self, name: &str) -> impl Iterator<Item = &(Vec<String>, f64)> {
        self.by_name.get(name).into_iter().flatten()
    }
}

/// Writes the instruments of `tables`.
pub fn page(tables: &[&'static [&'static dyn Instrument]], samples: Samples, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page { tables: tables.to_vec(), samples }));
    let mut out = String::new();
    let written = match format {
        Format::Prometheus => prometheus_text::encode(&mut out, &registry),
        Format::OpenMetrics => text::encode(&mut out, &registry),
    };
    written.expect("a string takes everything");
    out
}

struct Page {
    tables: Vec<&'static [&'static dyn Instrument]>,
    samples: Samples,
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Page").finish_non_exhaustive()
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for instrument in self.tables.iter().copied().flatten() {
            let about = instrument.about();
            // The encoder adds a counter's `_total` itself.
            let name = match about.kind {
                Kind::Counter => about.name.strip_suffix("_total").unwrap_or(about.name),
                Kind::Gauge | Kind::Histogram => about.name,
            };
            let metric = encoder.encode_descriptor(name, about.help, None, about.kind.metric_type())?;
            instrument.encode(metric, &self.samples)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instrument::{Counter, Gauge, Histogram, SIZES};

    crate::instruments! {
        #[allow(unreachable_pub, reason = "tables are for other crates, this one is for a test")]
        TABLE;
        ASKED: Counter<1> = Counter::new("t_asked_total", &["by"], "Asked.");
        NEVER: Counter = Counter::new("t_never_total", &[], "Never.");
        HELD: Gauge = Gauge::new("t_held", &[], "Held.");
        SIZE: Histogram = Histogram::new("t_size", &[], SIZES, "Size.");
        SEEN: AtScrape<1> = AtScrape::gauge("t_seen", &["who"], "Seen.");
        TERM: AtScrape = AtScrape::counter("t_terms_total", &[], "Terms.");
    }

    #[test]
    fn a_page_tells_every_instrument_in_both_formats() {
        ASKED.add(["a"], 2);
        SIZE.observe([], 3.0);
        let held = HELD.hold([]);
        let samples = || {
            let mut samples = Samples::default();
            samples.put(&SEEN, ["n\"1"], 1.5);
            samples.put(&TERM, [], 7.0);
            samples
        };
        let text = page(&[TABLE], samples(), Format::accepted("*/*"));
        let lines: Vec<&str> = text.lines().collect();
        for line in [
            "# TYPE t_asked_total counter",
            "t_asked_total{by=\"a\"} 2",
            "t_never_total 0",
            "t_held 1",
            "t_size_bucket{le=\"4\"} 1",
            "t_size_bucket{le=\"2\"} 0",
            "t_size_count 1",
            "t_seen{who=\"n\\\"1\"} 1.5",
            "# TYPE t_terms_total counter",
            "t_terms_total 7.0",
        ] {
            assert!(lines.contains(&line), "{line} is not in\n{text}");
        }
        drop(held);
        let text = page(&[TABLE], samples(), Format::accepted("application/openmetrics-text;version=1.0.0,*/*;q=0.1"));
        assert!(text.contains("# TYPE t_asked counter\nt_asked_total{by=\"a\"} 2\n"), "{text}");
        assert!(text.contains("t_held 0\n") && text.ends_with("# EOF\n"), "{text}");
    }
}
