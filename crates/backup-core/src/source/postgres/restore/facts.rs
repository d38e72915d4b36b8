//! The captured database's own properties, read back from the manifest.

use serde_json::Value;
use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::error::RestoreError;
use super::extensions::{self, Extension};
use super::sql::qualified;
use crate::manifest::{Property, TableEntry};
use crate::source::postgres::error::PostgresError;

/// What a database is besides its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) name: String,
    pub(super) owner: String,
    pub(super) encoding: String,
    pub(super) collate: String,
    pub(super) ctype: String,
    /// `libc`, `icu` or `builtin`.
    pub(super) provider: Option<String>,
    pub(super) icu_locale: Option<String>,
    pub(super) icu_rules: Option<String>,
    pub(super) tablespace: Option<String>,
    /// Those that tables and indexes lie in, where the manifest says it.
    pub(super) tablespaces: Option<Vec<String>>,
    pub(super) comment: Option<String>,
    /// -1: no limit.
    pub(super) connection_limit: i64,
    pub(super) is_template: bool,
    /// Texts of `aclitem`; absent: the default privileges.
    pub(super) acl: Option<Vec<String>>,
    /// Role (absent: all roles) with `name=value` texts.
    pub(super) settings: Vec<(Option<String>, Vec<String>)>,
    /// Provider and label.
    pub(super) security_labels: Vec<(String, String)>,
    pub(super) extensions: Vec<Extension>,
    /// Major version of the captured server, such as 15.
    pub(super) server_major: u32,
    /// Major version of the `pg_dump` that wrote the archive.
    pub(super) client_major: u32,
}

impl Facts {
    /// Reads the properties; refuses a manifest without those that a database cannot be made without.
    pub(super) fn read(properties: &[Property]) -> Result<Self, RestoreError> {
        let get = |name: &str| properties.iter().find(|p| p.name == name).map(|p| &p.value).filter(|v| !v.is_null());
        let text = |name: &str| get(name).and_then(Value::as_str).map(str::to_owned);
        let bad = |name: &str| RestoreError::Manifest { why: format!("property `{name}` is missing or has no sense") };
        let needed = |name: &str| text(name).filter(|text| !text.is_empty()).ok_or_else(|| bad(name));
        let version = get("server.version_num").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
        let server_major = version.ok_or_else(|| bad("server.version_num"))? / 10_000;
        let provider = match text("database.locale_provider").as_deref() {
            Some("c" | "libc") => Some("libc".to_owned()),
            Some("i" | "icu") => Some("icu".to_owned()),
            Some("b" | "builtin") => Some("builtin".to_owned()),
            None => None,
            Some(_) => return Err(bad("database.locale_provider")),
        };
        Ok(Self {
            name: needed("database.name")?,
            owner: needed("database.owner")?,
            encoding: needed("database.encoding")?,
            collate: needed("database.collate")?,
            ctype: needed("database.ctype")?,
            provider,
            icu_locale: text("database.icu_locale"),
            icu_rules: text("database.icu_rules").filter(|rules| !rules.is_empty()),
            tablespace: text("database.tablespace"),
            tablespaces: match get("tablespaces") {
                None => None,
                Some(list) => Some(texts(list).ok_or_else(|| bad("tablespaces"))?),
            },
            comment: text("database.comment"),
            connection_limit: get("database.connection_limit").and_then(Value::as_i64).unwrap_or(-1),
            is_template: get("database.is_template").and_then(Value::as_bool).unwrap_or(false),
            acl: match get("database.acl") {
                None => None,
                Some(list) => Some(texts(list).ok_or_else(|| bad("database.acl"))?),
            },
            settings: match get("database.settings") {
                None => Vec::new(),
                Some(list) => settings(list).ok_or_else(|| bad("database.settings"))?,
            },
            security_labels: match get("database.security_labels") {
                None => Vec::new(),
                Some(list) => labels(list).ok_or_else(|| bad("database.security_labels"))?,
            },
            extensions: match get("extensions") {
                None => Vec::new(),
                Some(list) => extensions::read(list).ok_or_else(|| bad("extensions"))?,
            },
            server_major,
            client_major: text("client.version").and_then(|text| major(&text)).unwrap_or(server_major),
        })
    }
}

fn major(version: &str) -> Option<u32> {
    let digits = version.split(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty())?;
    digits.parse().ok()
}

fn texts(list: &Value) -> Option<Vec<String>> {
    list.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

fn labels(list: &Value) -> Option<Vec<(String, String)>> {
    let one =
        |item: &Value| Some((item.get("provider")?.as_str()?.to_owned(), item.get("label")?.as_str()?.to_owned()));
    list.as_array()?.iter().map(one).collect()
}

fn settings(list: &Value) -> Option<Vec<(Option<String>, Vec<String>)>> {
    let one = |item: &Value| {
        let role = match item.get("role") {
            None | Some(Value::Null) => None,
            Some(role) => Some(role.as_str()?.to_owned()),
        };
        Some((role, texts(item.get("settings")?)?))
    };
    list.as_array()?.iter().map(one).collect()
}

/// Which rows of an extension's table are dumped, as a FROM clause (`pg_extension_config_dump`); `None` when all are.
pub(super) async fn dumped_rows(conn: &mut PgConnection, entry: &TableEntry) -> Result<Option<String>, PostgresError> {
    let during = || PostgresError::during("asking an extension for its tables");
    let sql = "SELECT e.extcondition[u.position::int] AS condition FROM pg_catalog.pg_extension e, \
               pg_catalog.unnest(e.extconfig) WITH ORDINALITY u (oid, position) WHERE u.oid = $1::pg_catalog.regclass";
    let table = qualified(&entry.schema, &entry.name);
    let row = sqlx::query(sql).bind(&table).fetch_optional(&mut *conn).await.map_err(during())?;
    let Some(row) = row else { return Ok(None) };
    let condition: Option<String> = row.try_get("condition").map_err(during())?;
    Ok(condition.filter(|condition| !condition.is_empty()).map(|condition| format!("ONLY {table} {condition}")))
}

/// One `aclitem`, such as `app=CTc*/owner`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AclItem {
    /// Empty: PUBLIC.
    pub(super) grantee: String,
    /// Privilege letter and whether it may be granted further.
    pub(super) privileges: Vec<(char, bool)>,
    /// Who granted them.
    pub(super) grantor: String,
}

impl AclItem {
    /// Reads PostgreSQL's text form; `None` when it is not one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (grantee, rest) = name(text)?;
        let (letters, grantor) = rest.strip_prefix('=')?.split_once('/')?;
        let (grantor, rest) = name(grantor)?;
        if !rest.is_empty() {
            return None;
        }
        let mut privileges: Vec<(char, bool)> = Vec::new();
        for c in letters.chars() {
            match c {
                '*' => privileges.last_mut()?.1 = true,
                'C' | 'T' | 'c' => privileges.push((c, false)),
                _ => return None,
            }
        }
        Some(Self { grantee, privileges, grantor })
    }
}

/// A role's name at the start of an `aclitem`'s text, and the rest.
fn name(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(['=', '/']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut name = String::new();
    let mut chars = quoted.char_indices().peekable();
    loop {
        let (at, c) = chars.next()?;
        if c != '"' {
            name.push(c);
        } else if chars.next_if(|(_, next)| *next == '"').is_some() {
            name.push('"');
        } else {
            return Some((name, &quoted[at + 1..]));
        }
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn acl_items_are_read_as_the_server_writes_them() {
        let item = AclItem::parse("\"we=\"\"ird\"=C*c/postgres").unwrap();
        let expected = vec![('C', true), ('c', false)];
        assert_eq!((item.grantee.as_str(), item.privileges, item.grantor.as_str()), ("we=\"ird", expected, "postgres"));
        assert_eq!(AclItem::parse("a=c/\"b \"\"/\"").unwrap().grantor, "b \"/");
        assert_eq!(AclItem::parse("=Tc/app").unwrap().grantee, "");
        assert_eq!(AclItem::parse("a=/app").unwrap().privileges, []);
        for bad in ["", "a", "\"a=c/x", "a=r/x", "a=*/x", "a=c", "a=c/\"b\"c"] {
            assert_eq!(AclItem::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_missing_property_is_named() {
        let error = Facts::read(&[]).unwrap_err().to_string();
        assert!(error.contains("`server.version_num`"), "{error}");
        assert_eq!(major("pg_dump (PostgreSQL) 16.4 (Debian)"), Some(16));
    }
}
