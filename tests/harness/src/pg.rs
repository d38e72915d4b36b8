//! PostgreSQL clusters for tests: made, started and removed by the test that asks for one.
//!
//! Every cluster has its own directory, port and postmaster, so tests may run side by side. The postmaster is our
//! child, not `pg_ctl`'s, and asks the kernel for SIGQUIT on its parent's death: a test that is killed leaves no
//! server behind. The kernel means the parent *thread*, therefore each server has a keeper thread that spawns it and
//! lives until it exits.
//!
//! PostgreSQL refuses to run as root: when we are root the server runs as the user `postgres` (made by Debian's
//! packages). fsync is off: what is tested is our program, not the disk; a crash of the *server* loses nothing then.

mod installation;
mod versions;

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub use self::installation::Installation;
pub use self::versions::available;

/// The name of the superuser in every cluster.
pub const SUPERUSER: &str = "postgres";

/// How long a server may take to start or stop: a machine that runs many tests at once is slow.
const PATIENCE: Duration = Duration::from_mins(2);

/// How a cluster is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// Major version (see [`available`]); Debian's newest when absent.
    pub version: Option<u32>,
    /// Directory with `initdb` and `postgres` of that version, instead of the usual one.
    pub bin: Option<PathBuf>,
    /// Superuser's password: connections then need it (SCRAM); without one everybody is trusted.
    pub password: Option<String>,
    /// Encoding of the template databases.
    pub encoding: String,
    /// Locale of the template databases.
    pub locale: String,
    /// Server settings, by name.
    pub settings: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: None,
            bin: None,
            password: None,
            encoding: "UTF8".to_owned(),
            locale: "C.UTF-8".to_owned(),
            settings: Vec::new(),
        }
    }
}

/// How a server is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Ends the sessions, writes a checkpoint (SIGINT).
    Fast,
    /// Leaves at once; the next start recovers (SIGQUIT).
    Immediate,
}

/// A running (or, after [`Cluster::stop`] and [`Cluster::kill9`], stopped) cluster; removed when dropped.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    bin: PathBuf,
    clients: PathBuf,
    port: u16,
    server: Mutex<Option<Server>>,
    dir: tempfile::TempDir,
}

#[derive(Debug)]
struct Server {
    pid: Pid,
    exited: Receiver<ExitStatus>,
}

impl Cluster {
    /// A cluster with default options.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start; the message holds its log.
    pub fn start() -> Self {
        Self::start_with(Options::default())
    }

    /// A cluster as `options` say.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start; the message holds its log.
    pub fn start_with(options: Options) -> Self {
        let installed = || versions::server(options.version);
        let bin = options.bin.clone().or_else(installed);
        let bin = bin.unwrap_or_else(|| panic!("no PostgreSQL server here (version asked for: {:?})", options.version));
        let clients = options.version.map_or_else(versions::debian_clients, versions::clients);
        let clients = clients.expect("client programs that are new enough");
        let dir = new_dir();
        let cluster = Self { options, bin, clients, port: 0, server: Mutex::new(None), dir };
        cluster.initdb();
        cluster.started()
    }

    /// A hot standby of this cluster, made from its files while it is stopped for a moment.
    ///
    /// # Panics
    /// When files cannot be copied or a server does not start.
    #[must_use]
    pub fn standby(&self) -> Self {
        let dir = new_dir();
        self.stop(Stop::Fast);
        let mut copy = as_server_user("/bin/cp".as_ref(), false);
        let copied = copy.arg("-a").arg(self.data()).arg(dir.path().join("data")).status().expect("cp");
        assert!(copied.success(), "the cluster's files could not be copied");
        self.start_again();
        let signal = dir.path().join("data/standby.signal");
        fs::write(&signal, "").expect("a file");
        let mut options = self.options.clone();
        let from = format!("host=127.0.0.1 port={} user={SUPERUSER}", self.port);
        options.settings.push(("primary_conninfo".to_owned(), from));
        let (bin, clients) = (self.bin.clone(), self.clients.clone());
        Self { options, bin, clients, port: 0, server: Mutex::new(None), dir }.started()
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory that holds the data, the log and the socket.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The directory of the client programs (`pg_dump`, `psql`).
    pub fn clients(&self) -> &Path {
        &self.clients
    }

    /// The superuser's password, if the cluster asks for one.
    pub fn password(&self) -> Option<&str> {
        self.options.password.as_deref()
    }

    /// Address of a database for the superuser; never with a password.
    pub fn url(&self, database: &str) -> String {
        self.url_as(SUPERUSER, database)
    }

    /// Address of a database for some user; never with a password.
    pub fn url_as(&self, user: &str, database: &str) -> String {
        format!("postgres://{}@127.0.0.1:{}/{}", percent(user), self.port, percent(database))
    }

    /// A client program with the address and the password in its environment, and nothing else in there.
    pub fn client(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(self.clients.join(program));
        clean(&mut command);
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.port.to_string()).env("PGUSER", SUPERUSER);
        command.env("PGDATABASE", database).env("PGCONNECT_TIMEOUT", "30");
        if let Some(password) = &self.options.password {
            command.env("PGPASSWORD", password);
        }
        command
    }

    /// Runs SQL (or a psql script) and returns what it prints: unaligned rows, without the last line's end.
    ///
    /// # Panics
    /// When a statement fails, with the server's message.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        self.try_psql(database, sql).unwrap_or_else(|error| panic!("psql on `{database}`: {error}"))
    }

    /// As [`Cluster::psql`], giving psql's message when a statement fails.
    ///
    /// # Errors
    /// What psql wrote on its standard error.
    pub fn try_psql(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut command = self.client("psql", database);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        let output = fed(&mut command, sql.as_bytes());
        if output.status.success() {
            let text = String::from_utf8_lossy(&output.stdout);
            Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Stops the server; the data stays.
    ///
    /// # Panics
    /// When it does not stop in time.
    pub fn stop(&self, how: Stop) {
        self.end(if how == Stop::Fast { Signal::INT } else { Signal::QUIT });
    }

    /// Kills the postmaster with SIGKILL, as a crash of the machine would; its children notice and leave.
    ///
    /// # Panics
    /// When it does not die in time.
    pub fn kill9(&self) {
        self.end(Signal::KILL);
    }

    /// Starts the server again on the same port, after [`Cluster::stop`] or [`Cluster::kill9`].
    ///
    /// # Panics
    /// When it runs already or does not start.
    pub fn start_again(&self) {
        // A killed postmaster's children hold the shared memory for a moment, and the new one refuses to start then.
        let deadline = Instant::now() + PATIENCE;
        while let Err(why) = self.launch(self.port) {
            assert!(Instant::now() < deadline, "postgres did not start again: {why}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// [`Cluster::stop`], then [`Cluster::start_again`].
    ///
    /// # Panics
    /// As those do.
    pub fn restart(&self, how: Stop) {
        self.stop(how);
        self.start_again();
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        fs::read(self.dir().join("log")).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.dir().join("data")
    }

    fn initdb(&self) {
        let mut command = as_server_user(self.bin.join("initdb").as_os_str(), false);
        command.arg("-D").arg(self.data()).args(["-U", SUPERUSER, "--no-sync", "-E", &self.options.encoding]);
        command.arg(format!("--locale={}", self.options.locale));
        if let Some(password) = &self.options.password {
            let file = self.dir().join("password");
            fs::write(&file, password).expect("a password file");
            command.args(["-A", "scram-sha-256"]).arg("--pwfile").arg(file);
        } else {
            command.args(["-A", "trust"]);
        }
        let output = command.output().expect("initdb can be started");
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Finds a free port and starts there. Another process may take the port in between: then another one.
    fn started(mut self) -> Self {
        let mut last = String::new();
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
            match self.launch(port) {
                Ok(()) => {
                    self.port = port;
                    return self;
                }
                Err(why) if why.contains("could not bind") => last = why,
                Err(why) => panic!("postgres did not start: {why}"),
            }
        }
        panic!("no port could be had: {last}");
    }

    fn launch(&self, port: u16) -> Result<(), String> {
        let mut server = self.server.lock().expect("no test panics while it holds this lock");
        assert!(server.is_none(), "the server runs already");
        let log = File::options().create(true).append(true).open(self.dir().join("log")).expect("a log file");
        let from = log.metadata().expect("a log file").len();
        let mut command = as_server_user(self.bin.join("postgres").as_os_str(), true);
        command.arg("-D").arg(self.data()).arg("-p").arg(port.to_string());
        command.arg("-c").arg(format!("unix_socket_directories={}", self.dir().display()));
        command.args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "logging_collector=off"]);
        for (name, value) in &self.options.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        let started = keep(command);
        let deadline = Instant::now() + PATIENCE;
        let why = loop {
            // The eighth line of this file is the postmaster's own word on its state (PostgreSQL 10 and later).
            let pid_file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
            let mut lines = pid_file.lines();
            let ours = lines.next().is_some_and(|pid| pid.trim() == started.pid.as_raw_nonzero().to_string());
            if ours && lines.nth(6).is_some_and(|state| state.trim() == "ready") {
                *server = Some(started);
                return Ok(());
            }
            match started.exited.recv_timeout(Duration::from_millis(20)) {
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(_) => break "no answer in time".to_owned(),
                Ok(status) => break format!("{status}"),
            }
        };
        let log = self.log();
        Err(format!("{why}\n{}", log.get(usize::try_from(from).unwrap_or(0)..).unwrap_or(&log)))
    }

    fn end(&self, signal: Signal) {
        let Some(server) = self.server.lock().expect("no test panics while it holds this lock").take() else { return };
        server.end(signal);
    }
}

impl Server {
    fn end(&self, signal: Signal) {
        if self.exited.try_recv().is_err() {
            let _gone_already = kill_process(self.pid, signal);
            assert!(self.exited.recv_timeout(PATIENCE).is_ok(), "the server did not end by {signal:?} in time");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A poisoned lock only says that a test failed: the server must go all the same.
        let server = self.server.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(server) = server
            && server.exited.try_recv().is_err()
        {
            let _gone_already = kill_process(server.pid, Signal::QUIT);
            if server.exited.recv_timeout(Duration::from_secs(10)).is_err() {
                let _gone_already = kill_process(server.pid, Signal::KILL);
                let _ = server.exited.recv_timeout(Duration::from_secs(10));
            }
        }
    }
}

/// Spawns the server from a thread that lives as long as it does (see the head of this file).
fn keep(mut command: Command) -> Server {
    let (pid_sender, pid) = channel();
    let (exit_sender, exited) = channel();
    std::thread::spawn(move || {
        let mut child = command.spawn().expect("setpriv (util-linux) and postgres can be started");
        let _ = pid_sender.send(child.id());
        if let Ok(status) = child.wait() {
            let _ = exit_sender.send(status);
        }
    });
    let raw = pid.recv().expect("the server was spawned").cast_signed();
    Server { pid: Pid::from_raw(raw).expect("a process id"), exited }
}

/// A command that runs as the server's user, with a clean environment; `dies_with_us` binds it to its parent's life.
fn as_server_user(program: &OsStr, dies_with_us: bool) -> Command {
    let mut command = Command::new("/usr/bin/setpriv");
    clean(&mut command);
    if server_user().is_some() {
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
    }
    if dies_with_us {
        command.args(["--pdeathsig", "QUIT"]);
    }
    command.arg("--").arg(program).current_dir("/");
    command
}

fn clean(command: &mut Command) {
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8");
}

/// Ids of the user that a server must run as; `None` when we are not root and run it ourselves.
fn server_user() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").expect("/proc").uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("a user `postgres`, as we are root");
    let mut ids = line.split(':').skip(2).map(|field| field.parse().expect("a number"));
    Some((ids.next().expect("a user id"), ids.next().expect("a group id")))
}

/// A new directory of the servers' user that others can enter.
fn new_dir() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("pg-test-").tempdir_in(short_temp_dir()).expect("a temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("a directory that others can enter");
    if let Some((uid, gid)) = server_user() {
        chown(dir.path(), Some(uid), Some(gid)).expect("a directory of user postgres");
    }
    dir
}

/// The temporary directory, or `/tmp` when it is so long that a socket in it would be over the kernel's 107 bytes.
fn short_temp_dir() -> PathBuf {
    let dir = std::env::temp_dir();
    if dir.as_os_str().len() > 60 { PathBuf::from("/tmp") } else { dir }
}

/// Runs a command with `input` on its standard input and waits for it.
///
/// # Panics
/// When it cannot be started.
pub fn fed(command: &mut Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program can be started");
    let mut stdin = child.stdin.take().expect("a pipe");
    std::thread::scope(|scope| {
        // A program that ends early closes the pipe; its exit status tells why.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().expect("the program can be waited for")
    })
}

fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_starts_answers_survives_a_kill_and_goes() {
        let options = Options { password: Some("s3cret".to_owned()), ..Options::default() };
        let cluster = Cluster::start_with(options);
        assert_eq!(cluster.psql("postgres", "SELECT 1; CREATE TABLE t AS SELECT 7 AS n;"), "1");
        cluster.kill9();
        assert!(cluster.try_psql("postgres", "SELECT 1").is_err());
        cluster.start_again();
        cluster.restart(Stop::Fast);
        assert_eq!(cluster.psql("postgres", "SELECT n FROM t"), "7");
        let wrong = cluster.client("psql", "postgres").env("PGPASSWORD", "wrong").args(["-c", "SELECT 1"]).output();
        assert!(!wrong.expect("psql").status.success(), "a wrong password was accepted");
        let (dir, port) = (cluster.dir().to_owned(), cluster.port());
        drop(cluster);
        assert!(!dir.exists());
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    }

    #[test]
    fn a_killed_parent_takes_the_server_with_it() {
        // A shell stands for the test process: it starts the server as we do and is killed.
        let cluster = Cluster::start();
        cluster.stop(Stop::Fast);
        let mut server = as_server_user(cluster.bin.join("postgres").as_os_str(), true);
        server.arg("-D").arg(cluster.data()).args(["-p", &cluster.port().to_string()]);
        server.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
        let mut words = vec![server.get_program().to_owned()];
        words.extend(server.get_args().map(OsStr::to_owned));
        let mut shell = Command::new("/bin/sh");
        clean(&mut shell);
        let mut shell =
            shell.args(["-c", "\"$@\" & wait", "sh"]).args(words).stderr(Stdio::null()).spawn().expect("sh");
        let answers = || cluster.try_psql("postgres", "SELECT 1").is_ok();
        let wait_for = |wanted: bool| {
            let deadline = Instant::now() + PATIENCE;
            while answers() != wanted {
                assert!(Instant::now() < deadline, "the server should answer: {wanted}");
                std::thread::sleep(Duration::from_millis(50));
            }
        };
        wait_for(true);
        shell.kill().expect("the shell was alive");
        shell.wait().expect("the shell is ours");
        wait_for(false);
    }
}
