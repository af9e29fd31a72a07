//! Streams cut into what they consist of: lines (NDJSON) and server-sent events. Bytes come in any pieces; what comes out does
//! not depend on where they were cut.

use std::collections::VecDeque;

/// Longest line that is believed. A journal entry may be long; this is longer.
const LINE_BYTES_MAX: usize = 16 << 20;

/// A line longer than any that makes sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a line of more than {} MiB", LINE_BYTES_MAX >> 20)]
pub(crate) struct LineTooLong;

/// Cuts bytes into lines that end in LF, CRLF or (for event streams) a lone CR.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pending: Vec<u8>,
    ready: VecDeque<String>,
    lone_cr_ends: bool,
    after_cr: bool,
}

impl Lines {
    /// For NDJSON: a CR is an ordinary byte, dropped before LF.
    pub(crate) fn ndjson() -> Self {
        Self::default()
    }

    fn event_stream() -> Self {
        Self { lone_cr_ends: true, ..Self::default() }
    }

    /// Takes the next bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), LineTooLong> {
        for byte in bytes {
            match byte {
                b'\n' if self.lone_cr_ends && self.after_cr => {}
                b'\n' => self.end_line(),
                b'\r' if self.lone_cr_ends => self.end_line(),
                _ => self.pending.push(*byte),
            }
            self.after_cr = *byte == b'\r';
            if self.pending.len() > LINE_BYTES_MAX {
                return Err(LineTooLong);
            }
        }
        Ok(())
    }

    fn end_line(&mut self) {
        let mut line = std::mem::take(&mut self.pending);
        if !self.lone_cr_ends && line.last() == Some(&b'\r') {
            line.pop();
        }
        // Programs may print anything; what is no UTF-8 is shown as such rather than refused.
        self.ready.push_back(String::from_utf8_lossy(&line).into_owned());
    }

    /// The next whole line.
    pub(crate) fn next(&mut self) -> Option<String> {
        self.ready.pop_front()
    }

    /// Whether the bytes so far end in the middle of a line.
    pub(crate) fn is_cut(&self) -> bool {
        !self.pending.is_empty()
    }
}

/// One server-sent event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SseEvent {
    /// Its `event:` line, or nothing.
    pub(crate) name: String,
    /// Its `data:` lines.
    pub(crate) data: String,
    /// Its own `id:` line, if it has one.
    pub(crate) id: Option<String>,
}

/// Cuts bytes into server-sent events, as the HTML standard has it.
#[derive(Debug)]
pub(crate) struct Events {
    lines: Lines,
    at_start: bool,
    event: SseEvent,
    has_data: bool,
}

impl Default for Events {
    fn default() -> Self {
        Self { lines: Lines::event_stream(), at_start: true, event: SseEvent::default(), has_data: false }
    }
}

impl Events {
    /// Takes the next bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), LineTooLong> {
        self.lines.push(bytes)
    }

    /// The next whole event. One without data and name is a pause filler and is passed over.
    pub(crate) fn next(&mut self) -> Option<SseEvent> {
        while let Some(line) = self.lines.next() {
            let line = match std::mem::take(&mut self.at_start) {
                true => line.strip_prefix('\u{feff}').unwrap_or(&line),
                false => line.as_str(),
            };
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                if std::mem::take(&mut self.has_data) || !event.name.is_empty() {
                    return Some(event);
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => self.event.name = value.to_owned(),
                "data" => {
                    if std::mem::replace(&mut self.has_data, true) {
                        self.event.data.push('\n');
                    }
                    self.event.data.push_str(value);
                }
                "id" if !value.contains('\0') => self.event.id = Some(value.to_owned()),
                // Comments (an empty field name), `retry` and what later standards add.
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `text` cut in two at every byte, and byte by byte; the outcome must be the same.
    fn lines_of(text: &[u8]) -> (Vec<String>, bool) {
        let run = |pieces: &[&[u8]]| {
            let mut lines = Lines::ndjson();
            let mut got = Vec::new();
            for piece in pieces {
                lines.push(piece).unwrap();
                got.extend(std::iter::from_fn(|| lines.next()));
            }
            (got, lines.is_cut())
        };
        let whole = run(&[text]);
        for cut in 0..=text.len() {
            assert_eq!(run(&[&text[..cut], &text[cut..]]), whole, "cut at {cut}");
        }
        assert_eq!(run(&text.chunks(1).collect::<Vec<_>>()), whole, "byte by byte");
        whole
    }

    fn events_of(text: &str) -> Vec<SseEvent> {
        let run = |pieces: &[&[u8]]| {
            let mut events = Events::default();
            let mut got = Vec::new();
            for piece in pieces {
                events.push(piece).unwrap();
                got.extend(std::iter::from_fn(|| events.next()));
            }
            got
        };
        let text = text.as_bytes();
        let whole = run(&[text]);
        for cut in 0..=text.len() {
            assert_eq!(run(&[&text[..cut], &text[cut..]]), whole, "cut at {cut}");
        }
        assert_eq!(run(&text.chunks(1).collect::<Vec<_>>()), whole, "byte by byte");
        whole
    }

    #[test]
    fn lines_do_not_depend_on_the_cuts() {
        let (lines, cut) = lines_of("{\"message\":\"größer ✓\"}\r\n\n{\"b\":2}\n{\"c\":".as_bytes());
        assert_eq!(lines, ["{\"message\":\"größer ✓\"}", "", "{\"b\":2}"]);
        assert!(cut);
        assert_eq!(lines_of(b"\xff\n"), (vec!["\u{fffd}".to_owned()], false));
    }

    #[test]
    fn events_do_not_depend_on_the_cuts() {
        let event = |name: &str, data: &str, id: Option<&str>| SseEvent {
            name: name.to_owned(),
            data: data.to_owned(),
            id: id.map(str::to_owned),
        };
        assert_eq!(
            events_of(
                "\u{feff}: hello\r\n\r\nevent: task-changed\r\ndata: {\"ä\":1}\r\nid: 88123\r\n\r\ndata:a\ndata: b\n\n:keep-alive\n\nevent: resync\n\nretry: 5\nid\ndata\n\ndata: cut off"
            ),
            [
                event("task-changed", "{\"ä\":1}", Some("88123")),
                event("", "a\nb", None),
                event("resync", "", None),
                event("", "", Some("")),
            ]
        );
        assert_eq!(events_of("data: 1\r\rdata: 2\r\n\r\n"), [event("", "1", None), event("", "2", None)]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut lines = Lines::ndjson();
        let mib = vec![b'x'; 1 << 20];
        let result = (0..17).try_for_each(|_| lines.push(&mib));
        assert_eq!(result, Err(LineTooLong));
    }
}
