//! Places that a restore must not touch.

use std::fs;

use super::{Row, Stack, check, files_below};

#[test]
fn what_is_there_is_never_overwritten_unasked() {
    let stack = Stack::ready();
    stack.run().expect(0);
    fs::create_dir_all(stack.path("full/docs")).unwrap();
    fs::write(stack.path("full/docs/mine.txt"), "mine").unwrap();
    let (files, rows) = (files_below(&stack.path("data")), stack.pg.psql("app", "SELECT count(*) FROM events"));
    check(&stack, ROWS);
    assert_eq!(files_below(&stack.path("data")), files);
    assert_eq!(stack.pg.psql("app", "SELECT count(*) FROM events"), rows);
    assert_eq!(files_below(&stack.path("full")), [stack.path("full/docs/mine.txt")]);
    // A dry run makes nothing, not even a folder.
    let (dry, ops) = (stack.text("dry"), stack.text("operator/ops.txt"));
    stack.backup(&["restore", "--dry-run", "--into-dir", &dry, "--identity", &ops]).expect(0);
    assert!(!stack.path("dry").exists());
    stack.backup(&["restore", "--into-dir", &dry, "--identity", &ops]).expect(0);
    assert!(stack.path("dry/docs").is_dir() && stack.path("dry/db/archive.dump").is_file());
}

const NOTHING: fn(&Stack) -> super::Mend = |_| Box::new(|_| ());

const ROWS: &[Row] = &[
    Row {
        name: "the original database is there",
        breaks: NOTHING,
        call: &["restore", "--source", "db", "--identity", "{operator/ops.txt}"],
        exit: 2,
        says: &["`app`", "exists"],
        hint: "`--into NAME`",
        stores: &[],
    },
    Row {
        name: "--into names a database that is there",
        breaks: NOTHING,
        call: &["restore", "--source", "db", "--into", "app", "--identity", "{operator/ops.txt}"],
        exit: 2,
        says: &["`app`", "exists"],
        hint: "name a database that does not exist yet: `--into NAME`",
        stores: &[],
    },
    Row {
        name: "--replace and nobody to ask",
        breaks: NOTHING,
        call: &["restore", "--source", "db", "--replace", "--identity", "{operator/ops.txt}"],
        exit: 2,
        says: &["asks for the target's name", "no terminal"],
        hint: "`--yes`",
        stores: &[],
    },
    Row {
        name: "the original folder is there",
        breaks: NOTHING,
        call: &["restore", "--source", "docs", "--identity", "{operator/ops.txt}"],
        exit: 2,
        says: &["data` exists and is not empty"],
        hint: "`--into-dir DIR`",
        stores: &[],
    },
    Row {
        name: "--into-dir names a folder that is not empty",
        breaks: NOTHING,
        call: &["restore", "--source", "docs", "--into-dir", "{full}", "--identity", "{operator/ops.txt}"],
        exit: 2,
        says: &["full/docs` exists and is not empty"],
        hint: "--into-dir DIR",
        stores: &[],
    },
    Row {
        name: "plain files of a database into a folder that is not empty",
        breaks: |stack| {
            fs::create_dir_all(stack.path("full2/db")).unwrap();
            fs::write(stack.path("full2/db/mine.txt"), "mine").unwrap();
            Box::new(|stack| assert_eq!(files_below(&stack.path("full2")), [stack.path("full2/db/mine.txt")]))
        },
        call: &["restore", "--source", "db", "--into-dir", "{full2}", "--identity", "{operator/ops.txt}"],
        exit: 2,
        says: &["full2/db"],
        hint: "--into-dir DIR",
        stores: &[],
    },
    Row {
        name: "no such snapshot",
        breaks: NOTHING,
        call: &["restore", "20200101T000000Z-1r-zzzzzz", "--into-dir", "{back}", "--identity", "{operator/ops.txt}"],
        exit: 2,
        says: &["no such snapshot"],
        hint: "`backup list`",
        stores: &[],
    },
];
