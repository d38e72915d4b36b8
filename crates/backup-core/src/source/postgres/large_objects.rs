//! Large objects: which may not be read, how many there are, what they hold, and what is said about them.
//!
//! `pg_dump` keeps them in the archive, where nobody counts them. So their bytes are read here a second time, in the
//! capture's snapshot and again behind a restore, and summed as rows are. An object is read in slices, as any reader sees
//! it: how the server cut it into pages is no part of it (a hole comes back as zeros). Whether one may be read is
//! the object's own privilege, which `pg_read_all_data` does not give.

use serde_json::{Value, json};

use super::error::PostgresError;
use super::rows::{RowFormat, RowSplitter};
use super::session::{Session, column};
use super::wire::{Answer, CopyError, CopySink, Wire};
use crate::fingerprint::RowSum;
use crate::manifest::Property;

/// Name of the property.
pub(super) const PROPERTY: &str = "large_objects";

/// How many are named in an error.
const NAMED: usize = 20;

/// `oid, number of the slice, bytes`: of an empty object one slice without bytes.
const CONTENTS: &str = "COPY (SELECT m.oid::int8, s.slice, pg_catalog.lo_get(m.oid, s.slice * 1048576, 1048576) \
    FROM pg_catalog.pg_largeobject_metadata m CROSS JOIN LATERAL \
    (SELECT CASE WHEN pg_catalog.lo_close(o.fd) = 0 THEN o.size END AS size FROM \
        (SELECT fd, pg_catalog.lo_lseek64(fd, 0, 2) AS size FROM pg_catalog.lo_open(m.oid, 262144) fd OFFSET 0) o \
    OFFSET 0) z CROSS JOIN LATERAL pg_catalog.generate_series(0::int8, greatest(z.size - 1, 0) / 1048576) s (slice)) \
    TO STDOUT WITH (FORMAT binary)";

/// `oid, owner, privileges, comment`. Who granted a privilege is left out: a restore grants as the owner.
const FACTS: &str = "COPY (SELECT m.oid, pg_catalog.pg_get_userbyid(m.lomowner), (SELECT pg_catalog.string_agg(g.word, ',' \
    ORDER BY g.word COLLATE \"C\") FROM (SELECT DISTINCT CASE a.grantee WHEN 0 THEN '' ELSE \
        pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END || '=' || a.privilege_type || \
        CASE WHEN a.is_grantable THEN '*' ELSE '' END AS word FROM pg_catalog.aclexplode(\
        coalesce(m.lomacl, pg_catalog.acldefault('L', m.lomowner))) a) g), \
    pg_catalog.obj_description(m.oid, 'pg_largeobject') FROM pg_catalog.pg_largeobject_metadata m) TO STDOUT";

/// Large objects that this user may not read, for people: the first of them by number, and how many more.
pub(super) async fn unreadable(session: &mut Session) -> Result<Vec<String>, PostgresError> {
    const DURING: &str = "asking which large objects may be read";
    // Of superusers and where everybody may read everything, nothing is asked of each object.
    let sql = "SELECT NOT r.rolsuper AND pg_catalog.current_setting('lo_compat_privileges') = 'off' AS matters, \
        pg_catalog.to_regprocedure('pg_catalog.has_largeobject_privilege(oid,text)') IS NOT NULL AS asks \
        FROM pg_catalog.pg_roles r WHERE r.rolname = current_user";
    let row = session.one(DURING, sql).await?;
    if !column(&row, "matters", DURING)? {
        return Ok(Vec::new());
    }
    let may = if column(&row, "asks", DURING)? {
        "pg_catalog.has_largeobject_privilege(m.oid, 'SELECT')"
    } else {
        "EXISTS (SELECT FROM pg_catalog.aclexplode(coalesce(m.lomacl, pg_catalog.acldefault('L', m.lomowner))) a \
         WHERE a.privilege_type = 'SELECT' AND CASE a.grantee WHEN 0 THEN true ELSE pg_catalog.pg_has_role(a.grantee, 'USAGE') END)"
    };
    let sql = format!(
        "SELECT m.oid::int8 AS oid, pg_catalog.count(*) OVER () AS objects FROM pg_catalog.pg_largeobject_metadata m \
         WHERE NOT {may} ORDER BY m.oid LIMIT {NAMED}"
    );
    let rows = session.run(DURING, sql).await?;
    let mut out = Vec::new();
    for row in &rows {
        out.push(format!("large object {}", column::<i64>(row, "oid", DURING)?));
    }
    let all: i64 = rows.first().map_or(Ok(0), |row| column(row, "objects", DURING))?;
    match usize::try_from(all).unwrap_or(0).saturating_sub(out.len()) {
        0 => {}
        more => out.push(format!("{more} more large objects")),
    }
    Ok(out)
}

/// What there is of large objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LargeObjects {
    /// How many.
    pub(super) count: u64,
    /// Owner, privileges and comment of each.
    pub(super) facts: Option<RowSum>,
    /// Their bytes.
    pub(super) contents: Option<RowSum>,
}

impl LargeObjects {
    /// Counts and sums them; reads their bytes where `contents` are wanted.
    pub(super) async fn read(wire: &mut Wire, contents: bool) -> Result<Self, PostgresError> {
        let counted = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata";
        let answer = wire.query(counted).await.map_err(PostgresError::during("counting the large objects"))?;
        let count = number(&answer).ok_or_else(|| half("counting the large objects"))?;
        let mut found = Self { count, facts: Some(RowSum::default()), contents: contents.then(RowSum::default) };
        if count > 0 {
            found.facts = Some(summed(wire, FACTS, RowFormat::Text, 4).await?);
            if contents {
                found.contents = Some(summed(wire, CONTENTS, RowFormat::Binary, 3).await?);
            }
        }
        Ok(found)
    }

    /// For the manifest.
    pub(super) fn property(&self) -> Property {
        let text = |sum: Option<RowSum>| sum.map(|sum| sum.fingerprint.to_string());
        let value = json!({
            "count": self.count, "facts": text(self.facts), "contents": text(self.contents),
            "slices": self.contents.map(|sum| sum.rows),
        });
        Property { name: PROPERTY.to_owned(), value }
    }

    /// As a manifest says it; `None` where it says nothing (an import). Older ones know the number alone.
    pub(super) fn captured(properties: &[Property]) -> Option<Self> {
        let value = &properties.iter().find(|property| property.name == PROPERTY)?.value;
        let count = value.get("count").and_then(Value::as_u64)?;
        let sum = |name: &str, rows| {
            let fingerprint = value.get(name)?.as_str()?.parse().ok()?;
            Some(RowSum { rows, fingerprint })
        };
        let contents = value.get("slices").and_then(Value::as_u64).and_then(|slices| sum("contents", slices));
        Some(Self { count, facts: sum("facts", count), contents })
    }

    /// What differs, as far as both sides know it.
    pub(super) fn difference(&self, found: &Self) -> Option<String> {
        let differ = |ours: Option<RowSum>, theirs: Option<RowSum>| ours.zip(theirs).is_some_and(|(a, b)| a != b);
        if self.count != found.count {
            Some(format!("{} captured, {} restored", self.count, found.count))
        } else if differ(self.contents, found.contents) {
            Some(format!("the bytes of at least one of {} are others", self.count))
        } else if differ(self.facts, found.facts) {
            Some(format!("number, owner, privileges or comment of at least one of {} are others", self.count))
        } else {
            None
        }
    }
}

async fn summed(wire: &mut Wire, sql: &str, format: RowFormat, columns: usize) -> Result<RowSum, PostgresError> {
    const DURING: &str = "reading the large objects";
    let mut sum = Sum(RowSplitter::new(format, columns));
    let counted = match wire.copy_out(sql, &mut sum).await {
        Ok(counted) => counted,
        Err(CopyError::Driver(error)) => return Err(PostgresError::during(DURING)(error)),
        Err(CopyError::Sink(never)) => match never {},
    };
    sum.0.finish().filter(|sum| sum.rows == counted).ok_or_else(|| half(DURING))
}

fn half(during: &str) -> PostgresError {
    PostgresError::during(during)(sqlx::Error::Protocol(
        "the server sent something else than what was asked".to_owned(),
    ))
}

fn number(answer: &Answer) -> Option<u64> {
    answer.first()?.first()?.as_deref()?.parse().ok()
}

struct Sum(RowSplitter);

impl CopySink for Sum {
    type Error = std::convert::Infallible;

    fn piece(&mut self, bytes: &[u8]) {
        self.0.feed(bytes);
    }

    fn message_ends(&mut self) {}

    async fn drain(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_is_told_and_older_manifests_know_the_number_alone() {
        let sum = |rows: u64, one: &[u8]| {
            let mut sum = RowSum::default();
            sum.add(one);
            Some(RowSum { rows, ..sum })
        };
        let captured = LargeObjects { count: 2, facts: sum(2, b"a"), contents: sum(3, b"b") };
        assert_eq!(LargeObjects::captured(&[captured.property()]), Some(captured));
        assert_eq!(captured.difference(&captured), None);
        let broken = [
            (LargeObjects { count: 1, ..captured }, "2 captured, 1 restored"),
            (LargeObjects { contents: sum(3, b"x"), ..captured }, "bytes"),
            (LargeObjects { contents: sum(4, b"b"), ..captured }, "bytes"),
            (LargeObjects { facts: sum(2, b"x"), ..captured }, "comment"),
        ];
        for (found, words) in broken {
            let told = captured.difference(&found).unwrap();
            assert!(told.contains(words), "{told}");
        }
        let old = Property { name: PROPERTY.to_owned(), value: json!({"count": 2, "bytes": 7}) };
        let old = LargeObjects::captured(&[old]).unwrap();
        assert_eq!((old.difference(&captured), old.contents), (None, None));
        assert!(old.difference(&LargeObjects { count: 3, ..captured }).is_some());
        assert_eq!(LargeObjects::captured(&[]), None);
    }
}
