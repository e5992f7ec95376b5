//! The JSON lines of a result, and back: `cloudy tail` and `cloudy data export` print the same ones.

use cloudy_node::session::{SessionName, Sum, numbers};
use cloudy_node::{Checkpoint, Entry, Incarnation, Index, InstalledView, NodeId, Seq, ViewId, payload_slices};
use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Value, json};

/// The lines of one result, from an index on.
pub(crate) struct Lines {
    session: bool,
    sum: Sum,
}

impl Lines {
    /// Those of a group with this name: messages of a session are numbers.
    pub(crate) fn of_group(name: &str) -> Self {
        Self { session: SessionName::of_group(name).is_some(), sum: Sum::default() }
    }

    /// The object of the next message: with its view, and in a session with its number.
    pub(crate) fn message(&mut self, message: &Message<'_>) -> Value {
        let mut line = match self.number(message) {
            Some(number) => {
                self.sum.add(number);
                // As in the result files of slaves.
                json!({
                    "index": message.index.0,
                    "origin": message.origin.to_string(),
                    "seq": message.seq.0,
                    "value": number,
                })
            }
            None => message.json(),
        };
        line["view"] = message.view.0.into();
        line
    }

    /// The number of a session in a message.
    pub(crate) fn number(&self, message: &Message<'_>) -> Option<f64> {
        numbers::decode(message.payload).ok().filter(|_| self.session)
    }

    /// The last line, of a closed group: the count, and the digest if all of the result was read.
    pub(crate) fn last(&self, result: Option<Checkpoint>, is_all: bool) -> String {
        let count = result.map_or(self.sum.count(), |result| result.index.0);
        let mut line = json!({ "count": count });
        if let Some(result) = result.filter(|_| is_all) {
            if self.session && self.sum.count() == count {
                line["sum"] = self.sum.sum().into();
            }
            line["digest"] = result.digest.to_string().into();
        }
        format!("{line}\n")
    }
}

/// One message of a result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) index: Index,
    pub(crate) origin: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) seq: Seq,
    pub(crate) view: ViewId,
    pub(crate) payload: &'a [u8],
}

/// The messages of a slot, from an index on.
pub(crate) fn messages(entry: &Entry, from: Index) -> impl Iterator<Item = Message<'_>> {
    let message = move |(at, payload)| Message {
        index: Index(entry.first_index.0 + at),
        origin: entry.origin,
        incarnation: entry.incarnation,
        seq: Seq(entry.batch.first_seq.0 + at),
        view: entry.view,
        payload,
    };
    (0..).zip(payload_slices(&entry.batch.body)).map(message).filter(move |message| message.index >= from)
}

impl Message<'_> {
    /// The payload as `text`, or as `base64` if it is not UTF-8.
    pub(crate) fn json(&self) -> Value {
        let mut line = self.head();
        match std::str::from_utf8(self.payload) {
            Ok(text) => line["text"] = text.into(),
            Err(_) => line["base64"] = BASE64.encode(self.payload).into(),
        }
        line
    }

    fn head(&self) -> Value {
        json!({
            "index": self.index.0,
            "origin": self.origin.to_string(),
            "incarnation": self.incarnation.0,
            "seq": self.seq.0,
        })
    }
}

/// Appends a line with a JSON object.
pub(crate) fn push_json(lines: &mut Vec<u8>, value: &Value) {
    push_text(lines, value.to_string().as_bytes());
}

/// Appends a line with the payload as it is.
pub(crate) fn push_text(lines: &mut Vec<u8>, payload: &[u8]) {
    lines.extend_from_slice(payload);
    lines.push(b'\n');
}

/// Appends a line with the payload in base64.
pub(crate) fn push_base64(lines: &mut Vec<u8>, payload: &[u8]) {
    push_text(lines, BASE64.encode(payload).as_bytes());
}

/// A view, and the index that it takes force before.
pub(crate) fn view_line(installed: &InstalledView) -> String {
    let members: Vec<String> = installed.view.ring.iter().map(|member| member.node.to_string()).collect();
    format!("{}\n", json!({ "view": installed.id().0, "index": installed.first.0, "members": members }))
}

/// A line of a result that was read.
#[derive(Debug, PartialEq)]
pub(crate) enum Line {
    /// A message.
    Message {
        /// Its index.
        index: u64,
        /// Its payload.
        payload: Vec<u8>,
    },
    /// The last line, with the number of messages.
    Count(u64),
    /// A view or a receipt: nothing to import.
    Other,
}

impl Line {
    /// Reads a line of `cloudy data export`, `tail` or `join`.
    ///
    /// # Errors
    /// The fault.
    pub(crate) fn read(line: &str) -> Result<Self, String> {
        let object: Value = serde_json::from_str(line).map_err(|error| format!("it is no JSON object: {error}"))?;
        let text = |field: &str| object[field].as_str();
        let is_news = ["receipt", "rejected", "unknown"].into_iter().any(|field| object[field].is_u64());
        if is_news || object["members"].is_array() {
            return Ok(Self::Other);
        }
        if let Some(count) = object["count"].as_u64() {
            return Ok(Self::Count(count));
        }
        let index = object["index"].as_u64().ok_or("it has no index")?;
        let payload = match (text("payload"), text("text"), text("base64"), object["value"].as_f64()) {
            (Some(digits), ..) => {
                HEXLOWER.decode(digits.as_bytes()).map_err(|error| format!("its payload: {error}"))?
            }
            (_, Some(text), ..) => text.as_bytes().to_vec(),
            (_, _, Some(text), _) => BASE64.decode(text.as_bytes()).map_err(|error| format!("its base64: {error}"))?,
            (.., Some(number)) => numbers::encode(number).to_vec(),
            _ => return Err("it has no payload, text, base64 or value".to_owned()),
        };
        Ok(Self::Message { index, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_in_every_form_are_read() {
        let message = |payload: &[u8]| Ok(Line::Message { index: 7, payload: payload.to_vec() });
        assert_eq!(Line::read(r#"{"index":7,"origin":"ab","seq":1,"view":1,"payload":"00ff"}"#), message(&[0, 255]));
        assert_eq!(Line::read(r#"{"index":7,"text":"ä"}"#), message("ä".as_bytes()));
        assert_eq!(Line::read(r#"{"index":7,"base64":"//4="}"#), message(&[255, 254]));
        assert_eq!(Line::read(r#"{"index":7,"value":0.25}"#), message(&numbers::encode(0.25)));
        assert_eq!(Line::read(r#"{"count":12,"digest":"00"}"#), Ok(Line::Count(12)));
        for other in
            [r#"{"view":1,"index":1,"members":["ab"]}"#, r#"{"receipt":4,"index":17}"#, r#"{"unknown":4,"error":""}"#]
        {
            assert_eq!(Line::read(other), Ok(Line::Other));
        }
        for (wrong, fault) in [("text", "no JSON"), (r#"{"text":"a"}"#, "no index"), (r#"{"index":1}"#, "no payload")] {
            let error = Line::read(wrong).expect_err("wrong");
            assert!(error.contains(fault), "{error}");
        }
    }
}
