//! `backup restore` with its rarer options, from outside: checks of the restored database, rows only, and an environment
//! that is meant for other programs.

use std::fs;

use std::process::Command;

use super::host::of_source;
use super::stack::{DATABASE, Out, Stack};

/// `backup restore` of the database with the operator's identity.
fn restore(stack: &Stack, args: &[&str]) -> Out {
    let ops = stack.text("operator/ops.txt");
    stack.backup(&[&["restore", "--latest", "--source", "db", "--identity", &ops], args].concat())
}

fn databases(stack: &Stack) -> String {
    stack.pg.psql("postgres", "SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1")
}

#[test]
fn a_restored_database_must_be_as_expected() {
    let stack = Stack::new();
    stack.drop_offsite();
    let expect = |sql: &str| format!("globals = \"passwords\"\nexpect = [{{ name = \"users\", sql = \"{sql}\" }}]");
    let users = "SELECT count(*) = 500 AND max(joined) < $1 FROM users";
    stack.configure("globals = \"passwords\"", &expect(users));
    stack.init();
    stack.run().expect(0);

    let planned = restore(&stack, &["--into", "good", "--dry-run"]).expect(0);
    assert!(planned.stdout.contains("checks to be true before it gets its name: users"), "{}", planned.stdout);
    let good = restore(&stack, &["--into", "good", "--json"]).expect(0).json();
    let said = serde_json::json!([{ "name": "users", "answer": "true", "ok": true }]);
    assert_eq!(of_source(&good, "db")["expect"], said, "{good:#}");
    assert!(restore(&stack, &["--into", "again"]).expect(0).stdout.contains("check users: true\n"));
    let part = restore(&stack, &["--into", "part", "--table", "users"]).expect(0);
    assert!(part.stdout.contains("check users: not asked, because only a part came back\n"), "{}", part.stdout);

    // What the configuration says now, not what it said then.
    let there = databases(&stack);
    stack.configure(users, "SELECT count(*) > 500 FROM users");
    let failed = restore(&stack, &["--into", "bad"]).expect(4);
    assert!(failed.stderr.contains("check `users` gives false"), "{}", failed.stderr);
    assert!(failed.stderr.contains("\nhint: ") && failed.stderr.contains("`expect`"), "{}", failed.stderr);
    let failed = restore(&stack, &["--into", "bad", "--json"]).expect(4).json();
    assert_eq!(of_source(&failed, "db")["restored"], false, "{failed:#}");
    assert_eq!(databases(&stack), there);

    // Without a configuration, those that the snapshot has: here they are true of the snapshot, and asked.
    let signer = stack.backup(&["key", "list", "--json"]).expect(0).json()["host_key"]["fingerprint"].clone();
    let (vault, url) = (stack.text("local"), stack.pg.url("bare"));
    fs::rename(stack.path("etc/backup.toml"), stack.path("etc/away")).unwrap();
    let bare = |args: &[&str]| {
        let ops = stack.text("operator/ops.txt");
        let given = ["restore", "--latest", "--source", "db", "--json", "--vault", &vault, "--stack", "s"];
        let signer = ["--signer", signer.as_str().unwrap(), "--identity", &ops, "--into", &url];
        let mut command = stack.command(&[&given[..], &signer, args].concat());
        command.env_remove("BACKUP_CONFIG").env("PGPASSWORD", super::stack::SUPERUSER_PASSWORD);
        super::host::Ended::of(command.output().unwrap())
    };
    let ended = bare(&[]);
    assert_eq!(ended.code, 0, "{}\n{}", ended.out, ended.err);
    let document: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(of_source(&document, "db")["expect"], said, "{document:#}");
    assert_eq!(
        stack.pg.psql("bare", "SELECT count(*) FROM users"),
        stack.pg.psql(DATABASE, "SELECT count(*) FROM users")
    );
}

#[test]
fn a_check_that_asks_the_clock_is_warned_of() {
    let stack = Stack::new();
    stack.configure(
        "globals = \"passwords\"",
        "globals = \"passwords\"\nexpect = [{ name = \"fresh\", sql = \"SELECT max(joined) > now() FROM users\" }]",
    );
    let checked = stack.backup(&["config", "check"]).expect(0);
    let warning = "`source.db.expect[0].sql`: the check `fresh` asks the clock (`now`): older snapshots fail it";
    assert!(checked.stderr.contains(warning), "{}", checked.stderr);
    assert!(checked.stderr.contains("`$1`"), "{}", checked.stderr);
}

#[test]
fn a_table_comes_beside_the_live_one() {
    let stack = Stack::new();
    stack.drop_offsite();
    stack.init();
    stack.run().expect(0);
    let users = |schema: &str| stack.pg.psql(DATABASE, &format!("SELECT count(*) FROM {schema}.users"));
    let captured = users("public");

    let into = ["--table", "users", "--into-schema", "before"];
    let planned = restore(&stack, &[&into[..], &["--dry-run"]].concat()).expect(0);
    assert!(planned.stdout.contains(&format!("  new schema before in database {DATABASE} on ")), "{}", planned.stdout);
    let exists = "SELECT count(*) FROM pg_namespace WHERE nspname = 'before'";
    assert_eq!(stack.pg.psql(DATABASE, exists), "0");

    let proved = restore(&stack, &[&into[..], &["--json"]].concat()).expect(0).json();
    let source = of_source(&proved, "db");
    assert_eq!(source["into_schema"], "before", "{proved:#}");
    assert_eq!((&source["tables"][0]["schema"], &source["tables"][0]["equal"]), (&"before".into(), &true.into()));
    assert_eq!(users("before"), captured);

    let again = restore(&stack, &into).expect(2);
    assert!(again.stderr.contains("schema `before` exists") && again.stderr.contains("\nhint: "), "{}", again.stderr);
    let told = restore(&stack, &["--table", "users", "--into-schema", "more"]).expect(0).stdout;
    assert!(
        told.starts_with("schema more in database ") && told.contains("to bring its rows back: INSERT INTO"),
        "{told}"
    );
    restore(&stack, &["--into-schema", "all"]).expect(2);
}

const TABLES: [&str; 3] = ["events", "orders", "users"];

/// All rows of the sample, told short.
fn rows(stack: &Stack, database: &str) -> String {
    let one = |table| format!("SELECT '{table}', count(*), md5(string_agg(t::text, ',' ORDER BY id)) FROM {table} t; ");
    stack.pg.psql(database, &TABLES.map(one).concat())
}

#[test]
fn rows_only_go_into_empty_tables_or_empty_them_when_told_to() {
    let stack = Stack::new();
    stack.drop_offsite();
    stack.init();
    stack.run().expect(0);
    let captured = rows(&stack, DATABASE);
    stack
        .pg
        .psql(DATABASE, "DELETE FROM orders; UPDATE users SET name = 'other ' || id; DELETE FROM events WHERE id > 9");
    let there = rows(&stack, DATABASE);
    assert_ne!(there, captured);

    // The plan, and what is in its way, at once; nothing is touched.
    for args in [&["--data-only", "--dry-run"][..], &["--data-only"]] {
        let refused = restore(&stack, args).expect(2);
        let plan = "rows only, into database app on ";
        assert!(refused.all().contains(plan) && refused.all().contains("3 tables, 42500 rows"), "{}", refused.all());
        assert!(refused.stderr.contains("`public.events`, `public.users` are not empty"), "{}", refused.stderr);
        assert!(refused.stderr.contains("\nhint: let their rows go with `--truncate`"), "{}", refused.stderr);
    }
    let refused = restore(&stack, &["--data-only", "--dry-run", "--json"]).expect(2).json();
    assert_eq!(refused["plan"][0]["refusals"].as_array().map(Vec::len), Some(1), "{refused:#}");
    assert_eq!(refused["refused"]["exit"], 2, "{refused:#}");
    let planned = restore(&stack, &["--data-only", "--truncate", "--dry-run"]).expect(0);
    let gone = "rows that are there now and go: public.events, public.users\n";
    assert!(planned.stdout.contains(gone), "{}", planned.stdout);
    let missing = restore(&stack, &["--data-only", "--into", "nowhere"]).expect(2);
    assert!(missing.stderr.contains("database `nowhere` does not exist"), "{}", missing.stderr);
    assert_eq!(rows(&stack, DATABASE), there);

    // Asked for the database's name: nobody there, a wrong answer, the right one.
    let asked = detached(&stack).expect(2);
    assert!(asked.stderr.contains("`--truncate` asks for the target's name"), "{}", asked.stderr);
    assert!(asked.stderr.contains("\nhint: add `--yes` to empty them without being asked"), "{}", asked.stderr);
    let (code, said) = answered(&stack, "ap");
    assert!(code == 2 && said.contains("`app` was not confirmed; nothing was changed"), "{code} {said}");
    assert_eq!(rows(&stack, DATABASE), there);
    let (code, said) = answered(&stack, "app");
    assert!(code == 0 && said.contains("type `app` to empty its tables: "), "{code} {said}");
    assert!(said.contains("3 tables, 42500 rows: read back and equal to what was captured"), "{said}");
    assert_eq!(rows(&stack, DATABASE), captured);

    // Into another database that is there, empty.
    stack.pg.psql("postgres", "CREATE DATABASE other OWNER backup");
    restore(&stack, &["--into", "parts"]).expect(0);
    stack.pg.psql("parts", "TRUNCATE users, orders, events");
    let proof = restore(&stack, &["--data-only", "--into", "parts", "--json"]).expect(0).json();
    assert_eq!(proof["complete"], true, "{proof:#}");
    let proof = of_source(&proof, "db");
    assert_eq!((&proof["data_only"], &proof["database"]), (&true.into(), &"parts".into()), "{proof:#}");
    let tables = proof["tables"].as_array().unwrap();
    assert!(
        tables.len() == 3 && tables.iter().all(|one| one["equal"] == true && one["read_back"] == true),
        "{proof:#}"
    );
    assert_eq!(rows(&stack, "parts"), captured);
    let lacking = restore(&stack, &["--data-only", "--into", "other"]).expect(2);
    assert!(lacking.stderr.contains("`public.users` is missing there"), "{}", lacking.stderr);

    // A failure, also behind the TRUNCATE, leaves everything as it was, and says so.
    stack.pg.psql("parts", "DELETE FROM orders WHERE id > 3; DELETE FROM users WHERE id > 10");
    let there = rows(&stack, "parts");
    let load = ["--data-only", "--truncate", "--yes", "--into", "parts", "--table", "orders"];
    let failed = restore(&stack, &load).expect(1);
    assert!(failed.stderr.contains("rows refer to rows that are not there"), "{}", failed.stderr);
    assert!(failed.stderr.contains("\nhint: database `parts` is as it was; "), "{}", failed.stderr);
    let failed = restore(&stack, &[&load[..], &["--json"]].concat()).expect(1).json();
    assert!(failed["complete"] == false && of_source(&failed, "db")["restored"] == false, "{failed:#}");
    assert_eq!(rows(&stack, "parts"), there);
}

/// The call that asks, without a terminal.
fn detached(stack: &Stack) -> Out {
    let ops = stack.text("operator/ops.txt");
    let command = stack.command(&["restore", "--source", "db", "--identity", &ops, "--data-only", "--truncate"]);
    let mut alone = Command::new("setsid");
    alone
        .arg("--wait")
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .stdin(std::process::Stdio::null());
    alone.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ended = super::host::Ended::of(alone.output().unwrap());
    Out { code: ended.code, stdout: ended.out, stderr: ended.err }
}

/// The same at a terminal of its own, where somebody types `answer`.
fn answered(stack: &Stack, answer: &str) -> (i32, String) {
    let ops = stack.text("operator/ops.txt");
    let command = stack.command(&["restore", "--source", "db", "--identity", &ops, "--data-only", "--truncate"]);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line: Vec<String> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let mut terminal = Command::new("script");
    terminal
        .args(["--quiet", "--return", "--command", &line.join(" "), "/dev/null"])
        .env_clear()
        .env("SHELL", "/bin/sh");
    terminal.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = harness::pg::fed(&mut terminal, format!("{answer}\n").as_bytes());
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap().replace('\r', ""))
}

/// What a shell has set for `psql` is not for us: it would end each session, or have it trust others.
#[test]
fn what_the_environment_says_to_libpq_changes_nothing() {
    let stack = Stack::new();
    stack.drop_offsite();
    stack.init();
    let strange = |args: &[&str]| {
        let mut command = stack.command(args);
        command.env("PGOPTIONS", "-c no_such_setting=1").env("PGAPPNAME", "psql").env("PGHOSTADDR", "192.0.2.1");
        command.env("PGSSLROOTCERT", "/nonexistent").env("PGSSLCERT", "/nonexistent").env("PGSSLKEY", "/nonexistent");
        command.env("PGSSLMODE", "verify-full").env("PGUSER", "nobody").env("PGDATABASE", "nowhere").env("PGPORT", "1");
        let ended = super::host::Ended::of(command.output().unwrap());
        Out { code: ended.code, stdout: ended.out, stderr: ended.err }
    };
    let ops = stack.text("operator/ops.txt");
    strange(&["run", "nightly"]).expect(0);
    strange(&["restore", "--source", "db", "--identity", &ops, "--into", "back"]).expect(0);
    assert_eq!(rows(&stack, "back"), rows(&stack, DATABASE));
    // Arguments and exit codes pass as they are, and what is set again behind our back is told, not tried for ever.
    assert!(strange(&["no such verb"]).expect(2).stderr.contains("unrecognized subcommand `no such verb`"));
    let program = env!("CARGO_BIN_EXE_backup");
    let script = format!("BACKUP_STARTED_ANEW=$$ PGOPTIONS=x exec '{program}' list --json");
    let output = Command::new("sh").args(["-c", &script]).env_clear().output().unwrap();
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2), "{document:#}");
    let said = document.to_string();
    assert!(
        said.contains("cannot start anew without PGOPTIONS in the environment: something sets them again"),
        "{said}"
    );
}
