//! SQL text: quoting names and values, and cutting a script of `pg_dumpall` into statements.
//!
//! Quoting is unconditional, so that no list of key words has to be right. The cutter knows what `pg_dumpall` writes:
//! `--` comments, `'…'` (with `E` also backslashes), `"…"`, and lines of psql commands; nothing else is needed, and
//! what it does not know ends up in a statement that no caller recognises, which is then not executed.

/// `name` as an identifier.
pub(super) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `schema.name` as an identifier.
pub(super) fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// `text` as a string constant, whatever `standard_conforming_strings` says.
pub(super) fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", doubled.replace('\\', "\\\\")) } else { format!("'{doubled}'") }
}

/// A word or a quoted thing, with its place in the statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source::postgres) struct Token {
    /// The word as written, or a quoted identifier's or constant's content.
    pub(in crate::source::postgres) text: String,
    /// It was quoted: never a key word.
    pub(in crate::source::postgres) quoted: bool,
    /// First byte in the statement's text.
    pub(in crate::source::postgres) start: usize,
}

/// One statement, without its semicolon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source::postgres) struct Statement {
    /// From its first token to its last.
    pub(in crate::source::postgres) text: String,
    /// Its tokens.
    pub(in crate::source::postgres) tokens: Vec<Token>,
}

impl Statement {
    /// Whether it begins with these key words.
    pub(in crate::source::postgres) fn begins(&self, words: &[&str]) -> bool {
        self.tokens.len() >= words.len()
            && words.iter().zip(&self.tokens).all(|(word, token)| !token.quoted && token.text == *word)
    }

    /// Place of the first token that is this key word.
    pub(in crate::source::postgres) fn position(&self, word: &str) -> Option<usize> {
        self.tokens.iter().position(|token| !token.quoted && token.text == word)
    }
}

/// Cuts a script of `pg_dumpall` into statements.
pub(in crate::source::postgres) fn statements(script: &str) -> Vec<Statement> {
    let mut found = Vec::new();
    let (mut begin, mut tokens): (usize, Vec<Token>) = (0, Vec::new());
    let bytes = script.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let from = at;
        let (text, quoted) = match bytes[at] {
            b'-' if bytes[at..].starts_with(b"--") => {
                at = line_end(bytes, at);
                continue;
            }
            // A psql command, such as `\restrict`, takes the rest of its line.
            b'\\' if tokens.is_empty() => {
                at = line_end(bytes, at);
                continue;
            }
            b';' => {
                if !tokens.is_empty() {
                    let text = script[begin..at].trim_end().to_owned();
                    found.push(Statement { text, tokens: std::mem::take(&mut tokens) });
                }
                at += 1;
                continue;
            }
            b if b.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'\'' | b'"' => (quoted_text(script, &mut at, false), true),
            b'E' if bytes.get(at + 1) == Some(&b'\'') => {
                at += 1;
                (quoted_text(script, &mut at, true), true)
            }
            b => {
                at += 1;
                if is_word(b) {
                    while at < bytes.len() && is_word(bytes[at]) {
                        at += 1;
                    }
                }
                (script[from..at].to_owned(), false)
            }
        };
        if tokens.is_empty() {
            begin = from;
        }
        tokens.push(Token { text, quoted, start: from - begin });
    }
    found
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || !byte.is_ascii()
}

fn line_end(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |length| from + length)
}

/// Reads a quoted thing that starts at `at`, leaves `at` behind it. A missing end quote ends it with the script.
fn quoted_text(script: &str, at: &mut usize, backslashes: bool) -> String {
    let bytes = script.as_bytes();
    let quote = bytes[*at];
    let mut out = Vec::new();
    *at += 1;
    while *at < bytes.len() {
        let byte = bytes[*at];
        *at += 1;
        if byte == quote {
            if bytes.get(*at) != Some(&quote) {
                break;
            }
            *at += 1;
        } else if byte == b'\\' && backslashes {
            out.extend(bytes.get(*at));
            *at += 1;
            continue;
        }
        out.push(byte);
    }
    *at = (*at).min(bytes.len());
    // Only whole characters are copied: a quote is never part of one in UTF-8.
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn a_script_is_cut_where_the_server_would_cut_it() {
        let script = "-- a; b\n\\restrict x;y\nCREATE ROLE \"we;\"\"ird\";\nALTER ROLE a PASSWORD 'x;''y' -- z\n;\n\
                      COMMENT ON ROLE a IS E'it\\'s; \\\\';;\n";
        let found = statements(script);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].text, "CREATE ROLE \"we;\"\"ird\"");
        assert_eq!(found[0].tokens[2], Token { text: "we;\"ird".to_owned(), quoted: true, start: 12 });
        assert_eq!(found[1].tokens.last().unwrap().text, "x;'y");
        assert_eq!(found[2].tokens.last().unwrap().text, "it's; \\");
        assert!(found[2].begins(&["COMMENT", "ON", "ROLE"]) && !found[2].begins(&["ALTER"]));
    }

    #[test]
    fn quoting_leaves_no_way_out() {
        assert_eq!(qualified("a\"b", "C d"), "\"a\"\"b\".\"C d\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'"), "E'a\\\\'''");
    }
}
