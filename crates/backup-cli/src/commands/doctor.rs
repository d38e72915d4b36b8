//! `backup doctor`.

mod checks;
pub(crate) mod protection;
mod vaults;

use serde_json::json;

use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::Session;
use crate::table::Table;

/// Look at keys, servers, vaults and clocks, and say what would fail
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// As it should be.
    Good,
    /// A run works, and somebody should know this.
    Warn,
    /// What is promised would not be kept.
    Breach,
    /// A run would fail.
    Fail,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warn => "warn",
            Self::Breach => "BREACH",
            Self::Fail => "FAIL",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    /// What: `keys`, `vault local`, `source db`.
    about: String,
    level: Level,
    /// What was seen.
    text: String,
    /// What to do; empty when there is nothing to do.
    hint: String,
}

/// The checks so far.
#[derive(Debug, Default)]
struct Checks(Vec<Check>);

impl Checks {
    fn add(&mut self, about: &str, level: Level, text: impl Into<String>, hint: &str) {
        self.0.push(Check { about: about.to_owned(), level, text: text.into(), hint: hint.to_owned() });
    }

    fn good(&mut self, about: &str, text: impl Into<String>) {
        self.add(about, Level::Good, text, "");
    }

    fn warn(&mut self, about: &str, text: impl Into<String>, hint: &str) {
        self.add(about, Level::Warn, text, hint);
    }

    /// What a run would end with.
    fn fail(&mut self, about: &str, error: &CliError) {
        self.add(about, Level::Fail, error.message(), error.advice().unwrap_or_default());
    }

    fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|check| check.level == level).count()
    }

    fn text(&self) -> String {
        let mut table = Table::new(&["", "WHAT", "SEEN"]);
        for check in &self.0 {
            table.row(vec![check.level.word().to_owned(), check.about.clone(), check.text.clone()]);
            if !check.hint.is_empty() {
                table.row(vec![String::new(), String::new(), format!("hint: {}", check.hint)]);
            }
        }
        let (warned, failed) = (self.count(Level::Warn), self.count(Level::Fail));
        let breached = match self.count(Level::Breach) {
            0 => String::new(),
            breached => format!(", {breached} break the policy"),
        };
        format!("{}\n{} checks, {warned} warnings, {failed} would fail{breached}\n", table.render(), self.0.len())
    }
}

/// Looks at everything, in the order in which a run needs it. Exit 1 when something would fail, 5 when a bucket's own rules
/// would delete what is promised; warnings are printed and change nothing.
pub(crate) async fn run(cx: &Context, _args: &Args) -> Result<Exit, CliError> {
    let session = Session::open(cx)?;
    let mut checks = Checks::default();
    checks::configuration(&session, &mut checks);
    checks::keys(&session, &mut checks);
    checks::state(&session, &mut checks).await;
    let protection = vaults::look(&session, &mut checks).await;
    checks::sources(&session, &mut checks).await;
    let listed: Vec<_> = checks
        .0
        .iter()
        .map(|check| {
            let level = check.level.word().to_lowercase();
            let hint = (!check.hint.is_empty()).then_some(&check.hint);
            json!({ "about": check.about, "level": level, "text": check.text, "hint": hint })
        })
        .collect();
    let failed = checks.count(Level::Fail);
    let breached = checks.count(Level::Breach);
    let value = json!({
        "checks": listed, "protection": protection, "warnings": checks.count(Level::Warn), "failures": failed,
        "breaches": breached,
    });
    cx.printer.result("doctor", value, || checks.text())?;
    Ok(match (failed, breached) {
        (0, 0) => Exit::Done,
        (0, _) => Exit::Breach,
        _ => Exit::Failed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_is_a_line_and_each_hint_stands_below_its_own() {
        let mut checks = Checks::default();
        checks.good("configuration", "`/etc/backup/x.toml`");
        checks.warn("vault local", "protection: none: deletable by this host", "keep a second vault");
        checks.fail("source db", &CliError::new(Exit::Failed, "the server does not answer").hint("start it"));
        let text = checks.text();
        assert!(text.ends_with("\n3 checks, 1 warnings, 1 would fail\n"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("ok "), "{text}");
        assert!(lines[2].starts_with("warn") && lines[3].ends_with("hint: keep a second vault"), "{text}");
        assert!(lines[4].starts_with("FAIL") && lines[5].ends_with("hint: start it"), "{text}");
    }
}
