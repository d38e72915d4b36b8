//! What every verb gets: the printer, the clock, and the way to the configuration.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::clock::Clock;
use backup_core::config::Config;

use crate::error::CliError;
use crate::exit::Exit;
use crate::printer::Printer;

/// Where configurations of a machine are.
const FOLDER: &str = "/etc/backup";
const VARIABLE: &str = "BACKUP_CONFIG";

/// What every verb gets.
pub(crate) struct Context {
    /// The one printer.
    pub(crate) printer: Arc<Printer>,
    /// The clock to hand to the engine.
    pub(crate) clock: Clock,
    /// `--config`.
    flag: Option<PathBuf>,
}

impl Context {
    /// A context of this process. The only place that reads the wall clock.
    pub(crate) fn of_process(printer: Printer, flag: Option<PathBuf>) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the edge: everything else is given this clock")]
        let clock = Clock::new(chrono::Utc::now);
        Self { printer: Arc::new(printer), clock, flag }
    }

    /// Finds and reads the configuration. Its warnings are not printed: `config check` and `doctor` do that.
    pub(crate) fn config(&self) -> Result<Config, CliError> {
        let path = self.config_path()?;
        let text = fs::read_to_string(&path).map_err(|error| unread(&path, &error))?;
        self.printer.detail(&format!("configuration: {}", path.display()));
        Ok(Config::parse(&text, &path)?)
    }

    /// The configuration with more text at the end of the file, which stays as it is.
    pub(crate) fn config_with(&self, more: &str) -> Result<Config, CliError> {
        let path = self.config_path()?;
        let text = fs::read_to_string(&path).map_err(|error| unread(&path, &error))?;
        Ok(Config::parse(&format!("{text}{more}"), &path)?)
    }

    /// The configuration if one is found, for verbs that also work without. A found one that is wrong is an error.
    pub(crate) fn config_if_any(&self) -> Result<Option<Config>, CliError> {
        let here = Path::new("backup.toml");
        let given = self.flag.is_some() || std::env::var_os(VARIABLE).is_some() || here.exists();
        if given || !listed(Path::new(FOLDER)).is_empty() { self.config().map(Some) } else { Ok(None) }
    }

    /// Whether the operator named a configuration, so that a wrong one ends the verb in any case.
    pub(crate) fn names_config(&self) -> bool {
        self.flag.is_some() || std::env::var_os(VARIABLE).is_some_and(|path| !path.is_empty())
    }

    fn config_path(&self) -> Result<PathBuf, CliError> {
        let found = search(self.flag.as_deref(), std::env::var_os(VARIABLE), Path::new("."), Path::new(FOLDER))?;
        std::path::absolute(&found)
            .map_err(|error| CliError::caused(Exit::Usage, format!("`{}`", found.display()), &error))
    }
}

fn unread(path: &Path, error: &std::io::Error) -> CliError {
    CliError::caused(Exit::Usage, format!("cannot read the configuration `{}`", path.display()), error)
        .hint("name the right file with `--config FILE` or `$BACKUP_CONFIG`")
}

/// `--config`, else the variable, else `backup.toml` here, else the only `*.toml` of the folder.
fn search(flag: Option<&Path>, variable: Option<OsString>, here: &Path, folder: &Path) -> Result<PathBuf, CliError> {
    if let Some(path) = flag {
        return Ok(path.to_owned());
    }
    if let Some(path) = variable.filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let local = here.join("backup.toml");
    if local.exists() {
        return Ok(local);
    }
    let mut found = listed(folder);
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(CliError::usage(format!(
            "no configuration: no `--config`, no `${VARIABLE}`, no `./backup.toml`, none in `{}`",
            folder.display()
        ))
        .hint("name one with `--config FILE`; `backup config schema` lists what it may hold")),
        _ => {
            let names: Vec<String> = found.iter().map(|path| format!("`{}`", path.display())).collect();
            Err(CliError::usage(format!("several configurations: {}", names.join(", ")))
                .hint(format!("choose one with `--config {}` or `${VARIABLE}`", found[0].display())))
        }
    }
}

/// The configurations of a folder, sorted.
fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml") && path.is_file())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searches_in_the_documented_order() {
        let (here, etc) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let look = |flag: Option<&str>, variable: Option<&str>| {
            search(flag.map(Path::new), variable.map(OsString::from), here.path(), etc.path())
        };
        let none = look(None, None).unwrap_err();
        assert_eq!(none.exit(), Exit::Usage);
        assert!(none.message().starts_with("no configuration: "));

        let (one, two) = (etc.path().join("a.toml"), etc.path().join("b.toml"));
        fs::write(etc.path().join("allowed_signers"), "").unwrap();
        fs::write(&two, "").unwrap();
        assert_eq!(look(None, None), Ok(two.clone()));
        assert_eq!(look(None, Some("")), Ok(two.clone()), "an empty variable is none");
        fs::write(&one, "").unwrap();
        let several = look(None, None).unwrap_err();
        assert_eq!(several.exit(), Exit::Usage);
        assert_eq!(several.message(), format!("several configurations: `{}`, `{}`", one.display(), two.display()));

        fs::write(here.path().join("backup.toml"), "").unwrap();
        assert_eq!(look(None, None), Ok(here.path().join("backup.toml")));
        assert_eq!(look(None, Some("v.toml")), Ok("v.toml".into()));
        assert_eq!(look(Some("f.toml"), Some("v.toml")), Ok("f.toml".into()));
    }
}
