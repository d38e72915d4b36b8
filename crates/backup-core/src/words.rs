//! Text that may quote what somebody planted in a vault, made fit for terminals, mail and the state.
//!
//! An error's text can repeat a stored document word for word (a parser names the key that it does not know). Control
//! characters could rewrite what an operator sees, and a long text could bury it.

/// Most characters of such a text.
pub const PLAIN_CHARS: usize = 400;

/// `text` with its control characters written out, cut after [`PLAIN_CHARS`] characters.
pub fn plain(text: &str) -> String {
    let mut shown: String = escaped(&text.chars().take(PLAIN_CHARS).collect::<String>());
    if text.chars().nth(PLAIN_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

/// `text` in its whole length with its control characters written out, line ends too.
pub fn escaped(text: &str) -> String {
    escape(text, |_| false)
}

/// [`escaped`], but with line ends and tabs as they are: for text that this program has laid out.
pub fn escaped_lines(text: &str) -> String {
    escape(text, |c| matches!(c, '\n' | '\t'))
}

fn escape(text: &str, spared: fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if hides(c) && !spared(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    shown
}

/// Control characters, and those that turn the direction of what follows or end a line unseen.
fn hides(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_a_terminal_as_a_command() {
        assert_eq!(plain("a\x1b[2J\u{9b}2J\r\n\u{202e}é"), "a\\u{1b}[2J\\u{9b}2J\\u{d}\\u{a}\\u{202e}é");
        assert_eq!(escaped_lines("a\n\tb\x07"), "a\n\tb\\u{7}");
        let long = "x".repeat(PLAIN_CHARS);
        assert_eq!(plain(&long), long);
        assert_eq!(plain(&format!("{long}yz")), format!("{long}…"));
    }
}
