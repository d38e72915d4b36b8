//! A server that sends something else than it says, or says something else than it sent: whatever lies between us and it, or a
//! bug in either. Each of the three counts of a table's rows (messages, rows in the bytes, COPY's tag) and `count(*)` beside
//! them has its own lie here that no other one notices.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backup_core::source::postgres::{ConnectOptions, PostgresError, PostgresOptions};
use harness::pg::{Cluster, SUPERUSER};
use harness::tools::{skip, tool};

use super::sink::{MemorySink, assert_counts, table};
use super::{chain, options, run};

/// What stands in the row that a lie is about.
pub(crate) const MARK: &str = "the marked row";

/// A table of 1,000 rows, the 500th of which is marked.
pub(crate) const TABLE: &str =
    "CREATE TABLE t AS SELECT i, CASE i WHEN 500 THEN 'the marked row' ELSE md5(i::text) END AS v
    FROM generate_series(1, 1000) i";

/// What becomes of the COPY with the marked row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Nothing: the proxy itself changes nothing.
    None,
    /// The row is left out, and the tag says so.
    RowLeftOut,
    /// The tag says one more.
    OneMore,
    /// The row and the next one come in one message.
    TwoInOne,
    /// The row comes in two messages.
    InTwo,
    /// No row at all, but the process id of the session: what a pooler does that keeps sessions apart.
    OtherPid,
}

/// A proxy before a server, which lies.
pub(crate) struct Liar {
    pub(crate) port: u16,
    over: Arc<AtomicBool>,
}

impl Liar {
    pub(crate) fn before(cluster: &Cluster, lie: Lie) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, server, over) =
            (listener.local_addr().unwrap().port(), cluster.port(), Arc::new(AtomicBool::new(false)));
        let told = over.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if told.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                // Small messages one by one: without this each would wait for the answer to the one before.
                client.set_nodelay(true).and(server.set_nodelay(true)).unwrap();
                let (asks, answers) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || {
                    let (mut from, mut to) = (asks, &server);
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = server.shutdown(Shutdown::Write);
                });
                std::thread::spawn(move || {
                    let _ = pass(answers, &client, lie);
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        Self { port, over }
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Passes the server's messages on, until its end of the connection closes.
fn pass(mut from: TcpStream, mut to: &TcpStream, lie: Lie) -> std::io::Result<()> {
    let (mut met, mut held) = (false, Vec::new());
    loop {
        let mut head = [0; 5];
        from.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut body = vec![0; length - 4];
        from.read_exact(&mut body)?;
        let marked = head[0] == b'd' && body.windows(MARK.len()).any(|bytes| bytes == MARK.as_bytes());
        met |= marked;
        match (lie, head[0]) {
            (Lie::RowLeftOut, b'd') if marked => continue,
            (Lie::TwoInOne, b'd') if marked => {
                held = body;
                continue;
            }
            (Lie::TwoInOne, b'd') if !held.is_empty() => body = [std::mem::take(&mut held), body].concat(),
            (Lie::InTwo, b'd') if marked => {
                let rest = body.split_off(body.len() / 2);
                to.write_all(&message(b'd', &body))?;
                body = rest;
            }
            (Lie::RowLeftOut, b'C') if met => body = b"COPY 999\0".to_vec(),
            (Lie::OtherPid, b'K') => body[..4].copy_from_slice(&7_654_321_u32.to_be_bytes()),
            (Lie::OneMore, b'C') if met => body = b"COPY 1001\0".to_vec(),
            _ => {}
        }
        if head[0] == b'C' {
            met = false;
        }
        to.write_all(&message(head[0], &body))?;
    }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// A lie, the error that it must end with, and its words.
type Told = (Lie, Option<fn(&PostgresError) -> bool>, &'static str);

#[tokio::test(flavor = "multi_thread")]
async fn each_lie_about_rows_is_noticed_and_named() {
    let cluster = Cluster::start();
    cluster.psql("postgres", TABLE);
    let lies: [Told; 6] = [
        (Lie::None, None, ""),
        (Lie::OtherPid, None, ""),
        (
            Lie::RowLeftOut,
            Some(|e| matches!(e, PostgresError::CountDiffers { copied: 999, counted: 1000, .. })),
            "table `public.t` gave 999 rows by COPY and 1000 by count(*)",
        ),
        (
            Lie::OneMore,
            Some(|e| matches!(e, PostgresError::TagDiffers { copied: 1000, counted: 1001, .. })),
            "COPY of table `public.t` gave 1000 rows, and the server says that it sent 1001",
        ),
        (
            Lie::TwoInOne,
            Some(|e| matches!(e, PostgresError::NotARow { .. })),
            "COPY of table `public.t` sent a message",
        ),
        (Lie::InTwo, Some(|e| matches!(e, PostgresError::NotARow { .. })), "COPY of table `public.t` sent a message"),
    ];
    for (lie, expected, words) in lies {
        let liar = Liar::before(&cluster, lie);
        let url = format!("postgres://{SUPERUSER}@127.0.0.1:{}/postgres?sslmode=disable", liar.port);
        for text_only in [false, true] {
            let connect = ConnectOptions::new(&url, None).unwrap();
            let wanted = PostgresOptions { connect, text_only, ..options(&cluster, SUPERUSER, "postgres") };
            let outcome = run(&wanted, &MemorySink::default()).await;
            let Some(expected) = expected else {
                let (captured, _) = outcome.unwrap_or_else(|e| panic!("{}", chain(&e)));
                let format = if text_only { "text" } else { "binary" };
                assert_eq!(table(&captured, "public", "t").format, format);
                assert_counts(&captured);
                continue;
            };
            let error = outcome.map(|(captured, _)| captured.tables).expect_err(words);
            let text = chain(&error);
            assert!(expected(&error) && text.contains(words), "{lie:?}, text {text_only}: {text}");
        }
    }
}

/// A pooler in front of the server, as Debian has it.
struct Pooler(Child);

impl Pooler {
    /// `None` where it is not installed. It refuses to run as root.
    fn before(cluster: &Cluster, port: u16, mode: &str, more: &str) -> Option<Self> {
        let Some(program) =
            tool("pgbouncer").or_else(|| Some(PathBuf::from("/usr/sbin/pgbouncer")).filter(|it| it.exists()))
        else {
            skip("pgbouncer", "it is not installed");
            return None;
        };
        let file = cluster.dir().join(format!("{port}.ini"));
        let text = format!(
            "[databases]\npostgres = host=127.0.0.1 port={} user={SUPERUSER}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n\
             ignore_startup_parameters = options,extra_float_digits\n{more}",
            cluster.port()
        );
        std::fs::write(&file, text).unwrap();
        let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
        let mut command = Command::new(if root { Path::new("/usr/bin/setpriv") } else { &program });
        if root {
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
        }
        let child = command.arg("-q").arg(file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pooler = Self(child);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(pooler)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_is_refused_where_it_shares_sessions() {
    let cluster = Cluster::start();
    cluster.psql("postgres", TABLE);
    let in_turn = "server_round_robin = 1\n";
    let cases = [
        ("transaction", "", true),
        ("transaction", in_turn, true),
        ("session", "", false),
        ("session", in_turn, false),
    ];
    for (mode, more, refused) in cases {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let Some(_pooler) = Pooler::before(&cluster, port, mode, more) else { return };
        let url = format!("postgres://{SUPERUSER}@127.0.0.1:{port}/postgres?sslmode=disable");
        // Some at once, so that it has sessions to choose from afterwards.
        let some: Vec<_> = (0..3).map(|_| sleeper(&cluster, &url)).collect();
        for mut it in some {
            assert!(it.wait().unwrap().success());
        }
        let wanted = PostgresOptions {
            connect: ConnectOptions::new(&url, None).unwrap(),
            ..options(&cluster, SUPERUSER, "postgres")
        };
        let outcome = run(&wanted, &MemorySink::default()).await.map(|(captured, _)| assert_counts(&captured));
        let pooled = matches!(outcome, Err(PostgresError::Pooler { .. }));
        assert!(pooled == refused && outcome.is_ok() != refused, "{mode} {more}: {outcome:?}");
    }
}

fn sleeper(cluster: &Cluster, url: &str) -> Child {
    let mut command = cluster.client("psql", "postgres");
    command.args(["-X", "-q", "-d", url, "-c", "SELECT pg_sleep(0.5)"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}
