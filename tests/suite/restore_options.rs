//! `backup restore` with its rarer options, from outside: checks of the restored database.

use std::fs;

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
