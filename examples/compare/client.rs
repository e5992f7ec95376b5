//! A connection to one node, with one write at a time.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::System;

/// The size of a value.
const VALUE_BYTES: usize = 100;
/// The most that an answer takes.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The stream of the bucket `compare`.
pub(crate) const STREAM: &str = "KV_compare";

pub(crate) struct Connection {
    system: System,
    stream: BufReader<TcpStream>,
    inbox: String,
}

/// Base64 of a text whose length is a multiple of three.
fn base64(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let triples = text.as_bytes().chunks_exact(3);
    let digits = triples.flat_map(|three| {
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        [18, 12, 6, 0].map(|shift| char::from(ALPHABET[(bits >> shift) as usize % 64]))
    });
    digits.collect()
}

impl Connection {
    pub(crate) fn open(system: System, node: SocketAddr, client: u64) -> io::Result<Self> {
        let stream = TcpStream::connect(node)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let inbox = format!("_INBOX.{}.{client}", std::process::id());
        let mut connection = Self { system, stream: BufReader::new(stream), inbox };
        if system == System::Nats {
            let hello =
                format!("CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB {} 1\r\nPING\r\n", connection.inbox);
            connection.send(hello.as_bytes())?;
            while !connection.line()?.starts_with("PONG") {}
        }
        Ok(connection)
    }

    /// Writes a key. False if the node refused it.
    pub(crate) fn put(&mut self, key: u64) -> io::Result<bool> {
        let key = format!("key-{key:05}");
        match self.system {
            System::Kv => {
                let value = "v".repeat(VALUE_BYTES);
                Ok(self.http("PUT", &format!("/kv/{key}"), &value)?.0 == 200)
            }
            System::Etcd => {
                // The value has 102 bytes: a multiple of three.
                let value = base64(&"v".repeat(VALUE_BYTES.next_multiple_of(3)));
                let body = format!("{{\"key\":\"{}\",\"value\":\"{value}\"}}", base64(&key));
                Ok(self.http("POST", "/v3/kv/put", &body)?.0 == 200)
            }
            System::Nats => {
                let answer = self.ask(&format!("$KV.compare.{key}"), &"v".repeat(VALUE_BYTES))?;
                Ok(answer.contains("\"seq\":"))
            }
        }
    }

    /// A request by HTTP: status and body.
    pub(crate) fn http(&mut self, method: &str, path: &str, body: &str) -> io::Result<(u16, String)> {
        let length = body.len();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: compare\r\ncontent-length: {length}\r\n\r\n{body}");
        self.send(request.as_bytes())?;
        let status = self.line()?.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut length = 0;
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        Ok((status.ok_or(io::ErrorKind::InvalidData)?, self.text(length)?))
    }

    /// A request by NATS: the reply.
    pub(crate) fn ask(&mut self, subject: &str, payload: &str) -> io::Result<String> {
        let request = format!("PUB {subject} {} {}\r\n{payload}\r\n", self.inbox, payload.len());
        self.send(request.as_bytes())?;
        loop {
            let line = self.line()?;
            if line.starts_with("PING") {
                self.send(b"PONG\r\n")?;
            } else if line.starts_with("-ERR") {
                return Err(io::Error::other(line));
            } else if line.starts_with("MSG") {
                let length = line.rsplit(' ').next().and_then(|length| length.parse().ok());
                let reply = self.text(length.ok_or(io::ErrorKind::InvalidData)?)?;
                self.line()?;
                return Ok(reply);
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    fn text(&mut self, length: usize) -> io::Result<String> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes)?;
        String::from_utf8(bytes).map_err(io::Error::other)
    }
}
