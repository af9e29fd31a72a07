//! Where the daemon's own log goes: the journal, with fields, when systemd started us; the terminal otherwise. `DROVER_LOG`
//! filters as `tracing`'s `EnvFilter` does (`info` unless set; what openraft says of each lost peer, `consensus` says once).

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// Starts logging for the whole process.
pub(crate) fn start() {
    let filter = EnvFilter::try_from_env("DROVER_LOG").unwrap_or_else(|_| EnvFilter::new("info,openraft=off"));
    // systemd sets JOURNAL_STREAM for services whose output goes to the journal anyway.
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let layer = match journal {
        Some(journal) => journal.with_field_prefix(Some("DROVER".to_owned())).boxed(),
        None => fmt::layer().with_writer(std::io::stderr).with_target(false).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
}
