//! Which request it is: one id that a client may give, that every answer names, and that the journals of all masters it went
//! through carry (`DROVER_REQUEST_ID`).

use std::fmt;

/// The header in which a client gives an id and is told it.
pub const REQUEST_ID_HEADER: &str = "x-request-id";

/// The header of W3C Trace Context; its trace id is taken when there is no [`REQUEST_ID_HEADER`].
pub const TRACEPARENT_HEADER: &str = "traceparent";

/// Longest id taken from a client.
const BYTES_MAX: usize = 128;

/// A request's id: printable ASCII, short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// The id a client gave, if it gave one that can be taken; what cannot is not repeated anywhere.
    pub fn given(request_id: Option<&str>, traceparent: Option<&str>) -> Option<Self> {
        let own = request_id.filter(|id| is_plain(id)).map(str::to_owned);
        own.or_else(|| traceparent.and_then(trace_id).map(str::to_owned)).map(Self)
    }

    /// A new one, of unique text.
    pub fn new(unique: String) -> Self {
        Self(unique)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_plain(id: &str) -> bool {
    (1..=BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

/// `00-<32 hex digits>-<16 hex digits>-<2 hex digits>`; a later version may have more behind it.
fn trace_id(traceparent: &str) -> Option<&str> {
    let is_hex =
        |text: &str, length: usize| text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = traceparent.trim().split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_whole = is_hex(version, 2) && version != "ff" && is_hex(trace, 32) && is_hex(parent, 16) && is_hex(flags, 2);
    let is_last = version != "00" || parts.next().is_none();
    let is_set = trace.bytes().any(|byte| byte != b'0') && parent.bytes().any(|byte| byte != b'0');
    (is_whole && is_last && is_set).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_only_if_it_is_one() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let given = |id: Option<&str>, parent: Option<&str>| RequestId::given(id, parent).map(|id| id.to_string());
        assert_eq!(given(Some("a-1:x/y"), Some(&parent)).as_deref(), Some("a-1:x/y"));
        assert_eq!(given(None, Some(&parent)).as_deref(), Some(TRACE));
        let long = "x".repeat(BYTES_MAX + 1);
        for bad in ["", "a b", "a\nb", "ä", &long] {
            assert_eq!(given(Some(bad), None), None, "{bad:?}");
            assert_eq!(given(Some(bad), Some(&parent)).as_deref(), Some(TRACE), "{bad:?}");
        }
        for bad in [
            "".to_owned(),
            parent.to_uppercase(),
            parent.replace(TRACE, &"0".repeat(32)),
            format!("{parent}-more"),
            format!("ff{}", &parent[2..]),
            parent[..50].to_owned(),
        ] {
            assert_eq!(given(None, Some(&bad)), None, "{bad:?}");
        }
        assert_eq!(given(None, Some(&format!("01{}-more", &parent[2..]))).as_deref(), Some(TRACE), "a later version");
    }
}
