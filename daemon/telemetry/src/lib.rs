//! What the daemons count and time. An instrument is a `static` that carries its own description; a table lists the
//! instruments of one daemon, and [`page`] writes them in the words of Prometheus.
//!
//! ```text
//! what happens ─▶ Counter, Gauge, Histogram ─┐
//!                                            ├─▶ page ─▶ /metrics
//! a scrape ─▶ the state as it is ─▶ AtScrape ┘
//! ```
//! What can be read off the state is read when somebody asks ([`AtScrape`]), so that nobody asking costs nothing. Label values
//! are words of the program, never of its users: no instrument grows with apps, jobs or tasks.

mod instrument;
mod page;
mod process;

pub use instrument::{About, AtScrape, Counter, FAST, Gauge, Held, Histogram, Instrument, Kind, SIZES, SLOW};
pub use page::{Format, Samples, page};
pub use process::{PROCESS, begin, observe_process};

/// Declares instruments and the table that lists them all, so that none can be left out of the page.
#[macro_export]
macro_rules! instruments {
    ($(#[$about:meta])* $table:ident; $($name:ident: $kind:ty = $new:expr;)*) => {
        $(pub(crate) static $name: $kind = $new;)*
        $(#[$about])*
        pub static $table: &[&dyn $crate::Instrument] = &[$(&$name),*];
    };
}
