//! S3 endpoints that fail. The other vault takes the snapshots, so a run is partial: exit 3.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use harness::proxy::{Fault, Proxy};

use super::{RUN, Row, Stack, assert_said, check, configured, replaced, snapshots};

#[test]
fn an_s3_vault_that_fails_makes_a_run_partial() {
    let stack = impatient();
    check(&stack, ROWS);
}

#[test]
fn busy_answers_are_tried_again_and_counted() {
    let stack = Stack::ready();
    let proxy = Proxy::start(stack.s3.addr()).unwrap();
    stack.configure(&stack.s3.bucket.endpoint, &proxy.endpoint());
    proxy.script([Fault::Answer503; 4]);
    stack.run().expect(0);
    assert_eq!(proxy.left(), 0, "not every fault was met");
    assert_eq!(snapshots(&stack).len(), 4, "two sources in two vaults");
}

#[test]
fn an_upload_that_is_cut_is_done_again() {
    let stack = Stack::ready();
    let proxy = Proxy::start(stack.s3.addr()).unwrap();
    stack.configure(&stack.s3.bucket.endpoint, &proxy.endpoint());
    // No such connection can carry a whole object of 1.4 MB, and more are made than copies are under way at once: the
    // cut falls into the body of such an object, wherever it is sent.
    proxy.script([Fault::CutUpstream(700_000); 10]);
    stack.run().expect(0);
    let heads = proxy.heads();
    let mut puts: Vec<&str> =
        heads.iter().filter(|head| head.starts_with("PUT ")).filter_map(|head| head.lines().next()).collect();
    let objects = |line: &&str| line.contains("/objects/");
    let attempts = puts.iter().filter(|line| objects(line)).count();
    puts.sort_unstable();
    puts.dedup();
    let names = puts.iter().filter(|line| objects(line)).count();
    assert!(attempts > names, "{attempts} attempts for {names} objects: none was repeated");
    let looked = stack.backup(&["verify", "--vault", "offsite", "--read-data", "1/1"]).expect(0);
    assert!(looked.stdout.contains("good"), "{}", looked.stdout);
}

#[test]
fn an_endpoint_that_is_busy_for_ever_is_given_up() {
    let stack = impatient();
    let proxy = Proxy::start(stack.s3.addr()).unwrap();
    proxy.script(std::iter::repeat_n(Fault::Answer503, 2000));
    let endpoint = stack.s3.bucket.endpoint.clone();
    stack.configure(&endpoint, &proxy.endpoint());
    let out = stack.run();
    assert_said(&stack, "busy for ever", &out, 3, &["SlowDown", "attempts"], "can be reached");
    let tried = proxy.heads().len();
    assert!((2..200).contains(&tried), "{tried} attempts in two seconds");
    assert!(snapshots(&stack).iter().all(|path| path.starts_with(stack.vault("local"))));
    // Only one vault, and it does not answer: nothing could be stored, and that is no partial success.
    let local = stack.text("local");
    std::fs::rename(&local, stack.path("away")).unwrap();
    let out = stack.run();
    assert_said(&stack, "no vault", &out, 10, &["local is not there"], "mount the directory");
    std::fs::rename(stack.path("away"), &local).unwrap();
    stack.configure(&proxy.endpoint(), &endpoint);
    stack.run().expect(0);
}

/// Answers one request as if its bucket did not exist.
fn no_such_bucket(mut client: &TcpStream) -> std::io::Result<()> {
    let (mut reader, mut length, mut line) = (BufReader::new(client), 0, String::new());
    while reader.read_line(&mut line)? > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    let body = "<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>not here</Message></Error>";
    let head = "HTTP/1.1 404 Not Found\r\ncontent-type: application/xml\r\nconnection: close";
    write!(client, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A stack that gives up on an endpoint after two seconds, not three minutes.
fn impatient() -> Stack {
    let stack = Stack::ready();
    stack.configure("reserve = \"0%\"", "reserve = \"0%\", patience = \"2s\"");
    stack
}

/// What every run stores while the S3 vault is away.
const LOCAL: &[&str] = &["local/db", "local/docs"];

const ROWS: &[Row] = &[
    Row {
        name: "S3 down",
        breaks: |stack| {
            let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            configured(stack, &stack.s3.bucket.endpoint, &format!("http://{closed}"))
        },
        call: RUN,
        exit: 3,
        says: &["s3://vault/v at http://127.0.0.1:", "attempts", "refused"],
        hint: "check that the vault can be reached",
        stores: LOCAL,
    },
    Row {
        name: "S3 down, for list",
        breaks: |stack| {
            let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            configured(stack, &stack.s3.bucket.endpoint, &format!("http://{closed}"))
        },
        call: &["list", "--vault", "offsite"],
        exit: 10,
        says: &["no vault answers: `offsite`: ", "s3://vault/v at http://127.0.0.1:", "refused"],
        hint: "check that the vault can be reached",
        stores: &[],
    },
    Row {
        name: "wrong secret",
        breaks: |stack| {
            let key = &stack.s3.bucket.access_key;
            replaced(stack, "etc/s3.env", &format!("AWS_ACCESS_KEY_ID={key}\nAWS_SECRET_ACCESS_KEY=wrong\n"))
        },
        call: RUN,
        exit: 3,
        says: &["s3://vault/v at http://127.0.0.1:", "refused", "SignatureDoesNotMatch"],
        hint: "check the vault's credentials",
        stores: LOCAL,
    },
    Row {
        name: "wrong secret, for list",
        breaks: |stack| {
            let key = &stack.s3.bucket.access_key;
            replaced(stack, "etc/s3.env", &format!("AWS_ACCESS_KEY_ID={key}\nAWS_SECRET_ACCESS_KEY=wrong\n"))
        },
        call: &["list", "--vault", "offsite"],
        exit: 10,
        says: &["no vault answers: `offsite`: ", "SignatureDoesNotMatch"],
        hint: "check the vault's credentials",
        stores: &[],
    },
    Row {
        name: "wrong access key",
        breaks: |stack| {
            let key = &stack.s3.bucket.secret_key;
            replaced(stack, "etc/s3.env", &format!("AWS_ACCESS_KEY_ID=nobody\nAWS_SECRET_ACCESS_KEY={key}\n"))
        },
        call: RUN,
        exit: 3,
        says: &["s3://vault/v at http://127.0.0.1:", "refused"],
        hint: "check the vault's credentials",
        stores: LOCAL,
    },
    // Our server makes a bucket by writing into it; so this one is there and empty, and no vault is made in it.
    Row {
        name: "another bucket",
        breaks: |stack| configured(stack, "bucket = \"vault\"", "bucket = \"nope\""),
        call: RUN,
        exit: 3,
        says: &["there is no vault in s3://nope/v"],
        hint: "`backup init`",
        stores: LOCAL,
    },
    // What other servers answer, and Amazon's.
    Row {
        name: "missing bucket",
        breaks: |stack| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            std::thread::spawn(move || listener.incoming().flatten().try_for_each(|client| no_such_bucket(&client)));
            configured(stack, &stack.s3.bucket.endpoint, &format!("http://{address}"))
        },
        call: RUN,
        exit: 3,
        says: &["s3://vault/v", "no such bucket"],
        hint: "create the bucket",
        stores: LOCAL,
    },
    Row {
        name: "credentials that are none",
        breaks: |stack| replaced(stack, "etc/s3.env", "AWS_SECRET_ACCESS_KEY=x\n"),
        call: RUN,
        exit: 3,
        says: &["`vault.offsite.credentials`"],
        hint: "`AWS_ACCESS_KEY_ID=…`",
        stores: LOCAL,
    },
];
