//! The fixture database of `fixtures/postgres`, our capture of it, our restore of that.

use std::fs;
use std::path::{Path, PathBuf};

use backup_core::source::postgres::restore::{
    Expectations, RestoreError, RestoreOptions, RestoreProof, Selection, Target, Verify, execute, plan,
};
use backup_core::source::postgres::{
    ClientsOption, ConnectOptions, CountCheck, Globals, PostgresError, PostgresOptions, capture,
};
use harness::pg::{Cluster, Installation, Options, SUPERUSER, fed};

use super::super::pg_restore::fixture::{Fixture, Keep};
use super::{Recorder, clock};

/// The database that the fixture makes.
pub(super) const DATABASE: &str = "complete";

/// Databases of majors, each with the extension of the fixture.
pub(super) struct Server {
    pub(super) cluster: Cluster,
    _installation: Installation,
}

impl Server {
    pub(super) fn start(major: u32) -> Self {
        Self::start_with(major, &[])
    }

    pub(super) fn start_with(major: u32, settings: &[(&str, &str)]) -> Self {
        let installation = Installation::with_extension(major, &folder().join("extension"));
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let options = Options { version: Some(major), bin: Some(installation.bin()), settings, ..Options::default() };
        Self { cluster: Cluster::start_with(options), _installation: installation }
    }

    /// With the fixture loaded.
    pub(super) fn complete(major: u32) -> Self {
        let server = Self::start(major);
        for file in files(major) {
            let database = if file.ends_with("00-server.sql") { "postgres" } else { DATABASE };
            let mut command = server.cluster.client("psql", database);
            command.args(["-X", "-q", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-f"]).arg(&file);
            let output = command.env("PGOPTIONS", "-c client_min_messages=error").output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        server
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/postgres")
}

/// The fixture's files for a major, in the order of their names.
fn files(major: u32) -> Vec<PathBuf> {
    let sql = |dir: PathBuf| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "sql")).collect::<Vec<_>>()
    };
    let since = (14..=major).flat_map(|major| sql(folder().join(format!("since-{major}"))));
    let mut found: Vec<PathBuf> = sql(folder()).into_iter().chain(since).collect();
    found.sort_by_key(|path| path.file_name().map(ToOwned::to_owned));
    assert!(found.len() > 8, "the fixture is not where it should be");
    found
}

pub(super) fn options(cluster: &Cluster, database: &str) -> PostgresOptions {
    PostgresOptions {
        clients: ClientsOption::Dir(cluster.clients().to_owned()),
        globals: Globals::Passwords,
        count_check: CountCheck::All,
        ..PostgresOptions::new("db", ConnectOptions::new(&cluster.url_as(SUPERUSER, database), None).unwrap())
    }
}

/// Captures a database; gives also why the snapshot is suspect.
pub(super) async fn captured(options: &PostgresOptions) -> Result<(Fixture, Vec<String>), PostgresError> {
    let recorder = Recorder::default();
    let captured = capture(options, &Keep, &clock(), &recorder).await?;
    let suspect = captured.suspect.clone();
    Ok((Fixture::from(captured), suspect))
}

pub(super) fn into(cluster: &Cluster, target: Target) -> RestoreOptions {
    RestoreOptions {
        source: "db".to_owned(),
        connect: ConnectOptions::new(&cluster.url("postgres"), None).unwrap(),
        maintenance: "postgres".to_owned(),
        clients: ClientsOption::Dir(cluster.clients().to_owned()),
        target,
        only: Selection::All,
        jobs: 2,
        verify: Verify::Content,
        id: "t3st".to_owned(),
        at: clock().now(),
        early_bytes: 0,
        expect: Expectations::none(),
        keep_failed: false,
    }
}

pub(super) async fn restored(fixture: &Fixture, options: &RestoreOptions) -> Result<RestoreProof, RestoreError> {
    let snapshot = fixture.snapshot();
    let plan = plan(options, &snapshot, fixture).await?;
    execute(&plan, options, &snapshot, fixture, &Recorder::default()).await
}

/// The same by stock programs alone: `pg_dumpall`, `pg_dump`, `psql`, `pg_restore`. Gives what they complained about.
pub(super) fn restored_by_stock(from: &Cluster, to: &Cluster, database: &str) -> Vec<String> {
    // The newer programs, as PostgreSQL's manual says of an upgrade.
    let client = |program: &str, server: &Cluster, database: &str| {
        let mut command = server.client(program, database);
        let own = command.get_program().to_owned();
        let newer = to.clients().join(Path::new(&own).file_name().unwrap());
        let mut newer = std::process::Command::new(newer);
        newer.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command = newer;
        command
    };
    let globals = client("pg_dumpall", from, database).args(["--globals-only"]).output().unwrap();
    assert!(globals.status.success(), "{}", String::from_utf8_lossy(&globals.stderr));
    let mut told = Vec::new();
    let mut note = |output: std::process::Output| {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        told.extend(text.lines().filter(|line| line.contains("error:") || line.contains("ERROR:")).map(str::to_owned));
    };
    note(fed(client("psql", to, "postgres").args(["-X", "-q", "-o", "/dev/null", "-f", "-"]), &globals.stdout));
    let archive = client("pg_dump", from, database).args(["-Fc", "-Z0"]).output().unwrap();
    assert!(archive.status.success(), "{}", String::from_utf8_lossy(&archive.stderr));
    note(fed(client("pg_restore", to, "postgres").args(["--create", "--dbname", "postgres"]), &archive.stdout));
    told
}
