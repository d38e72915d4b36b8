//! Whether a query asks the clock. A check of a restored database that does so holds for the newest snapshot only.
//!
//! Constants, quoted names and comments are passed over as PostgreSQL's lexer does (manual, "Lexical Structure").

/// Functions: the word counts when a parenthesis follows.
const FUNCTIONS: [&str; 5] = ["now", "clock_timestamp", "statement_timestamp", "transaction_timestamp", "timeofday"];

/// Words that are calls by themselves.
const WORDS: [&str; 5] = ["current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"];

/// The first word of `sql` that reads the clock, as written there.
pub(super) fn first(sql: &str) -> Option<&str> {
    let bytes = sql.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &sql[at..];
        at += match bytes[at] {
            b'-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => comment(rest),
            b'\'' => constant(rest, false),
            b'e' | b'E' if rest[1..].starts_with('\'') => 1 + constant(&rest[1..], true),
            b'"' => rest[1..].find('"').map_or(rest.len(), |end| end + 2),
            b'$' => dollar(rest),
            byte if starts_word(byte) => {
                let length = rest.bytes().take_while(|b| starts_word(*b) || b.is_ascii_digit() || *b == b'$').count();
                let (word, after) = rest.split_at(length);
                let is = |known: &&str| word.eq_ignore_ascii_case(known);
                let called = after.trim_start().starts_with('(') && FUNCTIONS.iter().any(is);
                if called || (WORDS.iter().any(is) && !sql[..at].ends_with('.')) {
                    return Some(word);
                }
                length
            }
            _ => rest.chars().next().map_or(1, char::len_utf8),
        };
    }
    None
}

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || !byte.is_ascii()
}

/// Length of the constant that `text` begins with. A doubled quote ends one and begins the next, which is the same here.
fn constant(text: &str, backslashes: bool) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if backslashes => escaped = true,
            b'\'' if backslashes && text[at + 1..].starts_with('\'') => escaped = true,
            b'\'' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of the comment that `text` begins with; they nest.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// Length of `$tag$ … $tag$`, or of the `$` of a parameter.
fn dollar(text: &str) -> usize {
    let Some(end) = text[1..].find('$') else { return 1 };
    let tag = &text[..end + 2];
    let name = &tag[1..tag.len() - 1];
    if !name.bytes().all(|b| starts_word(b) || b.is_ascii_digit()) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return 1;
    }
    text[tag.len()..].find(tag).map_or(text.len(), |close| close + 2 * tag.len())
}

#[cfg(test)]
mod tests {
    use super::first;

    #[test]
    fn the_clock_is_found_where_it_is_asked() {
        for (sql, word) in [
            ("SELECT max(t) > now() - interval '1 day' FROM x", "now"),
            ("SELECT NOW ()", "NOW"),
            ("SELECT pg_catalog.now()", "now"),
            ("SELECT max(d) >= current_date FROM x", "current_date"),
            ("SELECT localtimestamp(0) > t", "localtimestamp"),
            ("SELECT clock_timestamp()", "clock_timestamp"),
            ("SELECT 'it''s' = x OR CURRENT_TIMESTAMP > t", "CURRENT_TIMESTAMP"),
            ("SELECT E'\\'' || E'''' || timeofday()", "timeofday"),
            ("SELECT 'a\\', now(), 'b'", "now"),
            ("SELECT $1 < now() AND $2", "now"),
            ("SELECT $a$ x $a$, now()", "now"),
            ("SELECT 1 -- why\n, now()", "now"),
            ("SELECT /* a /* b */ c */ now()", "now"),
            ("SELECT \"a\"\"b\", é, now()", "now"),
        ] {
            assert_eq!(first(sql), Some(word), "{sql}");
        }
    }

    #[test]
    fn it_is_not_found_in_constants_comments_and_other_names() {
        for sql in [
            "SELECT max(t) > $1 - interval '1 day' FROM x",
            "SELECT now FROM x",
            "SELECT x.current_date, \"now\", \"current_date\" FROM x",
            "SELECT 'now()', E'\\'now()', $$ now() $$, $q$ $$ now() $q$",
            "SELECT 1 -- now()",
            "SELECT 1 /* now() /* */ now() */",
            "SELECT known() OR now_or_never() OR is_now()",
            "SELECT 'now()",
            "",
        ] {
            assert_eq!(first(sql), None, "{sql}");
        }
    }
}
