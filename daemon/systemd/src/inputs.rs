//! What systemd and journald say, as bytes, read as this crate reads it: no bus, no journal. The way in for those who try whether
//! anything they may say can break it (`drover-fuzz`).

use crate::changes::{News, news_of};
use crate::journal::{self, Entry};
use crate::value::Properties;
use crate::{bus, names};
use drover_core::unit::{Evidence, ListedUnit, ObservedUnit};
use zbus::message::Message;
use zbus::wire::LE;
use zbus::wire::serialized::{Context, Data};
use zbus::{Signature, Structure};

/// What was read.
#[derive(Debug)]
pub enum Read {
    /// A signal: what it changes.
    News(News),
    /// The units in a list.
    Listed(Vec<ListedUnit>),
    /// A unit, by its properties.
    Observed(Box<ObservedUnit>),
    /// It has another shape than what is documented, and counts as lost.
    Unreadable,
}

/// Reads a message of systemd: of the signal `member` of `interface`, about the object `path`, or, with the member `ListUnits` or
/// `GetAll`, the answer to a call. `signature` and `body` are D-Bus' own, little-endian. `None` if they make no message.
pub fn message(interface: &str, member: &str, path: &str, signature: &str, body: &[u8]) -> Option<Read> {
    let signature = Signature::try_from(format!("({signature})").as_str()).ok()?;
    let data = Data::new(body, Context::new(LE, 0));
    let (body, _): (Structure<'_>, usize) = data.deserialize_for_dynamic_signature(&signature).ok()?;
    let message = Message::signal(path, interface, member).build(&body).ok()?;
    let read = match member {
        "ListUnits" => bus::listed(&message).map(Read::Listed),
        "GetAll" => message.body().deserialize::<Properties>().map(|properties| {
            let unit = names::unit_of(path).unwrap_or_default();
            Read::Observed(Box::new(bus::observed(&unit, &properties, &properties)))
        }),
        _ => news_of(&message).map(Read::News),
    };
    Some(read.unwrap_or(Read::Unreadable))
}

/// The unit of an object, if it is one.
pub fn unit_of(path: &str) -> Option<String> {
    names::unit_of(path)
}

/// The object of a unit.
pub fn path_of(unit: &str) -> String {
    names::path_of(unit)
}

/// A task's entry out of the fields that journald has of it.
pub fn journal_entry(at_us: u64, fields: &[(&str, &[u8])]) -> Entry {
    journal::entry_of(at_us, fields)
}

/// What systemd's own entries say of a unit's end.
pub fn evidence(entries: &[Vec<(&str, &[u8])>]) -> Evidence {
    journal::evidence_of(entries)
}
