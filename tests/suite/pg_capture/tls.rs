//! Captures through TLS. A capture's first session is a connection of our own: it is the one that refuses here.

use std::process::Command;

use backup_core::secret::Secret;
use backup_core::source::postgres::{ConnectOptions, PostgresError, PostgresOptions};
use harness::pg::{Cluster, Options, Stop};

use super::sink::{MemorySink, assert_counts, table};
use super::{options, run};

/// A server that lets nobody in without TLS and a password (SCRAM); its certificate names 127.0.0.1.
fn server() -> Cluster {
    let cluster = Cluster::start_with(Options { password: Some("canary-pw".to_owned()), ..Options::default() });
    cluster.psql("postgres", "CREATE TABLE t AS SELECT i, i * 2.5 AS n FROM generate_series(1, 50000) i");
    let data = cluster.dir().join("data");
    let (ours, strangers) = (cluster.dir().join("ours"), cluster.dir().join("strangers"));
    for authority in [&ours, &strangers] {
        openssl(authority, &["-addext", "basicConstraints=critical,CA:TRUE"]);
    }
    let signed = |name| ["-addext", name, "-addext", "basicConstraints=critical,CA:FALSE"].map(str::to_owned);
    let mut arguments = signed("subjectAltName=IP:127.0.0.1").to_vec();
    for (option, ending) in [("-CA", "crt"), ("-CAkey", "key")] {
        arguments.extend([option.to_owned(), ours.with_extension(ending).display().to_string()]);
    }
    openssl(&data.join("server"), &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    std::fs::write(data.join("pg_hba.conf"), "hostssl all all 127.0.0.1/32 scram-sha-256\n").unwrap();
    cluster.psql("postgres", "ALTER SYSTEM SET ssl = on");
    cluster.restart(Stop::Fast);
    cluster
}

/// Writes `PATH.crt` and `PATH.key`, owned by whoever owns the folder; the server wants its key for itself.
fn openssl(path: &std::path::Path, arguments: &[&str]) {
    let file = |ending: &str| path.with_extension(ending);
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650"])
        .args(["-subj", &format!("/CN={}", path.file_name().unwrap().display())])
        .args(arguments)
        .arg("-keyout")
        .arg(file("key"))
        .arg("-out")
        .arg(file("crt"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let folder = std::fs::metadata(path.parent().unwrap()).unwrap();
    for ending in ["key", "crt"] {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
        std::fs::set_permissions(file(ending), std::fs::Permissions::from_mode(0o600)).unwrap();
        chown(file(ending), Some(folder.uid()), Some(folder.gid())).unwrap();
    }
}

fn with(cluster: &Cluster, parameters: &str) -> PostgresOptions {
    let url = format!("{}?{parameters}", cluster.url("postgres"));
    let connect = ConnectOptions::new(&url, Some(Secret::new("canary-pw"))).unwrap();
    PostgresOptions { connect, ..options(cluster, harness::pg::SUPERUSER, "postgres") }
}

#[tokio::test]
async fn rows_come_through_tls_and_strangers_are_refused() {
    let cluster = server();
    let authority = |name: &str| cluster.dir().join(name).display().to_string();
    let ours = authority("ours.crt");
    for parameters in [
        "sslmode=require".to_owned(),
        format!("sslmode=verify-ca&sslrootcert={ours}"),
        format!("sslmode=verify-full&sslrootcert={ours}"),
    ] {
        let (captured, _) = run(&with(&cluster, &parameters), &MemorySink::default()).await.expect(&parameters);
        assert_counts(&captured);
        assert_eq!(table(&captured, "public", "t").rows, 50_000);
    }
    let strangers = authority("strangers.crt");
    for refused in [
        "sslmode=disable".to_owned(),
        format!("sslmode=require&sslrootcert={strangers}"),
        format!("sslmode=verify-ca&sslrootcert={strangers}"),
        format!("sslmode=verify-full&sslrootcert={strangers}"),
        // No public authority has signed it.
        "sslmode=verify-full".to_owned(),
    ] {
        let error = run(&with(&cluster, &refused), &MemorySink::default()).await.unwrap_err();
        assert!(matches!(error, PostgresError::Connect { .. } | PostgresError::Refused { .. }), "{refused}: {error:?}");
    }
    // Under a name that the certificate does not have.
    let named = |mode: &str| {
        let url = cluster.url("postgres").replace("127.0.0.1", "localhost");
        let url = format!("{url}?sslmode={mode}&sslrootcert={ours}");
        let connect = ConnectOptions::new(&url, Some(Secret::new("canary-pw"))).unwrap();
        PostgresOptions { connect, ..with(&cluster, "sslmode=require") }
    };
    assert!(run(&named("verify-ca"), &MemorySink::default()).await.is_ok());
    let error = run(&named("verify-full"), &MemorySink::default()).await.unwrap_err();
    assert!(matches!(error, PostgresError::Connect { .. }), "{error:?}");
}
