//! How many connections a listener takes: in all, and from one address. The next one is turned away rather than left in the
//! kernel's queue, where its client would wait without knowing for what.

use crate::metrics;
use drover_telemetry::Held;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tracing::warn;

/// The doors of one listener; clones share them.
#[derive(Clone)]
pub(crate) struct Doors {
    inner: Arc<Inner>,
}

struct Inner {
    /// Which listener, for metrics.
    listener: &'static str,
    total_max: usize,
    peer_max: usize,
    inside: Mutex<HashMap<IpAddr, usize>>,
    /// Whether the last one who came was turned away: told once, not for each.
    is_full: AtomicBool,
}

/// A place inside; given back when dropped.
pub(crate) struct Place {
    inner: Arc<Inner>,
    peer: IpAddr,
    _counted: Held<1>,
}

/// Which limit is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// There are as many connections as there may be.
    Connections,
    /// There are as many from this address.
    Peer,
}

impl Full {
    /// The key in `[master.limits]` of the API listener.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Peer => "connections_per_peer",
        }
    }
}

impl Doors {
    pub(crate) fn new(listener: &'static str, total_max: usize, peer_max: usize) -> Self {
        let inner = Inner { listener, total_max, peer_max, inside: Mutex::default(), is_full: AtomicBool::new(false) };
        Self { inner: Arc::new(inner) }
    }

    /// A place for a connection from `peer`.
    pub(crate) fn enter(&self, peer: IpAddr) -> Result<Place, Full> {
        let inner = &self.inner;
        // One machine is one peer, whichever way its address is written.
        let peer = peer.to_canonical();
        let entered = {
            let mut inside = inner.inside.lock().expect("nobody panics while holding the doors");
            let total: usize = inside.values().sum();
            let here = inside.get(&peer).copied().unwrap_or(0);
            if total >= inner.total_max {
                Err(Full::Connections)
            } else if here >= inner.peer_max {
                Err(Full::Peer)
            } else {
                inside.insert(peer, here + 1);
                Ok(())
            }
        };
        let was_full = inner.is_full.swap(entered.is_err(), Ordering::Relaxed);
        match entered {
            Ok(()) => {
                let counted = metrics::CONNECTIONS.hold([inner.listener]);
                Ok(Place { inner: Arc::clone(inner), peer, _counted: counted })
            }
            Err(full) => {
                metrics::CONNECTIONS_REFUSED.inc([inner.listener, full.key()]);
                if !was_full {
                    warn!(listener = inner.listener, %peer, limit = full.key(), "connections are turned away: a limit is reached");
                }
                Err(full)
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.inner.inside.lock().expect("nobody panics while holding the doors");
        if let Some(here) = inside.get_mut(&self.peer) {
            *here -= 1;
            if *here == 0 {
                inside.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_more_than_his_share_and_places_come_back() {
        let doors = Doors::new("test", 3, 2);
        let peer = |last: u8| IpAddr::from([10, 0, 0, last]);
        let first = doors.enter(peer(1)).map_err(drop).unwrap();
        // The same machine, as an IPv6 socket sees it.
        let _second = doors.enter("::ffff:10.0.0.1".parse().unwrap()).map_err(drop).unwrap();
        assert_eq!(doors.enter(peer(1)).err(), Some(Full::Peer));
        let _third = doors.enter(peer(2)).map_err(drop).unwrap();
        assert_eq!(doors.enter(peer(3)).err(), Some(Full::Connections));
        drop(first);
        assert!(doors.enter(peer(1)).is_ok());
    }
}
