//! Credentials for S3, and the two texts in which they come: lines of an environment file, and the JSON that
//! `credential_process` programs of AWS print. Where the text comes from (file, environment, command) is the caller's
//! business; nothing of it is repeated in an error.

use serde::Deserialize;

use crate::secret::Secret;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum S3Credentials {
    /// Keys that the caller has.
    Static {
        /// Public half.
        access_key_id: String,
        /// Secret half.
        secret_access_key: Secret,
        /// For temporary credentials.
        session_token: Option<Secret>,
    },
    /// Whatever AWS's tools would find on this machine: environment, profiles, roles.
    AwsChain,
}

/// Why a text holds no credentials. Names lines and keys, never values.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CredentialsError {
    /// A line is neither a comment nor `NAME=value`.
    #[error("line {line} of the credentials is not `NAME=value`")]
    Line {
        /// Counted from 1.
        line: usize,
    },
    /// A needed name is absent or empty.
    #[error("`{name}` is missing in the credentials")]
    Missing {
        /// Which.
        name: &'static str,
    },
    /// A name occurs twice.
    #[error("`{name}` is given twice in the credentials")]
    Twice {
        /// Which.
        name: &'static str,
    },
    /// The text begins with `{` and is not what `credential_process` prints.
    #[error("credentials in JSON cannot be read at line {line}, column {column}")]
    Json {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// A version other than 1.
    #[error("credentials in JSON have `Version` {version} instead of 1")]
    Version {
        /// As found.
        version: u64,
    },
}

const ACCESS: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
const TOKEN: &str = "AWS_SESSION_TOKEN";

/// Reads either form; which one is told by its first sign. Other names in an environment file are passed over, so that
/// a file that is shared with other tools works. `export` before a name and quotes around a value are taken off.
pub fn parse_credentials(text: &str) -> Result<S3Credentials, CredentialsError> {
    if text.trim_start().starts_with('{') { parse_json(text) } else { parse_lines(text) }
}

fn parse_lines(text: &str) -> Result<S3Credentials, CredentialsError> {
    let (mut access, mut secret, mut token) = (None, None, None);
    for (line, content) in (1..).zip(text.lines().map(str::trim)) {
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let content = content.strip_prefix("export ").map_or(content, str::trim_start);
        let (name, value) = content.split_once('=').ok_or(CredentialsError::Line { line })?;
        let (slot, name) = match name.trim_end() {
            ACCESS => (&mut access, ACCESS),
            SECRET => (&mut secret, SECRET),
            TOKEN => (&mut token, TOKEN),
            _ => continue,
        };
        if slot.replace(Secret::new(unquoted(value.trim()))).is_some() {
            return Err(CredentialsError::Twice { name });
        }
    }
    whole(access, secret, token, [ACCESS, SECRET])
}

fn unquoted(value: &str) -> &str {
    let inside = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    inside('"').or_else(|| inside('\'')).unwrap_or(value)
}

/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html>
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ProcessOutput {
    version: u64,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    session_token: Option<String>,
}

fn parse_json(text: &str) -> Result<S3Credentials, CredentialsError> {
    // The parser's own message may quote a value, its place cannot.
    let output: ProcessOutput = serde_json::from_str(text)
        .map_err(|error| CredentialsError::Json { line: error.line(), column: error.column() })?;
    if output.version != 1 {
        return Err(CredentialsError::Version { version: output.version });
    }
    whole(
        output.access_key_id.map(Secret::new),
        output.secret_access_key.map(Secret::new),
        output.session_token.map(Secret::new),
        ["AccessKeyId", "SecretAccessKey"],
    )
}

fn whole(
    access: Option<Secret>,
    secret: Option<Secret>,
    token: Option<Secret>,
    names: [&'static str; 2],
) -> Result<S3Credentials, CredentialsError> {
    let needed = |value: Option<Secret>, name| {
        value.filter(|value| !value.reveal().is_empty()).ok_or(CredentialsError::Missing { name })
    };
    Ok(S3Credentials::Static {
        access_key_id: needed(access, names[0])?.reveal().to_owned(),
        secret_access_key: needed(secret, names[1])?,
        session_token: token.filter(|token| !token.reveal().is_empty()),
    })
}

#[cfg(test)]
mod tests {

    use super::*;

    fn keys(access: &str, secret: &str, token: Option<&str>) -> S3Credentials {
        S3Credentials::Static {
            access_key_id: access.to_owned(),
            secret_access_key: Secret::new(secret),
            session_token: token.map(Secret::new),
        }
    }

    #[test]
    fn lines_of_an_environment_file() {
        let plain = "# keys\nAWS_ACCESS_KEY_ID=AK\r\nAWS_SECRET_ACCESS_KEY=a/b+c=\nOTHER=x\n\n";
        assert_eq!(parse_credentials(plain).unwrap(), keys("AK", "a/b+c=", None));
        let dressed = "export AWS_ACCESS_KEY_ID=\"AK\"\nAWS_SECRET_ACCESS_KEY='s'\nAWS_SESSION_TOKEN=t";
        assert_eq!(parse_credentials(dressed).unwrap(), keys("AK", "s", Some("t")));
    }

    #[test]
    fn json_of_a_credential_process() {
        let text = r#" {"Version":1,"AccessKeyId":"AK","SecretAccessKey":"s","SessionToken":"t","Expiration":"2030"}"#;
        assert_eq!(parse_credentials(text).unwrap(), keys("AK", "s", Some("t")));
    }

    #[test]
    fn bad_texts_are_refused_without_their_values() {
        use CredentialsError as E;
        for (text, expected) in [
            ("", E::Missing { name: ACCESS }),
            ("AWS_ACCESS_KEY_ID=AK\nAWS_SECRET_ACCESS_KEY=\n", E::Missing { name: SECRET }),
            ("AWS_ACCESS_KEY_ID=AK\nc4n4ry", E::Line { line: 2 }),
            ("AWS_ACCESS_KEY_ID=A\nAWS_ACCESS_KEY_ID=c4n4ry", E::Twice { name: ACCESS }),
            (r#"{"Version":2,"AccessKeyId":"c4n4ry"}"#, E::Version { version: 2 }),
            (r#"{"Version":1,"AccessKeyId":"AK"}"#, E::Missing { name: "SecretAccessKey" }),
            (r#"{"Version":"c4n4ry"}"#, E::Json { line: 1, column: 19 }),
        ] {
            let error = parse_credentials(text).unwrap_err();
            assert_eq!(error, expected, "{text}");
            assert!(!error.to_string().contains("c4n4ry") && !format!("{error:?}").contains("c4n4ry"), "{error}");
        }
    }
}
