//! placeholder until merged
use crate::{error::CliError, session::Session};
pub(crate) async fn apply_all(_s: &Session<'_>) -> Result<serde_json::Value, CliError> {
    Ok(serde_json::Value::Null)
}
