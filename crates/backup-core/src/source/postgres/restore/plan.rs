//! What a restore would do, found out without changing anything.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::error::RestoreError;
use super::facts::{AclItem, Facts};
use super::globals::{self, Globals, MissingRoles};
use super::imported::{self, Imported};
use super::rows::Numbered;
use super::sql::{ident, literal};
use super::{RestoreOptions, Selection, Snapshot, Target, database, session};
use crate::fingerprint::RowSum;
use crate::manifest::{Kept, StreamKind, TableEntry};
use crate::source::Streams;
use crate::source::postgres::clients::{Clients, ClientsOption};
use crate::source::postgres::error::PostgresError;
use crate::source::postgres::rows::RowFormat;

/// Largest script of globals that is read.
const GLOBALS_BYTES: usize = 16 << 20;

/// What a restore will do. Shown to the operator, then handed to [`super::execute`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RestorePlan {
    /// The database's name in the end.
    pub database: String,
    /// Its name until then.
    pub working: String,
    /// `Some` when a database of that name exists and will be replaced: the name under which it is kept.
    pub kept_as: Option<String>,
    /// Size of the database that will be replaced, in bytes; it stays on disk.
    pub replaced_bytes: Option<u64>,
    /// Roles that will be created.
    pub create_roles: Vec<String>,
    /// Memberships that will be granted, as (role, member).
    pub grant_memberships: Vec<(String, String)>,
    /// Tablespaces that the server does not have: their tables go to the database's own.
    pub missing_tablespaces: Vec<String>,
    /// Tables whose rows will come back.
    pub tables: usize,
    /// Their rows.
    pub rows: u64,
    /// Plaintext bytes to read from the vault, about what the tables need on disk without indexes.
    pub bytes: u64,
    /// Things that the operator should know; they do not stop the restore.
    pub notes: Vec<String>,
    /// Why it will not start. Empty is good.
    pub refusals: Vec<String>,
    pub(super) facts: Facts,
    pub(super) roles: Roles,
    pub(super) clients: Clients,
    pub(super) selected: Vec<usize>,
    pub(super) archive: u32,
    pub(super) imported: Option<Imported>,
    pub(super) superuser: bool,
    pub(super) server_major: u32,
}

/// Roles to create; shows names only, because the statements hold password hashes.
#[derive(Clone)]
pub(super) struct Roles(pub(super) MissingRoles);

impl std::fmt::Debug for Roles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.0.roles).finish()
    }
}

/// Looks at the manifest and at the server.
pub(super) async fn plan(
    options: &RestoreOptions,
    snapshot: &Snapshot<'_>,
    streams: &dyn Streams,
) -> Result<RestorePlan, RestoreError> {
    let (archive, imported) = consistent(snapshot)?;
    let mut conn = session::open_maintenance(&options.maintenance()).await?;
    let facts = match &imported {
        None => Facts::read(snapshot.properties)?,
        Some(_) => Facts::read(&imported::completed(snapshot.properties, options, &mut conn).await?)?,
    };
    let server = Server::ask(&mut conn, options).await?;
    let clients = Clients::find(&options.clients, facts.client_major).await?;
    let globals = match snapshot.first(StreamKind::PgGlobals) {
        None => None,
        Some(number) => {
            let script = Numbered::open(streams, number, StreamKind::PgGlobals).await?.read_all(GLOBALS_BYTES).await?;
            Some(Globals::parse(&String::from_utf8_lossy(&script)))
        }
    };
    let (roles, memberships) = globals::known(&mut conn).await?;
    let missing = globals.as_ref().map(|globals| globals.missing(&roles, &memberships)).unwrap_or_default();

    let name = match &options.target {
        Target::Into(name) => name.clone(),
        Target::Original | Target::Replace => facts.name.clone(),
    };
    let selected: Vec<usize> = (0..snapshot.tables.len())
        .filter(|index| snapshot.tables[*index].kept != Kept::Excluded && options.only.holds(&snapshot.tables[*index]))
        .collect();
    let entries = || selected.iter().map(|index| &snapshot.tables[*index]);
    let mut plan = RestorePlan {
        working: database::working_name(&name, &options.id),
        kept_as: None,
        replaced_bytes: None,
        create_roles: missing.roles.clone(),
        grant_memberships: missing.memberships.clone(),
        missing_tablespaces: Vec::new(),
        tables: selected.len(),
        rows: entries().map(|entry| entry.rows).sum(),
        bytes: entries().map(|entry| entry.bytes).sum::<u64>()
            + snapshot.stream(archive).map_or(0, |stream| stream.bytes),
        notes: Vec::new(),
        refusals: Vec::new(),
        facts,
        roles: Roles(missing),
        clients,
        archive,
        imported,
        superuser: server.superuser,
        server_major: server.major,
        database: name,
        selected,
    };
    plan.look_at_server(&server, options, globals.as_ref());
    plan.look_at_roles(&roles);
    plan.look_at_imported(options);
    plan.look_at_extensions(&mut conn, &options.only).await?;
    if server.databases.contains_key(&plan.database) && options.target == Target::Replace {
        plan.look_at_replaced(&mut conn, &server, options).await?;
    }
    Ok(plan)
}

impl RestorePlan {
    /// The server that is restored to.
    pub(super) fn server(&self) -> database::Server {
        database::Server { superuser: self.superuser, major: self.server_major }
    }

    fn look_at_server(&mut self, server: &Server, options: &RestoreOptions, globals: Option<&Globals>) {
        let database = &self.database;
        if database.is_empty() || database.len() > 63 {
            self.refusals.push(format!("`{database}` is not a name for a database: 1 to 63 bytes"));
        }
        if server.databases.contains_key(database) && options.target != Target::Replace {
            self.refusals.push(format!("database `{database}` exists"));
        }
        if server.databases.contains_key(&self.working) {
            self.refusals.push(format!("database `{}` exists already", self.working));
        }
        let left_over = server.databases.keys().filter(|name| name.contains("__restoring_"));
        for name in left_over {
            self.notes.push(format!("database `{name}` is left over from a restore that did not end, or one runs now"));
        }
        if !server.superuser && !server.may_create {
            self.refusals.push(format!("user `{}` may not create databases", options.connect.user()));
        }
        if server.major < self.facts.server_major {
            let (captured, here) = (self.facts.server_major, server.major);
            self.notes.push(format!("the capture is from PostgreSQL {captured}, the server is older: {here}"));
        }
        if options.only != Selection::All {
            if self.selected.is_empty() {
                self.refusals.push(options.only.lacking());
            }
            if !matches!(options.target, Target::Into(_)) {
                self.refusals.push("single tables go into a database of their own".to_owned());
            }
            if matches!(options.clients, ClientsOption::Wrap(_)) {
                self.refusals.push("single tables need client programs on this machine, not wrapped ones".to_owned());
            }
            let skipped = "foreign keys, event triggers, publications, subscriptions, large objects and materialized \
                           views' contents do not come back with single tables; all other tables come back empty";
            self.notes.push(skipped.to_owned());
            if !options.expect.checks.is_empty() {
                let names = options.expect.names().join("`, `");
                self.notes.push(format!("only a part comes back, so these checks are not asked: `{names}`"));
            }
        }
        // A script of globals has the whole server's, also those of other databases.
        let others = || globals.map(|globals| globals.tablespaces.clone()).unwrap_or_default();
        let wanted = self.facts.tablespaces.clone().unwrap_or_else(others);
        let wanted: BTreeSet<String> = wanted.into_iter().chain(self.facts.tablespace.clone()).collect();
        self.missing_tablespaces = wanted.into_iter().filter(|name| !server.tablespaces.contains(name)).collect();
        if !self.missing_tablespaces.is_empty() {
            let names = self.missing_tablespaces.join("`, `");
            self.notes.push(format!("no tablespace is used, because the server has no `{names}`"));
        }
        // Whether its provider is there, a server says only by refusing; those of tables come with the archive.
        for (provider, label) in &self.facts.security_labels {
            let (provider, label, name) = (ident(provider), literal(label), ident(&self.database));
            self.notes.push(format!(
                "the database's own security label is left to you: SECURITY LABEL FOR {provider} ON DATABASE {name} IS {label}"
            ));
        }
        for (role, member) in &self.roles.0.not_granted {
            self.notes
                .push(format!("role `{member}` was a member of `{role}`; both exist here and are left as they are"));
        }
    }

    /// The roles that the database itself names must be there in the end.
    fn look_at_roles(&mut self, have: &BTreeSet<String>) {
        let acl = self.facts.acl.iter().flatten().filter_map(|text| AclItem::parse(text));
        let acl = acl.flat_map(|item| [item.grantee, item.grantor]);
        let settings = self.facts.settings.iter().filter_map(|(role, _)| role.clone());
        // Nobody kept the roles of an imported dump: those that it names must be here.
        let imported = self.imported.iter().flat_map(|imported| imported.roles.clone());
        let own = [self.facts.owner.clone()];
        let named: BTreeSet<String> = acl.chain(settings).chain(imported).chain(own).collect();
        let missing = named.iter().filter(|name| !name.is_empty() && !have.contains(*name));
        for name in missing.filter(|name| !self.create_roles.contains(name)) {
            self.refusals
                .push(format!("role `{name}` is missing here and not in the snapshot: CREATE ROLE {}", ident(name)));
        }
    }

    async fn look_at_replaced(
        &mut self,
        conn: &mut PgConnection,
        server: &Server,
        options: &RestoreOptions,
    ) -> Result<(), RestoreError> {
        let kept = database::kept_name(&self.database, options.at);
        if server.databases.contains_key(&kept) {
            self.refusals.push(format!("database `{kept}`, as which the old one would be kept, exists already"));
        }
        if self.database == options.maintenance {
            self.refusals.push(format!("database `{}` is the one that the restore works from", self.database));
        }
        for obstacle in database::obstacles(conn, &self.database).await? {
            self.refusals.push(format!("{obstacle} is tied to database `{}`", self.database));
        }
        self.kept_as = Some(kept);
        self.replaced_bytes = server.databases.get(&self.database).copied().flatten();
        Ok(())
    }
}

/// What a server has.
struct Server {
    major: u32,
    superuser: bool,
    may_create: bool,
    /// With the size in bytes, where we may see it.
    databases: BTreeMap<String, Option<u64>>,
    tablespaces: BTreeSet<String>,
}

impl Server {
    async fn ask(conn: &mut PgConnection, options: &RestoreOptions) -> Result<Self, PostgresError> {
        let during =
            || PostgresError::during(format!("asking the server at `{}` what it has", options.connect.address()));
        let sql = "SELECT current_setting('server_version_num')::int, rolsuper, rolcreatedb \
                   FROM pg_roles WHERE rolname = current_user";
        let row = sqlx::query(sql).fetch_one(&mut *conn).await.map_err(during())?;
        let version: i32 = row.try_get(0).map_err(during())?;
        let (superuser, may_create) = (row.try_get(1).map_err(during())?, row.try_get(2).map_err(during())?);
        let sql = "SELECT datname::text, CASE WHEN has_database_privilege(oid, 'CONNECT') THEN pg_database_size(oid) END \
                   FROM pg_database";
        let rows = sqlx::query(sql).fetch_all(&mut *conn).await.map_err(during())?;
        let sized = rows.iter().map(|row| {
            let bytes: Option<i64> = row.try_get(1)?;
            Ok((row.try_get(0)?, bytes.and_then(|bytes| u64::try_from(bytes).ok())))
        });
        let databases = sized.collect::<Result<_, sqlx::Error>>().map_err(during())?;
        let rows =
            sqlx::query("SELECT spcname::text FROM pg_tablespace").fetch_all(&mut *conn).await.map_err(during())?;
        let tablespaces = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(during())?;
        let major = u32::try_from(version).unwrap_or(0) / 10_000;
        Ok(Self { major, superuser, may_create, databases, tablespaces })
    }
}

/// Checks that the manifest does not contradict itself; gives the archive's number, and what it says of an imported one.
pub(super) fn consistent(snapshot: &Snapshot<'_>) -> Result<(u32, Option<Imported>), RestoreError> {
    let bad = |why: String| RestoreError::Manifest { why };
    let imported = Imported::read(snapshot)?;
    let archive = match &imported {
        Some(imported) => Some(imported.stream),
        None => snapshot.first(StreamKind::PgArchive),
    };
    let archive = archive.ok_or_else(|| bad("it has no archive".to_owned()))?;
    let mut taken: BTreeSet<(u32, Option<u32>)> = BTreeSet::new();
    for entry in snapshot.tables {
        let table = format!("table `{}.{}`", entry.schema, entry.name);
        if RowFormat::parse(&entry.format).is_none() {
            return Err(bad(format!("{table} is in COPY format `{}`, which this version does not load", entry.format)));
        }
        if !entry.types.is_empty() && entry.types.len() != entry.columns.len() {
            return Err(bad(format!("{table} has {} columns and types of {}", entry.columns.len(), entry.types.len())));
        }
        if !entry.encoding.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(bad(format!("`{}`, the encoding of {table}, is not one", entry.encoding)));
        }
        if (entry.kept == Kept::Streamed) == entry.parts.is_empty() {
            return Err(bad(format!("{table} and its parts do not agree on where its rows are")));
        }
        let mut sum = RowSum::default();
        for part in &entry.parts {
            sum.merge(&RowSum { rows: part.rows, fingerprint: part.fingerprint });
            let stream = snapshot.stream(part.stream);
            let found = stream.is_some_and(|stream| match part.member {
                None => stream.kind == StreamKind::PgTable,
                Some(member) => {
                    stream.kind == StreamKind::PgTables && stream.members.iter().any(|known| known.number == member)
                }
            });
            if !found {
                return Err(bad(format!("{table} names stream {}, which does not hold rows of it", part.stream)));
            }
            if !taken.insert((part.stream, part.member)) {
                return Err(bad(format!("{table} shares a part with another table")));
            }
        }
        if entry.kept == Kept::Streamed && sum != (RowSum { rows: entry.rows, fingerprint: entry.fingerprint }) {
            return Err(bad(format!("the parts of {table} do not add up")));
        }
        if !entry.is_covered() {
            return Err(bad(format!("the parts of {table} do not cover it once")));
        }
    }
    Ok((archive, imported))
}

impl Selection {
    pub(super) fn holds(&self, entry: &TableEntry) -> bool {
        match self {
            Self::All => true,
            Self::Schema(schema) => entry.schema == *schema,
            Self::Table { schema, name } => entry.schema == *schema && entry.name == *name,
        }
    }
}
