//! Answers that are not what the server said: bodies altered, listings that are short or old, a clock that is wrong.
//!
//! Here a connection is read request by request, unlike everywhere else in this proxy, because a listing that lost an entry
//! must still be a whole answer: its length is set anew, and chunks become one body.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use super::{Shared, lock};

/// An answer on its way to the client.
#[derive(Debug)]
pub struct Answer {
    /// First line of the request (`GET /bucket/key?list-type=2 HTTP/1.1`).
    pub request: String,
    /// Status line and headers, a line each, without their ends.
    pub head: Vec<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// What is done to answers.
pub type Lie = Arc<dyn Fn(&mut Answer) + Send + Sync>;

/// A [`Lie`] that can be shown.
#[derive(Clone)]
pub(super) struct Rewrite(pub(super) Lie);

impl fmt::Debug for Rewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rewrite")
    }
}

fn head(from: &mut BufReader<TcpStream>) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end() {
            "" => return Ok(lines),
            line => lines.push(line.to_owned()),
        }
    }
}

fn header<'a>(head: &'a [String], name: &str) -> Option<&'a str> {
    let named = |line: &'a String| line.split_once(':').filter(|(found, _)| found.eq_ignore_ascii_case(name));
    head.iter().find_map(|line| named(line).map(|(_, value)| value.trim()))
}

fn body(head: &[String], from: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if header(head, "transfer-encoding").is_some_and(|how| how.eq_ignore_ascii_case("chunked")) {
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            let length = u64::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
            from.by_ref().take(length).read_to_end(&mut body)?;
            from.read_line(&mut line)?;
            if length == 0 {
                return Ok(body);
            }
        }
    }
    let length = header(head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    from.take(length).read_to_end(&mut body)?;
    Ok(body)
}

fn write(to: &mut TcpStream, head: &[String], body: &[u8]) -> io::Result<()> {
    to.write_all(&[(head.join("\r\n") + "\r\n\r\n").as_bytes(), body].concat())
}

/// Passes requests on as they are, and answers as `rewrite` leaves them, until one side ends.
pub(super) fn converse(shared: &Shared, client: &TcpStream, server: SocketAddr, rewrite: &Rewrite) -> io::Result<()> {
    let upstream = TcpStream::connect(server)?;
    upstream.set_nodelay(true)?;
    lock(&shared.open).push(upstream.try_clone()?);
    let (mut to_client, mut to_server) = (client.try_clone()?, upstream.try_clone()?);
    let (mut from_client, mut from_server) = (BufReader::new(client.try_clone()?), BufReader::new(upstream));
    loop {
        let asked = head(&mut from_client)?;
        lock(&shared.heads).push(asked.join("\n"));
        let sent = body(&asked, &mut from_client)?;
        write(&mut to_server, &asked, &sent)?;
        let request = asked.first().cloned().unwrap_or_default();
        let mut said = head(&mut from_server)?;
        if request.starts_with("HEAD ") {
            let mut answer = Answer { request, head: said, body: Vec::new() };
            (rewrite.0)(&mut answer);
            write(&mut to_client, &answer.head, &[])?;
            continue;
        }
        let content = body(&said, &mut from_server)?;
        said.retain(|line| {
            let name = line.split(':').next().unwrap_or_default();
            !["transfer-encoding", "content-length"].iter().any(|own| name.eq_ignore_ascii_case(own))
        });
        let mut answer = Answer { request, head: said, body: content };
        (rewrite.0)(&mut answer);
        answer.head.push(format!("content-length: {}", answer.body.len()));
        write(&mut to_client, &answer.head, &answer.body)?;
    }
}
