//! What bad input gets.

use super::stack::Stack;

#[test]
fn a_stack_is_backed_up_and_restored() {
    let stack = Stack::new();
    stack.configure("28d", "14d");
    assert!(stack.init().contains("RECOVER"));
    stack.run().expect(0);
    assert_eq!(stack.ids("db").len(), 1);
    let back = stack.text("back");
    let ops = stack.text("operator/ops.txt");
    stack.backup(&["restore", "--identity", &ops, "--into", "again", "--into-dir", &back]).expect(0);
    assert_eq!(stack.pg.psql("again", "SELECT count(*) FROM events"), "40000");
    assert!(!stack.vault_files("offsite", "db").is_empty() && !stack.vault_files("local", "docs").is_empty());
    assert!(stack.path("back").exists());
}
