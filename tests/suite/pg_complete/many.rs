//! Thousands of tables, also while another client creates and drops tables all the time.
//!
//! A short form runs always. `BACKUP_MANY_TABLES=9000` makes the other one larger; the form with 20,000 tables on a larger
//! lock table is ignored, because it takes minutes. Each prints where its time went.

#![expect(clippy::print_stdout, reason = "a campaign shows its figures")]

use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use backup_core::monitor::{Event, Monitor};
use backup_core::source::postgres::restore::{Target, Verify, execute, plan};
use backup_core::source::postgres::{PostgresOptions, capture};
use harness::pg::{Cluster, Options};

use super::super::pg_restore::fixture::Keep;
use super::judge::Picture;
use super::scene::{into, options};
use super::{Fixture, chain, clock};

/// Says when each phase began.
struct Watch {
    began: Instant,
    told: Mutex<Vec<(Duration, String)>>,
}

impl Watch {
    fn new() -> Self {
        Self { began: Instant::now(), told: Mutex::default() }
    }

    /// Each phase with the seconds that it took.
    fn seconds(&self, what: &str) -> String {
        let mut told = self.told.lock().unwrap().clone();
        told.push((self.began.elapsed(), String::new()));
        let phase = |pair: &[(Duration, String)]| {
            format!("{} {:.1}", pair[0].1, pair[1].0.saturating_sub(pair[0].0).as_secs_f64())
        };
        let phases: Vec<String> = told.windows(2).map(phase).collect();
        format!("{what} {:.1} s ({})", self.began.elapsed().as_secs_f64(), phases.join(", "))
    }
}

impl Monitor for Watch {
    fn event(&self, event: Event) {
        let text = match event {
            Event::Phase { phase, .. } => phase,
            Event::Retry { why, .. } => format!("again: {}", why.chars().take(90).collect::<String>()),
            _ => return,
        };
        self.told.lock().unwrap().push((self.began.elapsed(), text));
    }
}

/// A client that creates and drops tables until it is dropped. Each table has its row when others see it.
struct Churn(Child);

impl Churn {
    fn start(cluster: &Cluster, pause: f64) -> Self {
        let sql = format!(
            "DO $$ DECLARE n int := 0; BEGIN LOOP n := n + 1;
                EXECUTE pg_catalog.format('CREATE TABLE churn_%s AS SELECT 7 AS x', n); COMMIT;
                IF n > 5 THEN EXECUTE pg_catalog.format('DROP TABLE churn_%s', n - 5); COMMIT; END IF;
                PERFORM pg_catalog.pg_sleep({pause});
            END LOOP; END $$"
        );
        let mut psql = cluster.client("psql", "many");
        psql.args(["-X", "-q", "-c", &sql]).stdout(Stdio::null()).stderr(Stdio::null());
        Self(psql.spawn().unwrap())
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

/// More tables than the lock table has room for twice: only `pg_dump` locks them all.
#[tokio::test(flavor = "multi_thread")]
async fn tables_come_back_that_cannot_be_locked_twice() {
    let count = number("BACKUP_MANY_TABLES", 700);
    let small: &[(&str, &str)] = if count > 5000 { &[] } else { &[("max_connections", "20")] };
    many_tables(count, small, true).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn twenty_thousand_tables_come_back() {
    many_tables(20_000, &[("max_locks_per_transaction", "512")], false).await;
}

async fn many_tables(count: usize, settings: &[(&str, &str)], churned: bool) {
    let settings: Vec<(String, String)> =
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    // What looks at the restored database at the end is `pg_dump`, which locks all tables, too.
    let locks: Vec<_> = settings.iter().filter(|(name, _)| name == "max_locks_per_transaction").cloned().collect();
    let source = Cluster::start_with(Options { settings, ..Options::default() });
    // In one transaction they would need more locks than there are.
    let sql = format!(
        "DO $$ BEGIN FOR i IN 1..{count} LOOP EXECUTE pg_catalog.format('CREATE TABLE t%s AS SELECT %1$s AS n, ''x''::text AS t', i);
            IF i % 200 = 0 THEN COMMIT; END IF; END LOOP; END $$"
    );
    source.psql("postgres", "CREATE DATABASE many");
    let watch = Watch::new();
    source.psql("many", &sql);
    println!("{}", watch.seconds("fixture"));
    let before = Picture::of(&source, "many").rows;
    let churn = churned.then(|| Churn::start(&source, 0.5));
    let watch = Watch::new();
    let wanted = PostgresOptions { attempts: 30, ..options(&source, "many") };
    let captured = capture(&wanted, &Keep, &clock(), &watch).await;
    let captured = captured.unwrap_or_else(|e| panic!("{}\n{}", chain(&e), watch.seconds("capture")));
    println!("{}", watch.seconds("capture"));
    drop(churn);
    assert_eq!(captured.suspect, Vec::<String>::new());
    let fixture = Fixture::from(captured);
    let (fleeting, lasting): (Vec<_>, Vec<_>) =
        fixture.tables.iter().partition(|table| table.name.starts_with("churn_"));
    assert_eq!(lasting.len(), count);
    assert!(if churned { (1..=6).contains(&fleeting.len()) } else { fleeting.is_empty() }, "{}", fleeting.len());
    assert!(fixture.tables.iter().all(|table| table.rows == 1));
    drop(source);
    let target = Cluster::start_with(Options { settings: locks, ..Options::default() });
    let mut options = into(&target, Target::Original);
    options.verify = Verify::Counts;
    let (watch, snapshot) = (Watch::new(), fixture.snapshot());
    let planned = plan(&options, &snapshot, &fixture).await.unwrap_or_else(|e| panic!("{}", chain(&e)));
    println!("{}", watch.seconds("plan"));
    let done = execute(&planned, &options, &snapshot, &fixture, &watch).await;
    done.unwrap_or_else(|e| panic!("{}", chain(&e)));
    println!("{}", watch.seconds("restore"));
    target.psql("many", "DO $$ DECLARE t text; BEGIN FOR t IN SELECT relname FROM pg_class WHERE relname ~ '^churn_' LOOP EXECUTE 'DROP TABLE ' || t; END LOOP; END $$");
    assert!(before == Picture::of(&target, "many").rows);
    println!("{}", watch.seconds("and compared"));
}
