//! What a bucket is asked: how often, and that a key that may only list and read can do whatever only reads.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use harness::s3::{Bucket, S3Server};

use super::host::Host;
use super::stack::{files_below, noise};

/// Sources of [`host`].
const SOURCES: usize = 2;

/// A host with one vault in the bucket, and two sources of files.
fn host(bucket: &Bucket) -> Host {
    let host = Host::new();
    for name in ["docs", "more"] {
        fs::create_dir(host.path(name)).unwrap();
        fs::write(host.path(name).join("a.bin"), [name.as_bytes(), &noise(300_000)].concat()).unwrap();
    }
    keys(&host, bucket);
    host.configure(&format!(
        "[vault.far]\ns3 = {{ endpoint = \"{}\", bucket = \"{}\", prefix = \"v\" }}\ncredentials = {{ file = \"s3.env\" }}\n\
         keep = {{ within = \"7d\", min = 2 }}\n[source.docs]\ntype = \"files\"\npaths = [\"docs\"]\n\
         [source.more]\ntype = \"files\"\npaths = [\"more\"]\n",
        bucket.endpoint, bucket.bucket
    ));
    host
}

fn keys(host: &Host, bucket: &Bucket) {
    let keys = format!("AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\n", bucket.access_key, bucket.secret_key);
    fs::write(host.path("s3.env"), keys).unwrap();
    fs::set_permissions(host.path("s3.env"), fs::Permissions::from_mode(0o600)).unwrap();
}

/// Promised of each unchanged source, beside one page of a listing for each thousand objects; whatever a run asks only once
/// is among them.
const EACH: usize = 12;

/// What a run asks whatever it captures: what the endpoint does, and whose vault it is.
const ONCE: [&str; 3] = ["PutObject", "PutObject", "GetObject"];

/// What a source asks: its generation's listing (a page a thousand files), its generations, the snapshots of one (of each that
/// is not closed); inventory, signature, document; whether a prune announced something meanwhile, in two documents.
const OWN: [&str; 8] = [
    "ListObjectsV2",
    "ListObjectsV2",
    "ListObjectsV2",
    "PutObject",
    "PutObject",
    "PutObject",
    "HeadObject",
    "HeadObject",
];

#[test]
fn an_unchanged_source_costs_a_page_a_thousand_objects_and_twelve_requests() {
    let server = S3Server::start().unwrap();
    let host = host(&server.bucket);
    host.good(&["init"]);
    host.good(&["run"]);
    host.good(&["run"]);
    for (args, sources) in [(&["run"][..], SOURCES), (&["run", "--source", "docs"], 1)] {
        server.requests.take();
        host.good(args);
        let asked = server.requests.take();
        let pages = sources;
        assert!(asked.len() <= pages + sources * EACH, "{} requests: {asked:#?}", asked.len());
        // And exactly these: one more is a decision.
        let names: Vec<&str> = asked.iter().map(|(operation, _)| operation.as_str()).collect();
        assert_eq!(names, [&ONCE[..], &OWN.repeat(sources)].concat(), "{asked:#?}");
        // The last word is asked for by name and after the document, whatever the listing before showed.
        let last: Vec<&str> = asked.iter().rev().map(|(_, key)| key.rsplit('/').next().unwrap()).take(3).collect();
        assert!(last[..2] == ["deleting.json", "expired.json"] && last[2].ends_with(".json"), "{last:?}");
    }
}

#[test]
fn who_may_only_read_can_do_all_that_only_reads() {
    let server = S3Server::start().unwrap();
    let host = host(&server.bucket);
    host.good(&["init"]);
    host.good(&["run"]);
    keys(&host, &server.reader());
    let before = files_below(&server.files());
    assert!(server.files().join("v/_probe/body").exists(), "the next run finds it");
    // Fails where what a run leaves for the next one counts as a stranger.
    assert!(!host.good(&["audit", "--json"]).out.contains("_probe"));
    for args in [
        &["list"][..],
        &["status"],
        &["verify"],
        &["verify", "--read-data", "1/1"],
        &["audit", "--read-data", "1/1"],
        &["prune"],
        &["restore", "--latest", "--source", "docs", "--into-dir", "back", "--identity", "ops.txt"],
    ] {
        host.good(args);
    }
    assert!(files_below(&host.path("back")).iter().any(|path| path.ends_with("a.bin")));
    // Another machine pulls with that key, by the bucket's address alone.
    let puller = Host::new();
    fs::create_dir(puller.path("pulled")).unwrap();
    let signers = fs::read_to_string(puller.path("signers")).unwrap();
    fs::write(puller.path("signers"), signers + &fs::read_to_string(host.path("signers")).unwrap()).unwrap();
    puller.configure(&format!("{}[source.docs]\ntype = \"files\"\npaths = [\"docs\"]\n", Host::local("pulled")));
    puller.good(&["init"]);
    let reader = server.reader();
    let address = format!("s3+{}/{}/v", reader.endpoint, reader.bucket);
    let mut pull = puller.command(&["replicate", "--from", &address, "--to", "pulled", "--source", "docs"]);
    pull.env("AWS_ACCESS_KEY_ID", &reader.access_key).env("AWS_SECRET_ACCESS_KEY", &reader.secret_key);
    let ended = super::host::Ended::of(pull.output().unwrap());
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    puller.good(&["verify", "--read-data", "1/1"]);
    let listed = puller.good(&["list", "--json"]).json();
    assert_eq!(listed["snapshots"].as_array().unwrap().len(), 1, "{listed:#}");
    assert_eq!(files_below(&server.files()), before, "the bucket was only read");
    // And what writes is refused, by name.
    let ended = host.run(&["run"]);
    assert!(ended.code == 1 && ended.err.contains("hint:"), "{}{}", ended.out, ended.err);
}
