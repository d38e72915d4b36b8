//! Would a capture begin? The questions that cost nothing: does the server answer, do the client programs fit, may every
//! table be read. It takes no lock and reads no row.

use super::clients::Clients;
use super::error::PostgresError;
use super::options::PostgresOptions;
use super::session::{Session, column};
use super::{catalog, large_objects, plan, pooler};

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preflight {
    /// Version of the server, such as `15.18`.
    pub server: String,
    /// Version of the client programs.
    pub clients: String,
    /// Tables, partitioned and foreign tables and sequences, those of the system left out.
    pub relations: usize,
}

/// Asks the server. The error is the one that a capture would end with.
pub async fn preflight(options: &PostgresOptions) -> Result<Preflight, PostgresError> {
    const DURING: &str = "asking the server for its version";
    let mut session = Session::open(&options.connect).await?;
    let sql = "SELECT current_setting('server_version_num')::int8 AS number, \
        pg_catalog.split_part(current_setting('server_version'), ' ', 1) AS version";
    let row = session.one(DURING, sql).await?;
    let number: i64 = column(&row, "number", DURING)?;
    let server = column(&row, "version", DURING)?;
    pooler::refuse(&mut session, &options.connect).await?;
    let relations = catalog::relations(&mut session).await?;
    let objects = large_objects::unreadable(&mut session).await?;
    session.close().await;
    let clients = Clients::find(&options.clients, u32::try_from(number / 10_000).unwrap_or(0)).await?;
    let mut refused = plan::refusals(&relations);
    refused.extend(objects);
    if !refused.is_empty() {
        return Err(PostgresError::NotReadable { user: options.connect.user().to_owned(), objects: refused });
    }
    Ok(Preflight { server, clients: clients.version().to_owned(), relations: relations.len() })
}
