//! Parses server-sent events as specified by the WHATWG's HTML standard. It turns bytes into events and knows no
//! connection.

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Event type; `message` unless the stream sets another one.
    pub event: String,
    /// The last id that the stream set; empty if it set none.
    pub id: String,
    /// The data lines, joined by line feeds.
    pub data: String,
}

/// An incremental parser: the stream may be split anywhere.
#[derive(Debug, Default)]
pub struct Reader {
    line: Vec<u8>,
    begun: bool,
    after_cr: bool,
    event: String,
    data: String,
    id: String,
}

impl Reader {
    /// Takes bytes and returns the events that they complete. An event is dropped if the stream ends in the middle of
    /// it, as the standard requires.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' if self.after_cr => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                byte => self.line.push(*byte),
            }
            self.after_cr = *byte == b'\r';
        }
        events
    }

    /// Returns the number of buffered bytes of an incomplete event.
    pub fn held(&self) -> usize {
        self.line.len() + self.data.len()
    }

    fn end_line(&mut self) -> Option<Event> {
        let mut bytes = std::mem::take(&mut self.line);
        if !std::mem::replace(&mut self.begun, true) && bytes.starts_with(b"\xef\xbb\xbf") {
            bytes.drain(..3);
        }
        let line = String::from_utf8_lossy(&bytes);
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            // `retry` concerns reconnecting, which a test doesn't do; a line that begins with a colon is a comment.
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Event> {
        let event = std::mem::take(&mut self.event);
        let mut data = std::mem::take(&mut self.data);
        data.pop()?;
        Some(Event {
            event: if event.is_empty() {
                "message".to_owned()
            } else {
                event
            },
            id: self.id.clone(),
            data,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String, String)> {
        let mut whole = Reader::default();
        let events = whole.push(text.as_bytes());
        let mut bytewise = Reader::default();
        let again: Vec<Event> = text
            .as_bytes()
            .iter()
            .flat_map(|byte| bytewise.push(&[*byte]))
            .collect();
        assert_eq!(events, again, "cut into single bytes");
        events
            .into_iter()
            .map(|e| (e.event, e.id, e.data))
            .collect()
    }

    fn event(event: &str, id: &str, data: &str) -> (String, String, String) {
        (event.to_owned(), id.to_owned(), data.to_owned())
    }

    #[test]
    fn data_lines_are_joined_and_a_blank_line_ends_an_event() {
        assert_eq!(
            read("data: YHOO\ndata: +2\ndata: 10\n\n"),
            [event("message", "", "YHOO\n+2\n10")]
        );
    }

    #[test]
    fn comments_unknown_fields_and_retry_are_ignored_and_ids_last() {
        assert_eq!(
            read(
                ": hi\nretry: 5\ncolour: red\ndata: first\nid: 1\n\ndata:second\nid\n\ndata:  third\n\n"
            ),
            [
                event("message", "1", "first"),
                event("message", "", "second"),
                event("message", "", " third")
            ]
        );
    }

    #[test]
    fn all_three_line_ends_and_a_byte_order_mark_are_understood() {
        assert_eq!(
            read("\u{feff}event: a\r\ndata: 1\r\n\r\ndata: 2\r\rdata: 3\n\n"),
            [
                event("a", "", "1"),
                event("message", "", "2"),
                event("message", "", "3")
            ]
        );
    }

    #[test]
    fn an_event_without_data_and_an_unfinished_one_are_dropped() {
        assert_eq!(read("event: ping\n\ndata: lost"), []);
        assert_eq!(read("data\n\n"), [event("message", "", "")]);
    }
}
