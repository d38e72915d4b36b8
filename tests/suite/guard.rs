//! The anomaly guard from outside, with a real server: a table that lost most of its rows, or is gone, makes a run end with 3,
//! and nothing older expires until somebody accepts it.

use serde_json::Value;

use super::host::of_source;
use super::stack::{DATABASE, Out, Stack};

/// A stack with one directory vault and a good night behind it.
fn stack() -> Stack {
    let stack = Stack::new();
    stack.drop_offsite();
    stack.init();
    stack.run().expect(0);
    stack
}

fn of_db<'a>(value: &'a Value, member: &str) -> &'a Value {
    &of_source(value, "db")[member]
}

/// The last snapshot of the database.
fn newest(stack: &Stack) -> String {
    stack.ids("db").pop().unwrap()
}

fn short(id: &str) -> &str {
    id.split('-').nth(2).unwrap()
}

fn frozen_status(stack: &Stack) -> (Out, Value) {
    (stack.backup(&["status"]), stack.backup(&["status", "--json"]).json())
}

#[test]
fn a_table_that_lost_most_of_its_rows_is_told_until_it_is_accepted() {
    let stack = stack();
    stack.pg.psql(DATABASE, "DELETE FROM orders WHERE id <= 980");
    stack.run().expect(0);
    let good = newest(&stack);
    let (status, value) = frozen_status(&stack);
    assert_eq!((status.code, of_db(&value, "frozen"), &value["filling"]), (0, &Value::Null, &Value::Array(Vec::new())));

    stack.pg.psql(DATABASE, "DELETE FROM orders WHERE id <= 1500");
    let told = stack.run().expect(3);
    let line = format!(
        "suspect: db: table `public.orders` lost over half its rows: 1020 in snapshot {}, 500 now",
        short(&good)
    );
    assert!(told.all().contains(&line), "{}", told.all());
    let first = newest(&stack);
    assert!(first.ends_with("-suspect"), "{first}");
    assert!(told.all().contains(&format!("said `backup accept {}`", short(&first))), "{}", told.all());

    // Still so the next night, against the same good one, and for programs.
    let report = stack.backup(&["run", "nightly", "--json"]).expect(3).json();
    assert_eq!((of_db(&report, "outcome"), &report["outcome"]), (&"suspect".into(), &"suspect".into()), "{report:#}");
    let reason = of_db(&report, "suspect")[0].as_str().unwrap().to_owned();
    assert!(line.ends_with(&reason) && of_source(&report, "docs")["outcome"] == "stored", "{report:#}");
    let second = newest(&stack);

    assert!(stack.backup(&["list"]).expect(0).stdout.matches("; suspect").count() == 2);
    let shown = stack.backup(&["show", short(&first), "--identity", &stack.text("operator/ops.txt")]).expect(0);
    assert!(shown.stdout.contains(&reason), "{}", shown.stdout);
    let (status, value) = frozen_status(&stack);
    assert_eq!((status.code, &value["class"]), (3, &"partial".into()), "{}", status.all());
    assert!(status.stdout.contains("2 suspect snapshots not accepted, nothing older expires"), "{}", status.stdout);
    assert!(
        status.stdout.contains(&format!("{} of ", short(&first))) && status.stdout.contains(&reason),
        "{}",
        status.stdout
    );
    assert!(status.stdout.contains("vault local: while expiry is frozen it grows by about "), "{}", status.stdout);
    assert!(status.stderr.contains("expiry of `db` is frozen since"), "{}", status.stderr);
    assert!(
        status.stderr.contains(&format!("`backup accept ID`: {}, {}", short(&first), short(&second))),
        "{}",
        status.stderr
    );
    let frozen = of_db(&value, "frozen");
    assert_eq!(frozen["suspects"][0]["id"], first.as_str(), "{frozen:#}");
    assert_eq!(
        (&frozen["suspects"][1]["reasons"][0], of_source(&value, "docs")["frozen"].is_null()),
        (&reason.clone().into(), true)
    );
    let filling = &value["filling"][0];
    assert!(filling["bytes_per_day"].as_u64().unwrap() > 10_000 && filling["room_bytes"].is_u64(), "{value:#}");
    let prune = stack.backup(&["prune"]).expect(0).stdout;
    assert_eq!(prune.matches(&format!("`{second}`")).count(), 4, "{prune}");

    let dry = stack.backup(&["accept", short(&first), "--dry-run"]).expect(0).stdout;
    assert!(dry.contains("would be accepted") && dry.contains("still frozen by 1 suspect snapshot"), "{dry}");
    let accepted = stack.backup(&["accept", short(&first)]).expect(0).stdout;
    assert!(accepted.contains("still frozen by 1 suspect snapshot") && accepted.contains(short(&second)), "{accepted}");
    // The first is the baseline now; the second still freezes.
    stack.run().expect(0);
    assert_eq!(frozen_status(&stack).0.code, 3);
    let accepted = stack.backup(&["accept", short(&second), "--json"]).expect(0).json();
    assert_eq!(accepted["still"]["suspects"], Value::Array(Vec::new()), "{accepted:#}");
    let again = stack.backup(&["accept", short(&second)]).expect(0).stdout;
    assert!(again.contains("nothing else freezes the expiry of this source"), "{again}");
    let (status, value) = frozen_status(&stack);
    assert_eq!((status.code, of_db(&value, "frozen")), (0, &Value::Null), "{}", status.all());
    assert!(!stack.backup(&["prune"]).expect(0).stdout.contains("anomaly"));
}

#[test]
fn a_table_that_is_gone_is_named_unless_the_configuration_says_so() {
    let stack = stack();
    stack.pg.psql(DATABASE, "CREATE TABLE logs_1 AS SELECT 1 AS a; CREATE TABLE \"Odd.one\" AS SELECT 2 AS a");
    stack.run().expect(0);
    stack.configure(
        "globals = \"passwords\"",
        "globals = \"passwords\"\nexpect_drops = [\"public.logs_*\"]\nexclude_data = [\"public.events\"]",
    );
    stack.pg.psql(DATABASE, "DROP TABLE logs_1");
    // The largest table is left out from now on: neither it nor its bytes are missed.
    stack.run().expect(0);
    stack.pg.psql(DATABASE, "ALTER TABLE \"Odd.one\" RENAME TO other; DROP TABLE users CASCADE");
    let told = stack.run().expect(3).all();
    for line in ["`public.\"Odd.one\"` is gone: 1 rows in snapshot", "`public.users` is gone: 500 rows in snapshot"] {
        assert!(told.contains(line), "{line} in\n{told}");
    }
    assert!(!told.contains("logs_1") && !told.contains("`public.events`"), "{told}");
}

#[test]
fn files_are_compared_by_their_bytes() {
    let stack = stack();
    std::fs::remove_file(stack.path("data/sub/model.bin")).unwrap();
    let told = stack.run().expect(3).all();
    assert!(told.contains("suspect: docs: plaintext fell by over 30 %: "), "{told}");
    stack.backup(&[
        "restore",
        "--latest",
        "--source",
        "docs",
        "--identity",
        &stack.text("operator/ops.txt"),
        "--into-dir",
        &stack.text("back"),
    ]);
    assert!(stack.path("back").exists(), "a suspect snapshot is a snapshot");
}
