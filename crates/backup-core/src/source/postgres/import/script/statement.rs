//! What a statement of a dump says: whose rows follow, which roles it needs, whether it is about the database itself.
//!
//! These know what `pg_dump` writes. What they do not know is nothing to them: rows are then not counted, and the snapshot
//! says so.

use crate::source::postgres::restore::sql::Statement;

fn is(statement: &Statement, at: usize, word: &str) -> bool {
    statement.tokens.get(at).is_some_and(|token| !token.quoted && token.text.eq_ignore_ascii_case(word))
}

/// Of a `COPY … FROM STDIN`, the place of its last word.
pub(super) fn from_stdin(statement: &Statement) -> Option<usize> {
    let stdin = (1..statement.tokens.len()).find(|at| is(statement, *at, "STDIN") && is(statement, *at - 1, "FROM"));
    stdin.filter(|_| is(statement, 0, "COPY"))
}

pub(super) fn is_about_database(statement: &Statement) -> bool {
    let second = is(statement, 1, "DATABASE") && (is(statement, 0, "CREATE") || is(statement, 0, "ALTER"));
    let on = |at: usize| is(statement, at, "ON") && is(statement, at + 1, "DATABASE");
    let granted = (is(statement, 0, "GRANT") || is(statement, 0, "REVOKE")) && (0..statement.tokens.len()).any(on);
    let comment = is(statement, 0, "COMMENT") && on(1);
    let role = is(statement, 1, "ROLE") && is(statement, 3, "IN") && is(statement, 4, "DATABASE");
    second || granted || comment || role
}

/// The names in parentheses that begin at a token.
pub(super) fn columns(statement: &Statement, at: usize) -> Option<Vec<String>> {
    let tokens = statement.tokens.get(at..)?;
    if tokens.first()?.text != "(" {
        return None;
    }
    let inside = tokens[1..].iter().take_while(|token| token.quoted || token.text != ")");
    Some(inside.filter(|token| token.quoted || token.text != ",").map(|token| token.text.clone()).collect())
}

/// The roles that a statement cannot do without.
pub(super) fn roles(statement: &Statement) -> Vec<String> {
    let mut found = Vec::new();
    let tokens = &statement.tokens;
    let word = |at: usize, word: &str| is(statement, at, word);
    if word(0, "ALTER") && word(1, "ROLE") {
        return tokens.get(2).map(|token| token.text.clone()).into_iter().collect();
    }
    let mut take = |at: usize| {
        let token = tokens.get(at)?;
        let special = ["PUBLIC", "CURRENT_USER", "SESSION_USER", "CURRENT_ROLE", "DEFAULT", "GROUP"];
        if token.quoted || !special.iter().any(|word| token.text.eq_ignore_ascii_case(word)) {
            found.push(token.text.clone());
        }
        Some(())
    };
    for at in 0..tokens.len() {
        let pairs = [("OWNER", "TO"), ("FOR", "ROLE"), ("SESSION", "AUTHORIZATION")];
        if pairs.iter().any(|(first, second)| word(at, first) && word(at + 1, second)) {
            take(at + 2);
        } else if word(0, "CREATE")
            && (word(1, "SCHEMA") && word(at, "AUTHORIZATION") || word(at, "MAPPING") && word(at + 1, "FOR"))
        {
            take(at + if word(at, "MAPPING") { 2 } else { 1 });
        }
    }
    let first = |of: &str| (0..tokens.len()).find(|at| word(*at, of));
    let last = |of: &str| (0..tokens.len()).rev().find(|at| word(*at, of));
    let list = if word(0, "CREATE") && word(1, "POLICY") {
        first("TO")
    } else if word(0, "GRANT") || word(0, "ALTER") && word(1, "DEFAULT") && first("GRANT").is_some() {
        last("TO")
    } else if word(0, "REVOKE") || word(0, "ALTER") && word(1, "DEFAULT") {
        last("FROM")
    } else {
        None
    };
    if let Some(mut at) = list {
        loop {
            take(at + 1);
            if !word(at + 2, ",") {
                break;
            }
            at += 2;
        }
    }
    found
}
