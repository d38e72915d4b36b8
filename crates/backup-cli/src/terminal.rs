//! Asking a person at the terminal for a passphrase, without echo.
//!
//! The terminal is set back in every case: signals by keys are turned off while it listens, so that ctrl-C arrives as
//! a byte and is answered here instead of ending the process with the echo off.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};

use backup_core::secret::Secret;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::error::CliError;
use crate::exit::Exit;

/// Longest passphrase.
const LIMIT: usize = 4096;

/// Puts the terminal back as it was.
struct Restore<'a>(&'a File, Termios);

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.0, OptionalActions::Flush, &self.1);
    }
}

/// Asks `prompt` at the controlling terminal. `None`: there is no terminal to ask at.
pub(crate) fn ask_secret(prompt: &str) -> Result<Option<Secret>, CliError> {
    let Ok(mut terminal) = OpenOptions::new().read(true).write(true).open("/dev/tty") else { return Ok(None) };
    let failed = |error: &dyn std::error::Error| CliError::caused(Exit::Failed, "cannot ask at the terminal", error);
    let before = tcgetattr(&terminal).map_err(|error| failed(&error))?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    terminal.write_all(prompt.as_bytes()).map_err(|error| failed(&error))?;
    let answer = {
        let listening = terminal.try_clone().map_err(|error| failed(&error))?;
        let _restore = Restore(&terminal, before);
        tcsetattr(&terminal, OptionalActions::Flush, &silent).map_err(|error| failed(&error))?;
        read_line(BufReader::new(listening))
    };
    let _ = terminal.write_all(b"\n");
    answer.map(Some)
}

/// Asks `prompt` at the controlling terminal, with echo. `None`: there is no terminal to ask at.
pub(crate) fn ask_line(prompt: &str) -> Result<Option<String>, CliError> {
    let Ok(mut terminal) = OpenOptions::new().read(true).write(true).open("/dev/tty") else { return Ok(None) };
    let failed = |error: std::io::Error| CliError::caused(Exit::Failed, "cannot ask at the terminal", &error);
    terminal.write_all(prompt.as_bytes()).map_err(failed)?;
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(terminal), &mut line).map_err(failed)?;
    Ok(Some(line))
}

/// Reads to the end of a line, with backspace; ctrl-C interrupts.
fn read_line(input: impl BufRead) -> Result<Secret, CliError> {
    let mut typed = zeroize::Zeroizing::new(Vec::with_capacity(LIMIT));
    for byte in input.bytes() {
        match byte.map_err(|error| CliError::caused(Exit::Failed, "cannot read the passphrase", &error))? {
            b'\n' | b'\r' | 0x04 => break,
            0x03 => return Err(CliError::new(Exit::Interrupted, "interrupted")),
            // One character may be several bytes of UTF-8.
            0x08 | 0x7f => while typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            byte if typed.len() < LIMIT => typed.push(byte),
            _ => return Err(CliError::usage("the passphrase is too long")),
        }
    }
    match std::str::from_utf8(&typed) {
        Ok(text) => Ok(Secret::new(text)),
        Err(_) => Err(CliError::usage("the passphrase is not UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_like_a_line_and_stops_at_control_c() {
        let read = |bytes: &[u8]| read_line(bytes).map(|secret| secret.reveal().to_owned());
        assert_eq!(read(b"abc\ndef"), Ok("abc".into()));
        assert_eq!(read("aé\x7fb\r".as_bytes()), Ok("ab".into()));
        assert_eq!(read(b"\x7f\x7fa"), Ok("a".into()));
        assert_eq!(read(b"ab\x03").unwrap_err().exit(), Exit::Interrupted);
        assert!(read(&[0xff, b'\n']).is_err());
    }
}
