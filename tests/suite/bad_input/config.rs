//! Configurations that must not be used.

use super::{RUN, Row, Stack, check, configured};

/// A password in an address; the name says what it is for whoever finds it in a log.
const LITERAL: &str = "literal-s3cret-in-url";

#[test]
fn a_wrong_configuration_is_refused_before_anything_is_done() {
    let stack = Stack::ready();
    check(&stack, ROWS);
    for row in ROWS.iter().filter(|row| row.name == "a literal password") {
        let mend = (row.breaks)(&stack);
        for call in [RUN, &["config", "check"], &["config", "show"], &["status"], &["list", "--json"], &["doctor"]] {
            let out = stack.backup(call);
            assert!(out.code == 2 && !out.all().contains(LITERAL), "{call:?}: {}", out.all());
        }
        mend(&stack);
    }
}

const ROWS: &[Row] = &[
    Row {
        name: "a misspelt key",
        breaks: |stack| configured(stack, "globals =", "global ="),
        call: RUN,
        exit: 2,
        says: &["etc/backup.toml` line ", "unknown key `source.db.global`"],
        hint: "`globals`",
        stores: &[],
    },
    Row {
        name: "no recipients",
        breaks: |stack| {
            let [ops, escrow] = &stack.recipients;
            configured(stack, &format!("[\"{ops}\", \"{escrow}\"]"), "[]")
        },
        call: RUN,
        exit: 2,
        says: &["`keys.recipients`: no recipients", "nobody could read"],
        hint: "`backup key new operator.txt`",
        stores: &[],
    },
    Row {
        name: "a literal password",
        breaks: |stack| configured(stack, "postgres://backup@", &format!("postgres://backup:{LITERAL}@")),
        call: RUN,
        exit: 2,
        says: &["password", "url"],
        hint: "password = { file",
        stores: &[],
    },
    Row {
        name: "no such job",
        breaks: |_| Box::new(|_| ()),
        call: &["run", "nigthly"],
        exit: 2,
        says: &["no job `nigthly`"],
        hint: "`nightly`",
        stores: &[],
    },
];
