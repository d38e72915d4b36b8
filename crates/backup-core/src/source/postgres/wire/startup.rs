//! From an address to a session: connection, TLS, password, parameters.
//!
//! The same options as the driver's, so that both reach the same server in the same way.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use rustix::net::sockopt;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::error::server_error;
use super::{ANSWER_BYTES, Stream, Wire, tls, unexpected};
use crate::secret::Secret;
use crate::source::postgres::options::{ConnectOptions, SslMode};

/// Time to connect and to be let in.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A connection that carries nothing for this long is asked whether it still lives, this often, this many times: a
/// firewall that forgot it must not leave a run waiting for ever.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_mins(1), Duration::from_secs(10), 6);

impl Wire {
    /// Opens a session.
    pub(in super::super) async fn open(to: &ConnectOptions) -> Result<Self, sqlx::Error> {
        let opened = tokio::time::timeout(TIMEOUT, Self::connect(to)).await;
        opened.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
    }

    async fn connect(to: &ConnectOptions) -> Result<Self, sqlx::Error> {
        let mut wire = Self::new(stream(to).await?);
        let parameters = [
            ("user", to.user()),
            ("database", to.database()),
            ("client_encoding", "UTF8"),
            ("application_name", to.application()),
            // From the first statement on: a role's own time limit could end the one that would lift it.
            ("options", "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0"),
        ];
        frontend::startup_message(parameters, &mut wire.outbox)?;
        wire.send().await?;
        wire.authenticate(to).await?;
        wire.limit = ANSWER_BYTES;
        loop {
            match wire.message().await? {
                Message::ReadyForQuery(_) => break,
                Message::BackendKeyData(body) => wire.announced = Some(body.process_id()),
                Message::ErrorResponse(body) => return Err(server_error(&body)?),
                _ => {}
            }
        }
        if wire.any_bytes {
            // Nothing is converted in such a database anyway, and with UTF8 the server refuses what is none.
            wire.query("SET client_encoding = 'SQL_ASCII'").await?;
        }
        Ok(wire)
    }

    pub(super) async fn authenticate(&mut self, to: &ConnectOptions) -> Result<(), sqlx::Error> {
        let password = to.password().map_or("", Secret::reveal).as_bytes();
        loop {
            match self.message().await? {
                Message::AuthenticationOk => return Ok(()),
                Message::ErrorResponse(body) => return Err(server_error(&body)?),
                Message::AuthenticationCleartextPassword => frontend::password_message(password, &mut self.outbox)?,
                Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(to.user().as_bytes(), password, body.salt());
                    frontend::password_message(hash.as_bytes(), &mut self.outbox)?;
                }
                Message::AuthenticationSasl(body) => {
                    let known = body.mechanisms().any(|name| Ok(name == SCRAM_SHA_256))?;
                    if !known {
                        return Err(unexpected("only ways to log in that are not known"));
                    }
                    self.scram(password).await?;
                    continue;
                }
                _ => return Err(unexpected("a way to log in that is not known")),
            }
            self.send().await?;
        }
    }

    async fn scram(&mut self, password: &[u8]) -> Result<(), sqlx::Error> {
        let mut scram = ScramSha256::new(password, ChannelBinding::unsupported());
        frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut self.outbox)?;
        self.send().await?;
        match self.message().await? {
            Message::AuthenticationSaslContinue(body) => scram.update(body.data())?,
            Message::ErrorResponse(body) => return Err(server_error(&body)?),
            _ => return Err(unexpected("something else than the next step of SCRAM")),
        }
        frontend::sasl_response(scram.message(), &mut self.outbox)?;
        self.send().await?;
        match self.message().await? {
            // The server proves that it knows the password as well.
            Message::AuthenticationSaslFinal(body) => Ok(scram.finish(body.data())?),
            Message::ErrorResponse(body) => Err(server_error(&body)?),
            _ => Err(unexpected("something else than the last step of SCRAM")),
        }
    }
}

/// A connection, inside TLS where asked for.
async fn stream(to: &ConnectOptions) -> Result<Box<dyn Stream>, sqlx::Error> {
    if let Some(directory) = to.socket_directory() {
        let path = format!("{}/.s.PGSQL.{}", directory.trim_end_matches('/'), to.port());
        return Ok(Box::new(UnixStream::connect(path).await?));
    }
    let mut tcp = tcp(to).await?;
    if matches!(to.ssl_mode(), SslMode::Disable | SslMode::Allow) {
        return Ok(Box::new(tcp));
    }
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    tcp.write_all(&request).await?;
    // One byte and no more: whatever came with it in the clear would be somebody else's.
    match (tcp.read_u8().await?, to.ssl_mode()) {
        (b'S', _) => Ok(Box::new(tls::handshake(tcp, to).await?)),
        (b'N', SslMode::Prefer) => Ok(Box::new(tcp)),
        (b'N', _) => Err(sqlx::Error::Tls("the server offers no TLS, and `sslmode` demands it".into())),
        _ => Err(unexpected("an answer to the request for TLS that is not known")),
    }
}

/// The network's part of a connection.
async fn tcp(to: &ConnectOptions) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect((to.host(), to.port())).await?;
    tcp.set_nodelay(true)?;
    let (idle, interval, count) = KEEPALIVE;
    sockopt::set_socket_keepalive(&tcp, true)?;
    sockopt::set_tcp_keepidle(&tcp, idle)?;
    sockopt::set_tcp_keepintvl(&tcp, interval)?;
    sockopt::set_tcp_keepcnt(&tcp, count)?;
    Ok(tcp)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::source::postgres::error::PostgresError;

    fn message(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len() + 4).unwrap();
        [&[tag][..], &length.to_be_bytes(), content].concat()
    }

    /// What a client sent, without the length: of the start-up message no tag either.
    async fn received(tcp: &mut TcpStream, tagged: bool) -> Vec<u8> {
        if tagged {
            tcp.read_u8().await.unwrap();
        }
        let mut content = vec![0; tcp.read_u32().await.unwrap() as usize - 4];
        tcp.read_exact(&mut content).await.unwrap();
        content
    }

    /// A server for one connection, and the options to reach it.
    async fn server<F: Future<Output = ()> + Send + 'static>(
        parameters: &str,
        talk: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) -> ConnectOptions {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { talk(listener.accept().await.unwrap().0).await });
        let url = format!("postgres://u@127.0.0.1:{port}/d?{parameters}");
        ConnectOptions::new(&url, Some(Secret::new("right"))).unwrap()
    }

    /// Has no TLS; lets everybody in.
    async fn without_tls(mut tcp: TcpStream) {
        received(&mut tcp, false).await;
        tcp.write_all(b"N").await.unwrap();
        // A client that wants TLS leaves here.
        if tcp.read_u32().await.is_ok() {
            let welcome = [message(b'R', &[0; 4]), message(b'Z', b"I")].concat();
            let _ = tcp.write_all(&welcome).await;
        }
    }

    #[tokio::test]
    async fn a_server_without_tls_will_do_only_where_tls_is_a_preference() {
        assert!(Wire::open(&server("sslmode=prefer", without_tls).await).await.is_ok());
        for demand in ["sslmode=require", "sslmode=verify-full"] {
            let error = Wire::open(&server(demand, without_tls).await).await.unwrap_err();
            assert!(matches!(error, sqlx::Error::Tls(_)), "{demand}: {error}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_was_forgotten_is_noticed_within_two_minutes() {
        let tcp = tcp(&server("sslmode=disable", without_tls).await).await.unwrap();
        assert!(sockopt::socket_keepalive(&tcp).unwrap() && tcp.nodelay().unwrap());
        let times = (sockopt::tcp_keepidle(&tcp).unwrap(), sockopt::tcp_keepintvl(&tcp).unwrap());
        let silence = times.0 + times.1 * sockopt::tcp_keepcnt(&tcp).unwrap();
        assert_eq!(silence, Duration::from_mins(2));
    }

    #[tokio::test]
    async fn a_server_that_does_not_know_the_password_is_refused() {
        let impostor = |mut tcp: TcpStream| async move {
            received(&mut tcp, false).await;
            tcp.write_all(&message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0")).await.unwrap();
            let first = String::from_utf8_lossy(&received(&mut tcp, true).await).into_owned();
            let nonce = first.split("r=").nth(1).unwrap();
            let challenge = format!("r={nonce}more,s=c2FsdHNhbHQ=,i=4096");
            tcp.write_all(&message(b'R', &[b"\0\0\0\x0b", challenge.as_bytes()].concat())).await.unwrap();
            received(&mut tcp, true).await;
            let claim = b"\0\0\0\x0cv=bm90IHRoZSByaWdodCBzaWduYXR1cmUgYXQgYWxsLi4=";
            let answer = [message(b'R', claim), message(b'R', &[0; 4]), message(b'Z', b"I")].concat();
            let _ = tcp.write_all(&answer).await;
            let _ = tcp.read_u8().await;
        };
        let to = server("sslmode=disable", impostor).await;
        let error = PostgresError::connecting(&to, Wire::open(&to).await.unwrap_err());
        assert!(matches!(error, PostgresError::Connect { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_stranger_cannot_make_us_reserve_memory() {
        let greedy = |mut tcp: TcpStream| async move {
            received(&mut tcp, false).await;
            let _ = tcp.write_all(b"R\x7f\xff\xff\xff").await;
            let _ = tcp.read_u8().await;
        };
        let error = Wire::open(&server("sslmode=disable", greedy).await).await.unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }
}
