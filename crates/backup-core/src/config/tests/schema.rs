//! The documented schema against the parser: neither knows a key that the other does not. The parser is asked by its own
//! complaint about an unknown key, so that no second list of keys is kept here.

use std::collections::BTreeSet;

use super::super::{Problem, raw, schema, schema_json};
use super::{chain, minimal, parse};

/// The names that serde would accept in the table at `place`, from its complaint about one that it does not know.
fn accepted(place: &str) -> BTreeSet<String> {
    let text = place.replace("HERE", "no_such_key = 1");
    let error = toml::from_str::<raw::Root>(&text).unwrap_err();
    let message = error.message().to_owned();
    assert!(message.starts_with("unknown field `no_such_key`"), "{message} in {text}");
    let (_, names) = message.split_once("expected").unwrap();
    names.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Every table of the schema with a text that puts an unknown key into it; untagged ones are read by themselves.
const PLACES: &[(&str, &str)] = &[
    ("", "HERE"),
    ("limits", "limits = { HERE }"),
    ("keys", "[keys]\nHERE"),
    ("keys.identity", "[keys]\nidentity = { HERE }"),
    ("vault.NAME", "[vault.x]\nHERE"),
    ("vault.NAME.s3", "[vault.x]\ns3 = { HERE }"),
    ("vault.NAME.keep", "[vault.x]\nkeep = { HERE }"),
    ("source.NAME", "[source.x]\nHERE"),
    ("source.NAME.password", "[source.x]\npassword = { HERE }"),
    ("source.NAME.clients", "[source.x]\nclients = { HERE }"),
    ("source.NAME.expect[]", "[source.x]\nexpect = [{ HERE }]"),
    ("source.NAME.model_card", "[source.x]\nmodel_card = { HERE }"),
    ("source.NAME.objective", "[source.x]\nobjective = { HERE }"),
    ("source.NAME.objective.waiver", "[source.x]\nobjective = { waiver = { HERE } }"),
    ("service.NAME", "[service.x]\nHERE"),
    ("service.NAME.objective", "[service.x]\nobjective = { HERE }"),
    ("service.NAME.objective.waiver", "[service.x]\nobjective = { waiver = { HERE } }"),
    ("job.NAME", "[job.x]\nHERE"),
    ("job.NAME.retry", "[job.x]\nretry = { HERE }"),
    ("notify.NAME", "[notify.x]\nHERE"),
    ("notify.NAME.smtp", "[notify.x]\nsmtp = { HERE }"),
];

/// The names that serde accepts in a table that stands where a text could stand too.
fn accepted_untagged<T: serde::de::DeserializeOwned + std::fmt::Debug>() -> BTreeSet<String> {
    let error = toml::from_str::<T>("no_such_key = 1").unwrap_err();
    error.message().split_once("expected").unwrap().1.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_schema_has_exactly_the_keys_that_the_parser_accepts() {
    let mut parser: std::collections::BTreeMap<&str, BTreeSet<String>> =
        PLACES.iter().map(|(table, place)| (*table, accepted(place))).collect();
    parser.insert("state", accepted_untagged::<raw::StateServer>());
    parser.insert("state.password", accepted_untagged::<raw::Secret>());
    parser.insert("vault.NAME.credentials", accepted_untagged::<raw::Secret>());
    let mut documented: std::collections::BTreeMap<&str, BTreeSet<String>> = std::collections::BTreeMap::new();
    let keys = schema();
    for key in &keys {
        let (table, name) = key.path.rsplit_once('.').unwrap_or(("", &key.path));
        documented.entry(table).or_default().insert(name.to_owned());
        assert!(!key.doc.is_empty() && !key.doc.contains('\n') && !key.doc.ends_with('.'), "{}: {}", key.path, key.doc);
    }
    assert_eq!(documented, parser);
    assert_eq!(schema_json()["keys"].as_array().unwrap().len(), keys.len());
}

#[test]
fn every_documented_key_of_a_kind_of_source_is_accepted_by_that_kind_only() {
    let words: Vec<&str> = schema::SOURCES.iter().map(|(word, _)| *word).collect();
    for (word, table) in schema::SOURCES {
        for key in
            schema().iter().filter(|key| key.path.starts_with("source.NAME.") && key.path.matches('.').count() == 2)
        {
            let name = key.path.rsplit_once('.').unwrap().1;
            let text = format!("{}[source.x]\ntype = \"{word}\"\n{name} = 1979-01-01T00:00:00\n", minimal());
            let error = parse(&text).map(drop).unwrap_err();
            let unknown = matches!(&error.problem, Problem::UnknownKey { .. });
            assert_eq!(unknown, table.key(name).is_none(), "{word}.{name}: {}", chain(&error));
        }
    }
    assert_eq!(words, ["postgres", "files", "dvc", "redis", "command"]);
}
