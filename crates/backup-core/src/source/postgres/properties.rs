//! What a restore needs or compares besides rows: the database's own attributes, roles, extensions.
//!
//! Names are a contract with the restore; they are read inside the snapshot.

use serde_json::{Value, json};

use super::error::PostgresError;
use super::large_objects::LargeObjects;
use super::names;
use super::session::{Session, column};
use crate::manifest::Property;

/// Reads everything but the large objects, as (name, value) in manifest order.
pub(super) async fn read(session: &mut Session) -> Result<Vec<Property>, PostgresError> {
    const DURING: &str = "reading the properties of the database";
    // Attributes that came with later versions are read through JSON: absent ones are null.
    let sql = "SELECT pg_catalog.json_build_object( \
        'server.version_num', pg_catalog.current_setting('server_version_num')::int, \
        'server.version', pg_catalog.current_setting('server_version'), \
        'database.name', d.datname, \
        'database.owner', pg_catalog.pg_get_userbyid(d.datdba), \
        'database.encoding', pg_catalog.pg_encoding_to_char(d.encoding), \
        'database.collate', d.datcollate, \
        'database.ctype', d.datctype, \
        'database.locale_provider', coalesce(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c'), \
        'database.icu_locale', coalesce(pg_catalog.to_jsonb(d) ->> 'daticulocale', pg_catalog.to_jsonb(d) ->> 'datlocale'), \
        'database.acl', d.datacl::text[], \
        'database.connection_limit', d.datconnlimit, \
        'database.is_template', d.datistemplate, \
        'database.icu_rules', pg_catalog.to_jsonb(d) ->> 'daticurules', \
        'database.comment', pg_catalog.shobj_description(d.oid, 'pg_database'), \
        'database.security_labels', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object( \
            'provider', s.provider, 'label', s.label) ORDER BY s.provider), '[]') FROM pg_catalog.pg_shseclabel s \
            WHERE s.classoid = 'pg_catalog.pg_database'::pg_catalog.regclass AND s.objoid = d.oid), \
        'database.tablespace', (SELECT spcname FROM pg_catalog.pg_tablespace t WHERE t.oid = d.dattablespace), \
        'tablespaces', (SELECT coalesce(pg_catalog.json_agg(spcname ORDER BY spcname), '[]') FROM pg_catalog.pg_tablespace t \
            WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.reltablespace = t.oid AND NOT c.relisshared)), \
        'database.settings', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object( \
            'role', r.rolname, 'settings', s.setconfig) ORDER BY r.rolname NULLS FIRST), '[]') \
            FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole \
            WHERE s.setdatabase = d.oid), \
        'roles', (SELECT coalesce(pg_catalog.json_agg(rolname ORDER BY rolname), '[]') FROM pg_catalog.pg_roles \
            WHERE rolname !~ '^pg_'), \
        'extensions', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object( \
            'name', e.extname, 'version', e.extversion, 'schema', n.nspname) ORDER BY e.extname), '[]') \
            FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace) \
        )::text AS properties \
        FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()";
    let text: String = column(&session.one(DURING, sql).await?, "properties", DURING)?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|error| PostgresError::during(DURING)(sqlx::Error::Decode(error.into())))?;
    let mut properties = match value {
        Value::Object(members) => members.into_iter().map(|(name, value)| Property { name, value }).collect(),
        _ => Vec::new(),
    };
    properties.sort_by(|a: &Property, b| a.name.cmp(&b.name));
    if session.any_bytes()
        && let Some(odd) = properties.iter().find(|property| names::has_stand_ins(&property.value.to_string()))
    {
        // What stands for such bytes here would be written as itself there: these catalogs belong to the whole server.
        return Err(PostgresError::NoText {
            property: odd.name.clone(),
            value: names::readable(&odd.value.to_string()),
        });
    }
    Ok(properties)
}

/// Name of the property that [`foreign`] makes.
pub(crate) const FOREIGN: &str = "foreign_tables";

/// The foreign tables, pairs of schema and name; nothing where there are none.
pub(super) fn foreign(tables: &[(String, String)]) -> Option<Property> {
    (!tables.is_empty()).then(|| Property { name: FOREIGN.to_owned(), value: json!(tables) })
}

/// The properties that are known only at the end.
pub(super) fn late(large: LargeObjects, client_version: &str) -> [Property; 2] {
    [large.property(), Property { name: "client.version".to_owned(), value: json!(client_version) }]
}
