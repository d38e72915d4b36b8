//! Roles: what a script of `pg_dumpall --globals-only` holds, and which of it is missing on a server.
//!
//! A role that exists is never altered: on the server that we restore to somebody relies on it as it is. So a script
//! is not executed but read, and only what belongs to a missing role is taken from it. Memberships are granted when
//! one side is new; one that is missing between two existing roles is told, not granted. `GRANTED BY` is tried and then
//! left out: the grantor of another server need not exist here, and from PostgreSQL 16 must hold ADMIN OPTION.
//!
//! Statements hold password hashes: none of them is ever put into a message.

use std::collections::BTreeSet;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};

use super::sql::{Statement, ident, statements};
use crate::source::postgres::error::PostgresError;

/// What a script of globals defines.
#[derive(Default)]
pub(super) struct Globals {
    roles: Vec<Role>,
    memberships: Vec<Membership>,
    /// Names of tablespaces.
    pub(super) tablespaces: Vec<String>,
}

struct Role {
    name: String,
    statements: Vec<String>,
}

struct Membership {
    role: String,
    member: String,
    statement: String,
    /// Without the grantor.
    plain: String,
}

/// What of the globals has to be done on one server.
#[derive(Default, Clone)]
pub(super) struct MissingRoles {
    /// Names of the roles to create.
    pub(super) roles: Vec<String>,
    /// Memberships to grant, as (role, member).
    pub(super) memberships: Vec<(String, String)>,
    /// Memberships that are missing between existing roles and stay so.
    pub(super) not_granted: Vec<(String, String)>,
    statements: Vec<ToRun>,
}

/// One statement that is missing.
#[derive(Clone)]
struct ToRun {
    /// Whom it is about, for messages.
    role: String,
    statement: String,
    /// What is tried when the statement fails.
    otherwise: Option<String>,
}

impl Globals {
    /// Reads a script.
    pub(super) fn parse(script: &str) -> Self {
        let mut globals = Self::default();
        for statement in statements(script) {
            globals.take(&statement);
        }
        globals
    }

    fn take(&mut self, statement: &Statement) {
        let name = |at: usize| statement.tokens.get(at).map(|token| token.text.clone()).unwrap_or_default();
        if statement.begins(&["CREATE", "ROLE"]) {
            self.roles.push(Role { name: name(2), statements: vec![statement.text.clone()] });
        } else if statement.begins(&["ALTER", "ROLE"]) && statement.position("IN").is_none_or(|at| at != 3) {
            self.belongs_to(&name(2), statement);
        } else if statement.begins(&["COMMENT", "ON", "ROLE"]) {
            self.belongs_to(&name(3), statement);
        } else if statement.begins(&["SECURITY", "LABEL"]) {
            let of = statement.position("ROLE").map(|at| name(at + 1)).unwrap_or_default();
            self.belongs_to(&of, statement);
        } else if statement.begins(&["GRANT"]) && statement.position("TO") == Some(2) {
            let end = statement.position("GRANTED").map_or(statement.text.len(), |at| statement.tokens[at].start);
            let plain = statement.text[..end].trim_end().to_owned();
            let statement = statement.text.clone();
            self.memberships.push(Membership { role: name(1), member: name(3), statement, plain });
        } else if statement.begins(&["GRANT"]) && statement.position("PARAMETER").is_some() {
            let to = statement.tokens.iter().rposition(|token| !token.quoted && token.text == "TO");
            let to = to.map(|at| name(at + 1)).unwrap_or_default();
            self.belongs_to(&to, statement);
        } else if statement.begins(&["CREATE", "TABLESPACE"]) {
            self.tablespaces.push(name(2));
        }
    }

    fn belongs_to(&mut self, role: &str, statement: &Statement) {
        if let Some(role) = self.roles.iter_mut().find(|known| known.name == role) {
            role.statements.push(statement.text.clone());
        }
    }

    /// Compares with what a server has.
    pub(super) fn missing(&self, roles: &BTreeSet<String>, memberships: &BTreeSet<(String, String)>) -> MissingRoles {
        let mut missing = MissingRoles::default();
        for role in self.roles.iter().filter(|role| !roles.contains(&role.name)) {
            missing.roles.push(role.name.clone());
            let run = |text: &String| ToRun { role: role.name.clone(), statement: text.clone(), otherwise: None };
            missing.statements.extend(role.statements.iter().map(run));
        }
        for grant in &self.memberships {
            let pair = (grant.role.clone(), grant.member.clone());
            if memberships.contains(&pair) {
                continue;
            }
            if roles.contains(&grant.role) && roles.contains(&grant.member) {
                missing.not_granted.push(pair);
            } else {
                let (role, statement) = (grant.member.clone(), grant.statement.clone());
                let otherwise = Some(grant.plain.clone()).filter(|plain| *plain != statement);
                missing.statements.push(ToRun { role, statement, otherwise });
                // The same membership may have been granted by several roles.
                if !missing.memberships.contains(&pair) {
                    missing.memberships.push(pair);
                }
            }
        }
        missing
    }
}

impl MissingRoles {
    /// Creates the roles and grants the memberships, all or nothing.
    pub(super) async fn create(&self, conn: &mut PgConnection, superuser: bool) -> Result<(), PostgresError> {
        if self.statements.is_empty() {
            return Ok(());
        }
        // Statements hold password hashes; a server that logs statements must not write them down.
        let quiet = "SET LOCAL log_statement = 'none'; SET LOCAL log_min_duration_statement = -1; \
                     SET LOCAL log_min_error_statement = 'panic';";
        let begin = format!("BEGIN; {}", if superuser { quiet } else { "" });
        sqlx::raw_sql(AssertSqlSafe(begin))
            .execute(&mut *conn)
            .await
            .map_err(PostgresError::during("creating roles"))?;
        for ToRun { role, statement, otherwise } in &self.statements {
            let text = |text: &String| if superuser { text.clone() } else { without_superuser_words(text) };
            let during = PostgresError::during(format!("creating role {}", ident(role)));
            let Some(otherwise) = otherwise else {
                sqlx::raw_sql(AssertSqlSafe(text(statement))).execute(&mut *conn).await.map_err(during)?;
                continue;
            };
            let tried = format!("SAVEPOINT before; {}; RELEASE SAVEPOINT before", text(statement));
            if sqlx::raw_sql(AssertSqlSafe(tried)).execute(&mut *conn).await.is_err() {
                let plain = format!("ROLLBACK TO SAVEPOINT before; {}; RELEASE SAVEPOINT before", text(otherwise));
                sqlx::raw_sql(AssertSqlSafe(plain)).execute(&mut *conn).await.map_err(during)?;
            }
        }
        sqlx::raw_sql("COMMIT").execute(&mut *conn).await.map_err(PostgresError::during("creating roles"))?;
        Ok(())
    }
}

/// Only a superuser may mention these attributes, even to say the default.
fn without_superuser_words(statement: &str) -> String {
    let (attributes, password) = statement.split_at(statement.find(" PASSWORD '").unwrap_or(statement.len()));
    let mut text = attributes.to_owned();
    for word in [" NOSUPERUSER", " NOREPLICATION", " NOBYPASSRLS"] {
        text = text.replacen(word, "", 1);
    }
    format!("{text}{password}")
}

/// Roles and memberships, as (role, member), of a server.
pub(super) type Known = (BTreeSet<String>, BTreeSet<(String, String)>);

/// Asks a server what it has.
pub(super) async fn known(conn: &mut PgConnection) -> Result<Known, PostgresError> {
    let during = || PostgresError::during("listing the roles");
    let rows = sqlx::query("SELECT rolname::text FROM pg_roles").fetch_all(&mut *conn).await.map_err(during())?;
    let roles = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(during())?;
    let sql = "SELECT r.rolname::text, m.rolname::text FROM pg_auth_members a \
               JOIN pg_roles r ON r.oid = a.roleid JOIN pg_roles m ON m.oid = a.member";
    let rows = sqlx::query(sql).fetch_all(&mut *conn).await.map_err(during())?;
    let pairs = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    Ok((roles, pairs.collect::<Result<_, sqlx::Error>>().map_err(during())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "\\restrict abc\nSET client_encoding = 'UTF8';\nCREATE ROLE app;\n\
        ALTER ROLE app WITH NOSUPERUSER LOGIN NOREPLICATION PASSWORD 'SCRAM NOSUPERUSER';\n\
        ALTER ROLE app SET search_path TO 'a';\nALTER ROLE app IN DATABASE d SET work_mem TO '1MB';\n\
        CREATE ROLE \"Group; 1\";\nCOMMENT ON ROLE \"Group; 1\" IS 'x';\nCREATE ROLE postgres;\nCREATE ROLE old;\n\
        GRANT \"Group; 1\" TO app WITH ADMIN OPTION GRANTED BY postgres;\nGRANT old TO postgres GRANTED BY postgres;\n\
        CREATE TABLESPACE fast OWNER app LOCATION '/x';\nGRANT CREATE ON TABLESPACE fast TO app;\n\
        GRANT SET ON PARAMETER work_mem TO app WITH GRANT OPTION;\nGRANT SET ON PARAMETER work_mem TO old;\n";

    #[test]
    fn only_what_belongs_to_missing_roles_is_taken() {
        let globals = Globals::parse(SCRIPT);
        let have = ["postgres", "old"].map(str::to_owned).into();
        let missing = globals.missing(&have, &BTreeSet::new());
        assert_eq!(missing.roles, ["app", "Group; 1"]);
        assert_eq!(missing.memberships, [("Group; 1".to_owned(), "app".to_owned())]);
        assert_eq!(missing.not_granted, [("old".to_owned(), "postgres".to_owned())]);
        assert_eq!(globals.tablespaces, ["fast"]);
        let texts: Vec<&str> = missing.statements.iter().map(|run| run.statement.as_str()).collect();
        assert_eq!(texts.len(), 7, "{texts:?}");
        assert_eq!(texts[3], "GRANT SET ON PARAMETER work_mem TO app WITH GRANT OPTION");
        assert_eq!(texts[6], "GRANT \"Group; 1\" TO app WITH ADMIN OPTION GRANTED BY postgres");
        assert_eq!(missing.statements[6].otherwise.as_deref(), Some("GRANT \"Group; 1\" TO app WITH ADMIN OPTION"));
        let texts = &texts[..6];
        assert!(!texts.iter().any(|text| text.contains("IN DATABASE") || text.contains("postgres")), "{texts:?}");
        assert_eq!(without_superuser_words(texts[1]), "ALTER ROLE app WITH LOGIN PASSWORD 'SCRAM NOSUPERUSER'");
    }

    #[test]
    fn existing_roles_are_left_alone() {
        let have = ["postgres", "old", "app", "Group; 1"].map(str::to_owned).into();
        let missing = Globals::parse(SCRIPT).missing(&have, &BTreeSet::new());
        assert!(missing.statements.is_empty() && missing.roles.is_empty());
        assert_eq!(missing.not_granted.len(), 2);
    }
}
