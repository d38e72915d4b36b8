//! A first backup that is killed goes on where it stopped: what was stored, journalled and is listed is not sent again.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use harness::s3::S3Server;

use super::host::{Host, of_source};
use super::stack::{files_below, noise};

/// Bytes of the source: some twenty objects.
const SOURCE_BYTES: usize = 80 << 20;
/// Objects that are there when the run is killed, and those of them that may have been under way.
const STORED: usize = 10;
const UNDER_WAY: u64 = 6;
const OBJECT_BYTES: u64 = 4 << 20;

fn objects(vault: &Path) -> usize {
    files_below(vault).iter().filter(|path| path.to_str().unwrap().contains("/objects/")).count()
}

/// Kills the first run of a host with `vault` in mid-course, and looks at what the second one sends.
fn killed(host: &Host, vault: &Path) {
    fs::create_dir(host.path("data")).unwrap();
    fs::write(host.path("data/a.bin"), noise(SOURCE_BYTES)).unwrap();
    host.good(&["init"]);
    let mut run = host.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while objects(vault) < STORED {
        assert!(run.try_wait().unwrap().is_none(), "the run ended before it could be killed");
        assert!(began.elapsed() < Duration::from_mins(2), "{} objects", objects(vault));
        std::thread::sleep(Duration::from_millis(2));
    }
    run.kill().unwrap();
    assert!(!run.wait().unwrap().success());
    assert_eq!(host.good(&["list", "--json"]).json()["snapshots"].as_array().unwrap().len(), 0, "nothing is committed");
    let report = host.backup();
    let added = of_source(&report, "docs")["added_bytes"].as_u64().unwrap();
    let most = SOURCE_BYTES as u64 - (STORED as u64 - UNDER_WAY) * OBJECT_BYTES;
    // Fails where the second run opens a generation of its own, or does not believe the journal.
    assert!(added < most + (1 << 20), "{added} bytes were sent again, {most} were to be expected");
    let generations = files_below(vault).iter().filter(|path| path.ends_with("generation.json")).count();
    assert_eq!(generations, 1, "one generation");
    host.good(&["verify", "--identity", "ops.txt"]);
}

const SOURCE: &str = "[source.docs]\ntype = \"files\"\npaths = [\"data\"]\n";

#[test]
fn a_first_backup_into_a_directory_goes_on_where_it_was_killed() {
    let host = Host::new();
    fs::create_dir(host.path("local")).unwrap();
    host.configure(&format!("{}{SOURCE}", Host::local("local")));
    killed(&host, &host.path("local"));
}

#[test]
fn a_first_backup_into_a_bucket_goes_on_where_it_was_killed() {
    let (host, s3) = (Host::new(), S3Server::start().unwrap());
    let bucket = &s3.bucket;
    let keys = format!("AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\n", bucket.access_key, bucket.secret_key);
    fs::write(host.path("s3.env"), keys).unwrap();
    fs::set_permissions(host.path("s3.env"), fs::Permissions::from_mode(0o600)).unwrap();
    host.configure(&format!(
        "[vault.offsite]\ns3 = {{ endpoint = \"{}\", bucket = \"{}\", prefix = \"v\", region = \"{}\", path_style = true }}\n\
         credentials = {{ file = \"s3.env\" }}\nkeep = {{ within = \"7d\", min = 2 }}\n{SOURCE}",
        bucket.endpoint, bucket.bucket, bucket.region
    ));
    killed(&host, &s3.files().join("v"));
}
