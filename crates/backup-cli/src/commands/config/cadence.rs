//! Does the schedule feed what `keep` counts on? A pause as long as the window freezes expiry, and one that comes back with
//! every run freezes it for ever: the vault would only grow.

use backup_core::config::{Config, ConfigWarning};
use backup_scheduler::Crontab;
use chrono::{DateTime, TimeDelta, Utc};
use retention::Span;

use crate::pruning;

/// Windows that a schedule's longest pause (within a year from `now`) fills.
pub(in crate::commands) fn cadence(config: &Config, now: DateTime<Utc>) -> Vec<ConfigWarning> {
    let pause = |cron: &Option<String>, tz| -> Option<TimeDelta> {
        Crontab::parse(cron.as_deref()?).ok()?.longest_gap(now, tz)
    };
    let pauses: Vec<_> = config.jobs.iter().filter_map(|job| Some((job, pause(&job.cron, job.timezone)?))).collect();
    let mut warnings = Vec::new();
    for vault in &config.vaults {
        let Some(keep) = &vault.keep else { continue };
        for source in &config.sources {
            let filling = pauses.iter().filter(|(job, _)| job.fills(&source.name, &vault.name));
            let Some((job, pause)) = filling.min_by_key(|(_, pause)| *pause) else { continue };
            let (pause, window) = (Span::of_delta(*pause), pruning::policy(keep, source.generation).within);
            if pause < window {
                continue;
            }
            let (name, job, source) = (&vault.name, &job.name, &source.name);
            warnings.push(ConfigWarning {
                key: format!("vault.{name}.keep.within"),
                text: format!(
                    "`job.{job}` pauses for {pause} between captures of `source.{source}`, and the window is {window}: \
                     a pause that fills the window freezes expiry, so nothing would ever expire"
                ),
                hint: format!("set `vault.{name}.keep.within` well above {pause}, or run `job.{job}` more often"),
            });
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(keep: &str, jobs: &str) -> Vec<String> {
        let text = format!(
            "schema = 1\nstack = \"s\"\n[keys]\nrecipients = [\"{}\"]\nsigners = \"/s\"\n\
             [vault.a]\npath = \"/a\"\n{keep}\n[vault.b]\npath = \"/b\"\n[source.f]\ntype = \"files\"\npaths = [\"/f\"]\n{jobs}",
            age::x25519::Identity::generate().to_public()
        );
        let config = Config::parse(&text, std::path::Path::new("/t.toml")).unwrap();
        let found = cadence(&config, "2026-11-22T00:00:00Z".parse().unwrap());
        assert!(found.iter().all(|warning| warning.hint.contains(&warning.key)), "the hint names the key: {found:?}");
        found.into_iter().map(|warning| warning.key).collect()
    }

    #[test]
    fn a_window_that_every_pause_fills_is_told() {
        let daily = "[job.j]\ncron = \"0 2 * * *\"\n";
        let keep = |within: &str| format!("keep = {{ within = \"{within}\", min = 1 }}");
        assert_eq!(keys(&keep("1d"), daily), ["vault.a.keep.within"], "exactly the pause is too little");
        assert_eq!(keys(&keep("25h"), daily), [""; 0]);
        assert_eq!(keys(&keep("7d"), "[job.j]\ncron = \"@weekly\"\n"), ["vault.a.keep.within"]);
        assert_eq!(keys(&keep("20d"), "[job.j]\ncron = \"@monthly\"\n"), ["vault.a.keep.within"]);
        // The more frequent of two jobs counts, and only one that fills the vault.
        let two = |more: &str| {
            format!("[job.k]\ncron = \"@weekly\"\n[job.j]\ncron = \"0 2 * * *\"\nvaults = [\"b\"]\n{more}")
        };
        assert_eq!(keys(&keep("7d"), &two("")), ["vault.a.keep.within"]);
        assert_eq!(keys(&keep("7d"), &two("then = [\"replicate\"]\n")), [""; 0]);
        assert_eq!(keys("", daily), [""; 0], "no `keep`, no window");
        assert_eq!(keys(&keep("1d"), ""), [""; 0], "no schedule, no pause");
    }
}
