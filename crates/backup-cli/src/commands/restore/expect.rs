//! Where the checks of a restored database come from: the configuration of now, which knows what the operator wants
//! today; without one, the configuration that was in force at the capture, which is in the snapshot.

use backup_core::config::SourceKind;
use backup_core::id::SourceName;
use backup_core::snapshot::OpenSnapshot;
use backup_core::source::postgres::restore::{Expectation, Expectations};
use serde_json::Value;

use super::Scene;

/// The checks of a source, as of the snapshot's instant.
pub(super) fn of(scene: &Scene<'_>, source: &SourceName, snapshot: &OpenSnapshot) -> Expectations {
    let configured = scene.config.as_ref().and_then(|config| config.source(source.as_str()));
    let checks = match configured.map(|source| &source.kind) {
        Some(SourceKind::Postgres(postgres)) => {
            let checks = postgres.expect.iter();
            checks.map(|one| Expectation { name: one.name.clone(), sql: one.sql.clone() }).collect()
        }
        _ => stored(&snapshot.manifest().config, source).unwrap_or_else(|| {
            let text = format!("the checks that snapshot `{}` has for `{source}` cannot be read", snapshot.doc().id);
            scene.cx.printer.warn(&text, "restore with a configuration that has them in `expect`");
            Vec::new()
        }),
    };
    Expectations::new(checks, snapshot.doc().instant)
}

/// What a stored configuration expects of a source; `None` when it says something else than lists of checks.
fn stored(config: &Value, source: &SourceName) -> Option<Vec<Expectation>> {
    let sources = config.get("source").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let named = sources.iter().find(|one| one.get("name").and_then(Value::as_str) == Some(source.as_str()));
    let Some(checks) = named.and_then(|one| one.get("expect")) else { return Some(Vec::new()) };
    let text = |check: &Value, key: &str| check.get(key).and_then(Value::as_str).map(str::to_owned);
    let read = |check: &Value| Some(Expectation { name: text(check, "name")?, sql: text(check, "sql")? });
    checks.as_array()?.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_stored_configuration_tells_its_checks_or_that_it_cannot() {
        let (db, other): (SourceName, SourceName) = ("db".parse().unwrap(), "other".parse().unwrap());
        let config =
            json!({ "source": [{ "name": "docs" }, { "name": "db", "expect": [{ "name": "a", "sql": "b" }] }] });
        let found = stored(&config, &db).unwrap();
        assert_eq!(found, [Expectation { name: "a".to_owned(), sql: "b".to_owned() }]);
        assert_eq!(stored(&config, &other), Some(Vec::new()));
        assert_eq!(stored(&json!({}), &db), Some(Vec::new()));
        for odd in [json!("x"), json!([{ "name": "a" }]), json!([1])] {
            assert_eq!(stored(&json!({ "source": [{ "name": "db", "expect": odd }] }), &db), None);
        }
    }
}
