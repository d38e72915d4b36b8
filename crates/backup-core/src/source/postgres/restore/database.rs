//! The working database: making it as the captured one was, keeping others out, giving it its final name.
//!
//! Until its last statement it is called `<name>__restoring_<id>` and others cannot enter: with a connection limit of
//! 0, which binds everybody but superusers, when we are one; otherwise by withholding CONNECT, which binds everybody
//! but the owner. (`ALLOW_CONNECTIONS false` would keep out ourselves as well.) Limit, CONNECT and the final name come
//! in one transaction, so no instant exists at which something incomplete carries the name.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};

use super::error::RestoreError;
use super::facts::{AclItem, Facts};
use super::sql::{ident, literal};
use crate::source::postgres::ConnectOptions;
use crate::source::postgres::error::PostgresError;

/// Longest name that PostgreSQL keeps whole, in bytes (`NAMEDATALEN` - 1).
const NAME_BYTES: usize = 63;

/// How long sessions of a replaced database get to end.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// Settings whose value is a list of names (`GUC_LIST_QUOTE`): each element is quoted on its own.
const NAME_LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// `name` + `suffix`, the name shortened so that both fit.
fn fitted(name: &str, suffix: &str) -> String {
    let mut end = name.len().min(NAME_BYTES.saturating_sub(suffix.len()));
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &name[..end])
}

/// What a database is called while it is restored.
pub(super) fn working_name(name: &str, id: &str) -> String {
    fitted(name, &format!("__restoring_{id}"))
}

/// What a replaced database is called afterwards.
pub(super) fn kept_name(name: &str, at: DateTime<Utc>) -> String {
    fitted(name, &format!("__before_{}", at.format("%Y%m%dt%H%M%Sz")))
}

/// Runs statements one by one; each must be fit to stand alone.
pub(super) async fn run(conn: &mut PgConnection, what: &str, statements: &[String]) -> Result<(), PostgresError> {
    for statement in statements {
        let sql = AssertSqlSafe(statement.clone());
        sqlx::raw_sql(sql).execute(&mut *conn).await.map_err(PostgresError::during(what))?;
    }
    Ok(())
}

/// The server that is restored to, as far as it changes what is said to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Server {
    /// Our user there is a superuser.
    pub(super) superuser: bool,
    /// Major version.
    pub(super) major: u32,
}

impl Server {
    /// Event triggers can be switched off for a database: since 17, when some of them also fire at each login.
    fn may_silence_event_triggers(self) -> bool {
        self.superuser && self.major >= 17
    }
}

/// CREATE DATABASE.
pub(super) fn create(facts: &Facts, working: &str, server: Server, tablespace: bool) -> String {
    let mut sql = format!(
        "CREATE DATABASE {} TEMPLATE template0 OWNER {} ENCODING {} LC_COLLATE {} LC_CTYPE {}",
        ident(working),
        ident(&facts.owner),
        literal(&facts.encoding),
        literal(&facts.collate),
        literal(&facts.ctype)
    );
    if let (Some(provider), true) = (&facts.provider, server.major >= 15) {
        let _ = write!(sql, " LOCALE_PROVIDER {}", ident(provider));
        if let Some(locale) = &facts.icu_locale {
            let word = if provider == "builtin" { "BUILTIN_LOCALE" } else { "ICU_LOCALE" };
            let _ = write!(sql, " {word} {}", literal(locale));
        }
        if let (Some(rules), true) = (&facts.icu_rules, server.major >= 16) {
            let _ = write!(sql, " ICU_RULES {}", literal(rules));
        }
    }
    // Naming the default one needs a privilege on it that others than superusers do not have.
    let named = facts.tablespace.as_ref().filter(|name| *name != "pg_default");
    if let (Some(name), true) = (named, tablespace) {
        let _ = write!(sql, " TABLESPACE {}", ident(name));
    }
    if server.superuser {
        sql += " CONNECTION LIMIT 0";
    }
    sql
}

/// Privileges, comment and settings; CONNECT only for a superuser, who relies on the connection limit.
pub(super) fn properties(facts: &Facts, working: &str, server: Server) -> Result<Vec<String>, RestoreError> {
    let database = ident(working);
    let mut out = Vec::new();
    if !server.superuser {
        out.push(format!("REVOKE CONNECT ON DATABASE {database} FROM PUBLIC"));
    }
    if let Some(acl) = &facts.acl {
        out.push(format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC, {}", ident(&facts.owner)));
        out.extend(grants(acl, facts, &database, server.superuser, |letter| letter != 'c' || server.superuser)?);
        if !server.superuser {
            out.push(format!("GRANT CONNECT ON DATABASE {database} TO {}", ident(&facts.owner)));
        }
    }
    if let Some(comment) = &facts.comment {
        out.push(format!("COMMENT ON DATABASE {database} IS {}", literal(comment)));
    }
    for (role, settings) in &facts.settings {
        let subject = match role {
            None => format!("DATABASE {database}"),
            Some(role) => format!("ROLE {} IN DATABASE {database}", ident(role)),
        };
        for setting in settings {
            let why = || RestoreError::Manifest { why: format!("database setting `{setting}` has no `=`") };
            let (name, value) = setting.split_once('=').ok_or_else(why)?;
            out.push(format!("ALTER {subject} SET {} TO {}", setting_name(name), setting_value(name, value)));
        }
    }
    if server.may_silence_event_triggers() {
        // Ours are not sessions that a login trigger should write down. It gets its own value when the name comes.
        out.push(format!("ALTER DATABASE {database} SET event_triggers TO off"));
    }
    Ok(out)
}

/// What lets others in, for the last transaction.
fn opening(facts: &Facts, working: &str, server: Server) -> Result<Vec<String>, RestoreError> {
    let database = ident(working);
    let limit = facts.connection_limit;
    if server.superuser {
        let mut out = vec![format!("ALTER DATABASE {database} CONNECTION LIMIT {limit}")];
        if server.may_silence_event_triggers() {
            let settings = facts.settings.iter().filter(|(role, _)| role.is_none()).flat_map(|(_, settings)| settings);
            let value = settings.filter_map(|setting| setting.strip_prefix("event_triggers=")).next_back();
            let how =
                value.map_or("RESET event_triggers".to_owned(), |v| format!("SET event_triggers TO {}", literal(v)));
            out.push(format!("ALTER DATABASE {database} {how}"));
        }
        if facts.is_template {
            // Not before: a template cannot be dropped when the restore fails.
            out.push(format!("ALTER DATABASE {database} IS_TEMPLATE true"));
        }
        return Ok(out);
    }
    let mut out = match &facts.acl {
        None => vec![format!("GRANT CONNECT ON DATABASE {database} TO PUBLIC")],
        Some(acl) => grants(acl, facts, &database, server.superuser, |letter| letter == 'c')?,
    };
    if limit != -1 {
        out.push(format!("ALTER DATABASE {database} CONNECTION LIMIT {limit}"));
    }
    Ok(out)
}

/// Statements for privileges. A superuser grants each as the role that granted it: it stays revocable by that role.
fn grants(
    acl: &[String],
    facts: &Facts,
    database: &str,
    superuser: bool,
    wanted: impl Fn(char) -> bool,
) -> Result<Vec<String>, RestoreError> {
    let mut out = Vec::new();
    for text in acl {
        let why = || RestoreError::Manifest { why: format!("database privilege `{text}` is not an aclitem") };
        let item = AclItem::parse(text).ok_or_else(why)?;
        let to = if item.grantee.is_empty() { "PUBLIC".to_owned() } else { ident(&item.grantee) };
        for (letter, option) in item.privileges.iter().filter(|(letter, _)| wanted(*letter)) {
            let word = match letter {
                'C' => "CREATE",
                'T' => "TEMPORARY",
                _ => "CONNECT",
            };
            let option = if *option { " WITH GRANT OPTION" } else { "" };
            let grant = format!("GRANT {word} ON DATABASE {database} TO {to}{option}");
            out.push(if superuser && item.grantor != facts.owner {
                let grantor = ident(&item.grantor);
                format!("SET SESSION AUTHORIZATION {grantor}; {grant}; RESET SESSION AUTHORIZATION")
            } else {
                grant
            });
        }
    }
    Ok(out)
}

/// Each part of a dotted setting is a name of its own.
fn setting_name(name: &str) -> String {
    name.split('.').map(ident).collect::<Vec<_>>().join(".")
}

fn setting_value(name: &str, value: &str) -> String {
    if !NAME_LISTS.contains(&name.to_ascii_lowercase().as_str()) {
        return literal(value);
    }
    let mut elements: Vec<String> = Vec::new();
    let (mut current, mut quoted, mut was_quoted) = (String::new(), false, false);
    let mut chars = value.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => current.push('"'),
            '"' => (quoted, was_quoted) = (!quoted, true),
            ',' if !quoted => {
                elements.push(std::mem::take(&mut current));
                was_quoted = false;
            }
            c if c.is_whitespace() && !quoted => {}
            c => current.push(c),
        }
    }
    if was_quoted || !current.is_empty() || elements.is_empty() {
        elements.push(current);
    }
    elements.iter().map(|element| literal(element)).collect::<Vec<_>>().join(", ")
}

/// What stands against replacing a database, asked of the server.
pub(super) async fn obstacles(conn: &mut PgConnection, name: &str) -> Result<Vec<String>, PostgresError> {
    let sql = "SELECT 'prepared transaction ' || quote_literal(gid) FROM pg_prepared_xacts WHERE database = $1 \
               UNION ALL SELECT 'logical replication slot ' || quote_literal(slot_name) FROM pg_replication_slots \
               WHERE database = $1 \
               UNION ALL SELECT 'subscription ' || quote_literal(s.subname) FROM pg_subscription s JOIN pg_database d \
               ON d.oid = s.subdbid WHERE d.datname = $1";
    let without_names = "SELECT 'prepared transaction ' || quote_literal(gid) FROM pg_prepared_xacts \
               WHERE database = $1 \
               UNION ALL SELECT 'logical replication slot ' || quote_literal(slot_name) FROM pg_replication_slots \
               WHERE database = $1";
    let during = || PostgresError::during(format!("looking for what is tied to database {}", ident(name)));
    let may_see: bool = sqlx::query_scalar(
        "SELECT has_column_privilege('pg_subscription', 'subname', 'SELECT') AND \
                            has_column_privilege('pg_subscription', 'subdbid', 'SELECT')",
    )
    .fetch_one(&mut *conn)
    .await
    .map_err(during())?;
    let query = sqlx::query(if may_see { sql } else { without_names }).bind(name);
    let rows = query.fetch_all(&mut *conn).await.map_err(during())?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(during())
}

/// Gives the working database its final name, when no database has it. The commit waits for the disk: it is the one
/// that makes everything before it durable.
pub(super) async fn finish(
    conn: &mut PgConnection,
    facts: &Facts,
    working: &str,
    name: &str,
    server: Server,
) -> Result<(), RestoreError> {
    let mut statements = vec!["BEGIN; SET LOCAL synchronous_commit = on".to_owned()];
    statements.extend(opening(facts, working, server)?);
    statements.push(format!("ALTER DATABASE {} RENAME TO {}", ident(working), ident(name)));
    statements.push("COMMIT".to_owned());
    let done = run(conn, &format!("giving database {} its name {}", ident(working), ident(name)), &statements).await;
    if done.is_err() {
        // The transaction is over in any case; a session that is lost ends it by itself.
        let _ = sqlx::raw_sql("ROLLBACK").execute(&mut *conn).await;
    }
    Ok(done?)
}

/// Swaps: `name` becomes `kept`, the working database becomes `name`, in one transaction. Nobody can enter the old
/// one while its sessions end; afterwards it can be entered again, under whatever name it then has.
pub(super) async fn replace(
    conn: &mut PgConnection,
    maintenance: &ConnectOptions,
    facts: &Facts,
    working: &str,
    name: &str,
    kept: &str,
    server: Server,
) -> Result<(), RestoreError> {
    let allow = |database: &str, yes: bool| format!("ALTER DATABASE {} ALLOW_CONNECTIONS {yes}", ident(database));
    let closing = format!("closing database {} to new sessions", ident(name));
    run(conn, &closing, &[allow(name, false)]).await?;
    let swapped = swap(conn, facts, working, name, kept, server).await;
    if swapped.is_err() {
        let _ = sqlx::raw_sql("ROLLBACK").execute(&mut *conn).await;
    }
    let now_called = if swapped.is_ok() { kept } else { name };
    let opened = match run(conn, "opening the database again", &[allow(now_called, true)]).await {
        Ok(()) => Ok(()),
        // The session may be what broke: a new one is tried before giving up.
        Err(_) => reopen(maintenance, &allow(now_called, true)).await,
    };
    match (swapped, opened) {
        (swapped, Ok(())) => swapped,
        (Ok(()), Err(source)) => Err(RestoreError::Closed {
            database: now_called.to_owned(),
            remedy: allow(now_called, true),
            what: "the swap is done".to_owned(),
            source,
        }),
        (Err(error), Err(source)) => Err(RestoreError::Closed {
            database: now_called.to_owned(),
            remedy: allow(now_called, true),
            what: error.to_string(),
            source,
        }),
    }
}

async fn reopen(maintenance: &ConnectOptions, statement: &str) -> Result<(), PostgresError> {
    let mut last = None;
    for _ in 0..5 {
        let attempt = async {
            let mut conn = super::session::open_maintenance(maintenance).await?;
            run(&mut conn, "opening the database again", &[statement.to_owned()]).await
        };
        match attempt.await {
            Ok(()) => return Ok(()),
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    }
    last.map_or(Ok(()), Err)
}

async fn swap(
    conn: &mut PgConnection,
    facts: &Facts,
    working: &str,
    name: &str,
    kept: &str,
    server: Server,
) -> Result<(), RestoreError> {
    end_sessions(conn, name).await?;
    // Asked again: between the plan and now hours may lie.
    let tied = obstacles(conn, name).await?;
    if !tied.is_empty() {
        let refusals = tied.iter().map(|what| format!("{what} is tied to database {}", ident(name))).collect();
        return Err(RestoreError::Refused { refusals });
    }
    let mut statements = vec!["BEGIN; SET LOCAL synchronous_commit = on".to_owned()];
    statements.push(format!("ALTER DATABASE {} RENAME TO {}", ident(name), ident(kept)));
    statements.extend(opening(facts, working, server)?);
    statements.push(format!("ALTER DATABASE {} RENAME TO {}", ident(working), ident(name)));
    statements.push("COMMIT".to_owned());
    Ok(run(conn, &format!("replacing database {}", ident(name)), &statements).await?)
}

/// Removes the subscriptions of the database of this session, because a database with one cannot be dropped. Their slots
/// are forgotten first: they belong to the captured database, and the publisher must not lose them.
pub(super) async fn drop_subscriptions(conn: &mut PgConnection) -> Result<(), PostgresError> {
    let during = || PostgresError::during("dropping the subscriptions of a restore that failed");
    let sql = "SELECT subname::text FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid \
               WHERE d.datname = pg_catalog.current_database()";
    let may_see = "SELECT pg_catalog.has_table_privilege('pg_catalog.pg_subscription', 'SELECT')";
    if !sqlx::query_scalar::<_, bool>(may_see).fetch_one(&mut *conn).await.map_err(during())? {
        return Ok(());
    }
    for row in sqlx::query(sql).fetch_all(&mut *conn).await.map_err(during())? {
        let name = ident(row.try_get(0).map_err(during())?);
        let statements =
            [format!("ALTER SUBSCRIPTION {name} SET (slot_name = NONE)"), format!("DROP SUBSCRIPTION {name}")];
        run(conn, "dropping the subscriptions of a restore that failed", &statements).await?;
    }
    Ok(())
}

async fn end_sessions(conn: &mut PgConnection, name: &str) -> Result<(), RestoreError> {
    let during = || PostgresError::during(format!("ending the sessions of database {}", ident(name)));
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let sql = "SELECT count(*), count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1";
        let row = sqlx::query(sql).bind(name).fetch_one(&mut *conn).await.map_err(during())?;
        let sessions: i64 = row.try_get(0).map_err(during())?;
        if sessions == 0 {
            return Ok(());
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(RestoreError::Busy { database: name.to_owned(), sessions });
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_stay_whole_characters() {
        assert_eq!(working_name("db", "abc"), "db__restoring_abc");
        let long = "é".repeat(40);
        let name = working_name(&long, "0123456789ab");
        assert!(name.len() <= NAME_BYTES && name.ends_with("é__restoring_0123456789ab"), "{name}");
        let at = DateTime::from_timestamp(0, 0).expect("an instant");
        assert_eq!(kept_name("db", at), "db__before_19700101t000000z");
        assert!(kept_name(&long, at).len() <= NAME_BYTES);
    }

    #[test]
    fn lists_of_names_are_quoted_one_by_one() {
        assert_eq!(setting_value("search_path", "\"$user\", app, \"a, \"\"b\""), "'$user', 'app', 'a, \"b'");
        assert_eq!(setting_value("search_path", "\"\""), "''");
        assert_eq!(setting_value("work_mem", "8MB"), "'8MB'");
        assert_eq!(setting_name("app.x"), "\"app\".\"x\"");
    }
}
