//! What an imported dump says of the database itself, in the words in which a capture says it.
//!
//! An archive has an entry for the database, with its owner, encoding, locale, settings and privileges; a plain dump has
//! only its encoding. What is not known is left out: a restore takes the target's defaults then.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::restore::sql::Statement;
use super::script::Found;
use crate::manifest::Property;

/// Properties in manifest order, for the database of this name.
pub(super) fn properties(found: &Found, name: &str, import: Value) -> Vec<Property> {
    let mut facts: BTreeMap<&str, Value> = BTreeMap::new();
    facts.insert("database.name", json!(name));
    facts.insert("database.encoding", json!(found.encoding.as_deref().unwrap_or("UTF8")));
    facts.insert("import", import);
    facts.insert("import.roles", json!(found.roles));
    let version = found.server_version.as_deref().unwrap_or_default();
    facts.insert("server.version", json!(version));
    facts.insert("server.version_num", json!(version_num(version)));
    facts.insert("client.version", json!(found.client_version.as_deref().unwrap_or(version)));
    let mut settings: BTreeMap<Option<String>, Vec<String>> = BTreeMap::new();
    for statement in &found.database {
        let word = |at: usize| statement.tokens.get(at).filter(|token| !token.quoted).map(|token| token.text.as_str());
        let text = |at: usize| statement.tokens.get(at).map(|token| token.text.clone()).unwrap_or_default();
        match (word(0), word(3), word(5)) {
            (Some("CREATE"), ..) => created(statement, &mut facts),
            (Some("COMMENT"), ..) => drop(facts.insert("database.comment", json!(text(5)))),
            (Some("ALTER"), Some("OWNER"), _) => drop(facts.insert("database.owner", json!(text(5)))),
            (Some("ALTER"), Some("CONNECTION"), _) => {
                drop(facts.insert("database.connection_limit", json!(text(6).parse::<i64>().unwrap_or(-1))));
            }
            (Some("ALTER"), Some("IS_TEMPLATE"), _) => {
                drop(facts.insert("database.is_template", json!(text(5).eq_ignore_ascii_case("true"))));
            }
            (Some("ALTER"), Some("SET"), _) => settings.entry(None).or_default().extend(setting(statement, 4)),
            (Some("ALTER"), Some("IN"), _) if word(6) == Some("SET") => {
                settings.entry(Some(text(2))).or_default().extend(setting(statement, 7));
            }
            _ => {}
        }
    }
    let list = settings.into_iter().map(|(role, settings)| json!({ "role": role, "settings": settings }));
    facts.insert("database.settings", list.collect());
    let owner = facts.get("database.owner").and_then(Value::as_str).map(str::to_owned);
    if let Some(acl) = owner.and_then(|owner| privileges(&found.database, &owner)) {
        facts.insert("database.acl", json!(acl));
    }
    facts.into_iter().map(|(name, value)| Property { name: name.to_owned(), value }).collect()
}

/// `15.18` is 150018, `9.6.24` is 90624.
pub(super) fn version_num(version: &str) -> u32 {
    let mut numbers = version.split('.').map(|part| {
        part.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u32>().unwrap_or(0).min(9_999)
    });
    let (major, second, third) =
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if major >= 10 { major * 10_000 + second } else { major * 10_000 + second * 100 + third }
}

fn created(statement: &Statement, facts: &mut BTreeMap<&'static str, Value>) {
    for window in statement.tokens.windows(3) {
        let [name, equals, value] = window else { continue };
        if equals.quoted || equals.text != "=" {
            continue;
        }
        let value = json!(value.text);
        match name.text.as_str() {
            "ENCODING" => drop(facts.insert("database.encoding", value)),
            "LOCALE" => {
                facts.insert("database.collate", value.clone());
                facts.insert("database.ctype", value);
            }
            "LC_COLLATE" => drop(facts.insert("database.collate", value)),
            "LC_CTYPE" => drop(facts.insert("database.ctype", value)),
            "LOCALE_PROVIDER" => drop(facts.insert("database.locale_provider", value)),
            "ICU_LOCALE" | "BUILTIN_LOCALE" => drop(facts.insert("database.icu_locale", value)),
            "ICU_RULES" => drop(facts.insert("database.icu_rules", value)),
            "TABLESPACE" => drop(facts.insert("database.tablespace", value)),
            _ => {}
        }
    }
}

/// `SET name TO a, b` as `pg_db_role_setting` has it: `name=a`, of several values a list of quoted ones.
fn setting(statement: &Statement, at: usize) -> Option<String> {
    let to = (at..statement.tokens.len()).find(|at| {
        let token = &statement.tokens[*at];
        !token.quoted && (token.text == "TO" || token.text == "=")
    })?;
    let name: String = statement.tokens[at..to].iter().map(|token| token.text.as_str()).collect();
    let values = statement.tokens[to + 1..].iter().filter(|token| token.quoted || token.text != ",");
    let values: Vec<&str> = values.map(|token| token.text.as_str()).collect();
    let lists = ["search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries"];
    let text = if lists.contains(&name.as_str()) {
        values.iter().map(|value| format!("\"{}\"", value.replace('"', "\"\""))).collect::<Vec<_>>().join(", ")
    } else {
        values.concat()
    };
    Some(format!("{name}={text}"))
}

/// Privileges as `aclitem` texts: the defaults, changed by each GRANT and REVOKE; none when nothing changes them.
fn privileges(statements: &[Statement], owner: &str) -> Option<Vec<String>> {
    let mut all: BTreeMap<String, BTreeMap<char, bool>> = BTreeMap::new();
    all.insert(String::new(), [('T', false), ('c', false)].into());
    all.insert(owner.to_owned(), [('C', false), ('T', false), ('c', false)].into());
    let mut changed = false;
    for statement in statements {
        let tokens = &statement.tokens;
        let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| !token.quoted && token.text == word);
        let (grant, to) = (is(0, "GRANT"), if is(0, "GRANT") { "TO" } else { "FROM" });
        if !grant && !is(0, "REVOKE") {
            continue;
        }
        let Some(at) = (0..tokens.len()).rev().find(|at| is(*at, to)) else { continue };
        let Some(on) = (0..at).find(|at| is(*at, "ON")) else { continue };
        let Some(grantee) = tokens.get(at + 1) else { continue };
        let grantee = if is(at + 1, "PUBLIC") { String::new() } else { grantee.text.clone() };
        let option = is(at + 2, "WITH") && is(at + 3, "GRANT");
        let letters: Vec<char> = (1..on)
            .flat_map(|at| match tokens[at].text.as_str() {
                "ALL" => vec!['C', 'T', 'c'],
                "CREATE" => vec!['C'],
                "TEMPORARY" | "TEMP" => vec!['T'],
                "CONNECT" => vec!['c'],
                _ => Vec::new(),
            })
            .collect();
        let only_option = !grant && is(1, "GRANT");
        let held = all.entry(grantee).or_default();
        for letter in letters {
            if grant {
                *held.entry(letter).or_default() |= option;
            } else if only_option {
                held.entry(letter).and_modify(|option| *option = false);
            } else {
                held.remove(&letter);
            }
        }
        changed = true;
    }
    let quoted =
        |name: &str| if name.is_empty() { String::new() } else { format!("\"{}\"", name.replace('"', "\"\"")) };
    let item = |(grantee, held): (&String, &BTreeMap<char, bool>)| {
        let letters: String =
            held.iter().map(|(c, option)| if *option { format!("{c}*") } else { c.to_string() }).collect();
        format!("{}={letters}/{}", quoted(grantee), quoted(owner))
    };
    changed.then(|| all.iter().filter(|(_, held)| !held.is_empty()).map(item).collect())
}

#[cfg(test)]
mod tests {
    use super::super::script::Script;
    use super::*;

    #[test]
    fn an_archives_entry_for_the_database_becomes_properties() {
        let script = "SET client_encoding = 'UTF8';\n\
            CREATE DATABASE app WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = libc LOCALE = 'C.UTF-8';\n\
            ALTER DATABASE app OWNER TO bob;\n\\connect app\nCOMMENT ON DATABASE app IS 'it''s';\n\
            REVOKE CONNECT,TEMPORARY ON DATABASE app FROM PUBLIC;\nGRANT CONNECT ON DATABASE app TO \"Al ice\";\n\
            GRANT CREATE ON DATABASE app TO pg_monitor WITH GRANT OPTION;\nALTER DATABASE app CONNECTION LIMIT = 7;\n\
            ALTER DATABASE app SET search_path TO 'a b', 'public';\nALTER DATABASE app SET \"my.x\" TO 'y';\n\
            ALTER ROLE bob IN DATABASE app SET work_mem TO '5MB';\n";
        let mut read = Script::default();
        read.feed(script.as_bytes(), |_, _| {});
        let mut found = read.finish();
        found.server_version = Some("9.6.24".to_owned());
        let all = properties(&found, "app", json!({}));
        let get = |name: &str| all.iter().find(|p| p.name == name).map(|p| p.value.clone()).unwrap_or_default();
        assert_eq!(get("database.owner"), "bob");
        assert_eq!((get("database.collate"), get("database.locale_provider")), (json!("C.UTF-8"), json!("libc")));
        assert_eq!((get("database.comment"), get("database.connection_limit")), (json!("it's"), json!(7)));
        assert_eq!(get("server.version_num"), 90_624);
        let acl = ["\"Al ice\"=c/\"bob\"", "\"bob\"=CTc/\"bob\"", "\"pg_monitor\"=C*/\"bob\""];
        assert_eq!(get("database.acl"), json!(acl));
        let settings = json!([
            { "role": null, "settings": ["search_path=\"a b\", \"public\"", "my.x=y"] },
            { "role": "bob", "settings": ["work_mem=5MB"] },
        ]);
        assert_eq!(get("database.settings"), settings);
        assert_eq!(get("import.roles"), json!(["Al ice", "bob", "pg_monitor"]));
        assert_eq!((version_num("15.18"), version_num("19devel"), version_num("")), (150_018, 190_000, 0));
    }
}
