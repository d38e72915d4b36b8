//! The one printer. stdout is data, stderr is talk.
//!
//! With `--json` stdout holds exactly one JSON document, also after an error:
//! `{"format": 1, "kind": "<verb>", …}` or `{"format": 1, "kind": "error", "error": {"message", "class", "exit", "hint"}}`.
//! `format` grows when a member changes its meaning; new members may appear at any time. The talk stays on stderr.
//!
//! A reader that goes away (`backup list | head -1`) is no error; a disk that is full is one.

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use backup_core::words::escaped_lines;
use serde_json::{Value, json};

use crate::error::CliError;
use crate::exit::Exit;

/// Version of the JSON documents.
const FORMAT: u32 = 1;

/// What the operator asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options {
    /// One JSON document on stdout instead of text.
    pub(crate) json: bool,
    /// No talk but warnings and errors.
    pub(crate) quiet: bool,
    /// 0: results and warnings; 1: also what is done.
    pub(crate) verbose: u8,
}

/// Writes for people and programs.
pub(crate) struct Printer {
    options: Options,
    colour: bool,
    state: Mutex<State>,
}

struct State {
    out: Box<dyn Write + Send>,
    talk: Box<dyn Write + Send>,
    /// The reader of stdout went away.
    closed: bool,
    /// The JSON document was written.
    document: bool,
}

impl Printer {
    /// A printer on the process's own streams. Colour only on a terminal, and never with `NO_COLOR`.
    pub(crate) fn of_process(options: Options) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let able = std::env::var_os("TERM").is_none_or(|value| value != "dumb");
        let colour = wanted && able && std::io::stderr().is_terminal();
        Self::new(options, colour, Box::new(std::io::stdout()), Box::new(std::io::stderr()))
    }

    fn new(options: Options, colour: bool, out: Box<dyn Write + Send>, talk: Box<dyn Write + Send>) -> Self {
        Self { options, colour, state: Mutex::new(State { out, talk, closed: false, document: false }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `-v` was given.
    pub(crate) fn is_verbose(&self) -> bool {
        self.options.verbose > 0
    }

    /// The result of a verb: `value` (an object) as its JSON document, or `text` for people.
    pub(crate) fn result(&self, kind: &str, value: Value, text: impl FnOnce() -> String) -> Result<(), CliError> {
        if !self.options.json {
            return self.write(&escaped_lines(&text()));
        }
        let mut document = json!({ "format": FORMAT, "kind": kind });
        if let (Value::Object(all), Value::Object(members)) = (&mut document, value) {
            all.extend(members);
        }
        self.state().document = true;
        self.write(&format!("{document:#}\n"))
    }

    fn write(&self, text: &str) -> Result<(), CliError> {
        let mut state = self.state();
        if state.closed {
            return Ok(());
        }
        match state.out.write_all(text.as_bytes()).and_then(|()| state.out.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                state.closed = true;
                Ok(())
            }
            Err(error) => Err(CliError::caused(Exit::Failed, "cannot write to standard output", &error)),
        }
    }

    /// A line for people who watch; silent with `-q`.
    pub(crate) fn talk(&self, line: &str) {
        if !self.options.quiet {
            self.say(line);
        }
    }

    /// A line for `-v`.
    pub(crate) fn detail(&self, line: &str) {
        if self.options.verbose > 0 {
            self.say(line);
        }
    }

    /// A warning with what to do, which may be empty; not silenced.
    pub(crate) fn warn(&self, text: &str, hint: &str) {
        let (mark, end) = if self.colour { ("\x1b[1;33m", "\x1b[0m") } else { ("", "") };
        let hint = if hint.is_empty() { String::new() } else { format!("\n  {}", escaped_lines(hint)) };
        self.write_talk(&format!("{mark}warning:{end} {}{hint}", escaped_lines(text)));
    }

    /// The error that ends the process; with `--json` also as the document, unless one was written.
    pub(crate) fn error(&self, error: &CliError) {
        let (red, bold, end) = if self.colour { ("\x1b[1;31m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
        let hint =
            error.advice().map_or_else(String::new, |hint| format!("\n\n{bold}hint:{end} {}", escaped_lines(hint)));
        self.write_talk(&format!("{red}error:{end} {}{hint}", escaped_lines(error.message())));
        let written = self.state().document;
        if self.options.json && !written {
            // Standard output may be the very thing that failed; the exit code tells in any case.
            let _ = self.result("error", json!({ "error": error.to_json() }), String::new);
        }
    }

    /// What is said may quote what lies in a vault, and whoever wrote that must not write to the terminal.
    fn say(&self, line: &str) {
        self.write_talk(&escaped_lines(line));
    }

    fn write_talk(&self, line: &str) {
        // Talk is a courtesy: a closed stderr must not stop a backup.
        let _ = writeln!(self.state().talk, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);
    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    impl Shared {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    struct Fails(ErrorKind);
    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn printer(options: Options) -> (Printer, Shared, Shared) {
        let (out, talk) = (Shared::default(), Shared::default());
        (Printer::new(options, false, Box::new(out.clone()), Box::new(talk.clone())), out, talk)
    }

    #[test]
    fn a_reader_that_goes_away_is_no_error_and_a_full_disk_is_one() {
        let on = |kind| Printer::new(Options::default(), false, Box::new(Fails(kind)), Box::new(Shared::default()));
        assert_eq!(on(ErrorKind::BrokenPipe).result("x", json!({}), || "a".into()), Ok(()));
        let full = on(ErrorKind::StorageFull).result("x", json!({}), || "a".into());
        assert_eq!(full.unwrap_err().exit(), Exit::Failed);
    }

    #[test]
    fn json_has_one_document_whatever_happens() {
        let error = CliError::usage("no `x`").hint("add it");
        let json = Options { json: true, ..Options::default() };
        let (printer, out, talk) = printer(json);
        printer.result("show", json!({ "a": 1 }), || unreachable!()).unwrap();
        printer.error(&error);
        let document: Value = serde_json::from_str(&out.text()).unwrap();
        assert_eq!(document, json!({ "format": 1, "kind": "show", "a": 1 }));
        assert_eq!(talk.text(), "error: no `x`\n\nhint: add it\n");

        let (printer, out, _) = self::printer(json);
        printer.error(&error);
        let document: Value = serde_json::from_str(&out.text()).unwrap();
        let inner = json!({ "message": "no `x`", "class": "usage", "exit": 2, "hint": "add it" });
        assert_eq!(document, json!({ "format": 1, "kind": "error", "error": inner }));
    }

    #[test]
    fn what_is_quoted_cannot_write_to_the_terminal() {
        let (printer, out, talk) = printer(Options { verbose: 1, ..Options::default() });
        let planted = "a\x1b[2Jb\u{9b}c\n\td\u{202e}";
        printer.talk(planted);
        printer.detail(planted);
        printer.warn(planted, planted);
        printer.error(&CliError::usage(planted).hint(planted));
        printer.result("x", json!({}), || planted.to_owned()).unwrap();
        for text in [out.text(), talk.text()] {
            assert!(text.contains("a\\u{1b}[2Jb\\u{9b}c\n\td\\u{202e}"), "{text:?}");
            assert!(!text.contains(['\x1b', '\u{9b}', '\u{202e}']), "{text:?}");
        }
    }

    #[test]
    fn quiet_silences_talk_and_not_warnings() {
        let (printer, out, talk) = printer(Options { quiet: true, ..Options::default() });
        printer.talk("talk");
        printer.detail("detail");
        printer.warn("text", "hint");
        printer.warn("alone", "");
        assert_eq!((out.text().as_str(), talk.text().as_str()), ("", "warning: text\n  hint\nwarning: alone\n"));
    }
}
