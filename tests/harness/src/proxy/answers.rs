//! Faults of single requests: answers that are not what the server said (bodies altered, listings that are short or old, a
//! clock that is wrong), that never come, break off, trickle or have no end, or that the server never gave.
//!
//! Here a connection is read request by request, unlike everywhere else in this proxy, because a listing that lost an entry
//! must still be a whole answer: its length is set anew, and chunks become one body.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

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

/// What becomes of one request.
#[derive(Clone)]
pub enum Act {
    /// It is passed on, and its answer comes back as it is.
    Pass,
    /// It is passed on, and its answer comes back altered, as a whole answer.
    Lie(Lie),
    /// It is answered with this status and S3's code for it; the server never sees it.
    Refuse(u16, &'static str),
    /// The connection is closed; the server never sees it.
    Close,
    /// It is passed on and done, and instead of an answer the connection is closed.
    Lose,
    /// It is never answered; the server never sees it.
    Hang,
    /// It is passed on, and the connection is reset after half of the answer's body, or of its head where it has no body.
    Reset,
    /// It is passed on, and its answer comes back at so many bytes a second.
    Trickle(u32),
    /// It is answered with these lines, and with the same bytes again and again until the client goes away; the server
    /// never sees it.
    Endless(Vec<String>, Arc<[u8]>),
}

/// Says what becomes of a request, by its first line.
pub type Judge = Arc<dyn Fn(&str) -> Act + Send + Sync>;

/// A [`Judge`] that can be shown.
#[derive(Clone)]
pub(super) struct Judged(pub(super) Judge);

impl fmt::Debug for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Judged")
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

/// How a conversation ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    Closed,
    /// The client's socket resets its connection once its last copy is closed.
    Reset,
}

/// An answer's head and body; what said how long the body is was taken out of the head, but for a HEAD.
fn answer_to(request: &str, from: &mut BufReader<TcpStream>) -> io::Result<Answer> {
    let mut said = head(from)?;
    if request.starts_with("HEAD ") {
        return Ok(Answer { request: request.to_owned(), head: said, body: Vec::new() });
    }
    let content = body(&said, from)?;
    said.retain(|line| {
        let name = line.split(':').next().unwrap_or_default();
        !["transfer-encoding", "content-length"].iter().any(|own| name.eq_ignore_ascii_case(own))
    });
    Ok(Answer { request: request.to_owned(), head: said, body: content })
}

/// The answer as bytes; where its head ends is the second value.
fn on_the_wire(mut answer: Answer) -> (Vec<u8>, usize) {
    if !answer.request.starts_with("HEAD ") {
        answer.head.push(format!("content-length: {}", answer.body.len()));
    }
    let mut bytes = (answer.head.join("\r\n") + "\r\n\r\n").into_bytes();
    let head_bytes = bytes.len();
    bytes.extend(answer.body);
    (bytes, head_bytes)
}

fn refusal(request: &str, status: u16, code: &str) -> Vec<u8> {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>the test says so</Message></Error>");
    let length = body.len();
    let body = if request.starts_with("HEAD ") { String::new() } else { body };
    format!("HTTP/1.1 {status} -\r\ncontent-type: application/xml\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// The connection to the server.
struct Upstream {
    to: TcpStream,
    from: BufReader<TcpStream>,
}

impl Upstream {
    fn open(shared: &Shared, server: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        lock(&shared.open).push(stream.try_clone()?);
        Ok(Self { to: stream.try_clone()?, from: BufReader::new(stream) })
    }

    fn ask(&mut self, head: &[String], body: &[u8], request: &str) -> io::Result<Answer> {
        write(&mut self.to, head, body)?;
        answer_to(request, &mut self.from)
    }
}

/// Passes requests on and answers back, each as `judge` says, until one side ends.
pub(super) fn converse(shared: &Shared, client: &TcpStream, server: SocketAddr, judge: &Judged) -> io::Result<End> {
    let mut upstream = Upstream::open(shared, server)?;
    let (mut to_client, mut from_client) = (client.try_clone()?, BufReader::new(client.try_clone()?));
    loop {
        let asked = head(&mut from_client)?;
        lock(&shared.heads).push(asked.join("\n"));
        let sent = body(&asked, &mut from_client)?;
        let request = asked.first().cloned().unwrap_or_default();
        let act = (judge.0)(&request);
        match &act {
            Act::Close => return Ok(End::Closed),
            Act::Hang => {
                // Until the client goes away, or everything ends.
                let _ = from_client.read(&mut [0]);
                return Ok(End::Closed);
            }
            Act::Refuse(status, code) => {
                to_client.write_all(&refusal(&request, *status, code))?;
                continue;
            }
            Act::Endless(head, piece) => {
                write(&mut to_client, head, &[])?;
                while !shared.stopping.load(Ordering::SeqCst) {
                    to_client.write_all(piece)?;
                }
                return Ok(End::Closed);
            }
            _ => {}
        }
        let mut answer = upstream.ask(&asked, &sent, &request).or_else(|_| {
            // A server that refused without reading the body has closed its side; a client that sees it opens another one.
            upstream = Upstream::open(shared, server)?;
            upstream.ask(&asked, &sent, &request)
        })?;
        if let Act::Lie(lie) = &act {
            lie(&mut answer);
        }
        let (bytes, head_bytes) = on_the_wire(answer);
        match act {
            Act::Lose => return Ok(End::Closed),
            Act::Reset => {
                let half = if bytes.len() > head_bytes { head_bytes.midpoint(bytes.len()) } else { head_bytes / 2 };
                to_client.write_all(&bytes[..half])?;
                set_socket_linger(client, Some(Duration::ZERO))?;
                return Ok(End::Reset);
            }
            Act::Trickle(rate) => {
                for piece in bytes.chunks((rate / 20).max(1) as usize) {
                    to_client.write_all(piece)?;
                    std::thread::sleep(Duration::from_secs(1) * u32::try_from(piece.len()).unwrap_or(1) / rate.max(1));
                }
            }
            _ => to_client.write_all(&bytes)?,
        }
    }
}
