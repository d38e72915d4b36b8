//! Extensions: what the capture had, held against what the server offers, before anything starts.
//!
//! `pg_dump` writes `CREATE EXTENSION` without a version: the server's default one comes. One that is not offered at all
//! would fail in the middle of the definitions, so it is a reason not to start, told with all others. Another version is
//! the operator's to know, no more: scripts of extensions are made for it. One extension is different, see
//! [`super::timescale`].

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::plan::RestorePlan;
use super::{Selection, timescale};
use crate::source::postgres::error::PostgresError;

/// An extension of the captured database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extension {
    pub(super) name: String,
    pub(super) version: String,
    /// Schema of its functions.
    pub(super) schema: String,
}

/// Reads the property `extensions`; `None` when it has no sense.
pub(super) fn read(list: &Value) -> Option<Vec<Extension>> {
    let one = |item: &Value| {
        let text = |name: &str| item.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Extension { name: text("name")?, version: text("version")?, schema: text("schema")? })
    };
    list.as_array()?.iter().map(one).collect()
}

/// What a server offers of an extension.
struct Offer {
    default: Option<String>,
    versions: Vec<String>,
}

/// What it offers of these, by name.
async fn offers(conn: &mut PgConnection, wanted: &[Extension]) -> Result<BTreeMap<String, Offer>, PostgresError> {
    let during = || PostgresError::during("asking the server which extensions it offers");
    let sql = "SELECT e.name::text, e.default_version, (SELECT pg_catalog.array_agg(v.version ORDER BY v.version) \
               FROM pg_catalog.pg_available_extension_versions v WHERE v.name = e.name) \
               FROM pg_catalog.pg_available_extensions e WHERE e.name::text = ANY ($1)";
    let names: Vec<&str> = wanted.iter().map(|extension| extension.name.as_str()).collect();
    let rows = sqlx::query(sql).bind(names).fetch_all(&mut *conn).await.map_err(during())?;
    let offered = rows.iter().map(|row| {
        let versions: Option<Vec<String>> = row.try_get(2)?;
        Ok((row.try_get(0)?, Offer { default: row.try_get(1)?, versions: versions.unwrap_or_default() }))
    });
    offered.collect::<Result<_, sqlx::Error>>().map_err(during())
}

impl RestorePlan {
    /// Whether the server can make the captured extensions.
    pub(super) async fn look_at_extensions(
        &mut self,
        conn: &mut PgConnection,
        only: &Selection,
    ) -> Result<(), PostgresError> {
        let offers = offers(conn, &self.facts.extensions).await?;
        for Extension { name, version, schema } in &self.facts.extensions {
            let Some(offer) = offers.get(name) else {
                self.refusals.push(format!("the server does not offer extension `{name}`, captured at {version}"));
                continue;
            };
            if name == timescale::NAME {
                self.refusals.extend(timescale::refusals(version, schema, &offer.versions, only));
            } else if let Some(here) = offer.default.as_ref().filter(|here| *here != version) {
                self.notes.push(format!("extension `{name}` was captured at {version}, the server makes it at {here}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_property_is_read_whole_or_not_at_all() {
        let good = json!({"name": "a", "version": "1.0", "schema": "public"});
        let expected = Extension { name: "a".into(), version: "1.0".into(), schema: "public".into() };
        assert_eq!(read(&json!([good])), Some(vec![expected]));
        assert_eq!(read(&json!([])), Some(Vec::new()));
        for bad in [json!({}), json!([1]), json!([good, {"name": "a", "version": 1, "schema": "s"}])] {
            assert_eq!(read(&bad), None, "{bad}");
        }
    }
}
