//! `verify --repair` by the real binary: over two directories, over a directory and a bucket.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use harness::s3::S3Server;

use super::host::Host;
use super::stack::{files_below, noise};

const SOURCE: &str = "[source.docs]\ntype = \"files\"\npaths = [\"data\"]\n";

/// A host with a file to capture, one run, and the vaults `local` and `offsite`.
fn host(offsite: &str) -> Host {
    let host = Host::new();
    for name in ["data", "local", "offsite"] {
        fs::create_dir(host.path(name)).unwrap();
    }
    fs::write(host.path("data/a.bin"), noise(1_200_000)).unwrap();
    fs::write(host.path("data/small.txt"), "hello").unwrap();
    host.configure(&format!("{}{offsite}{SOURCE}", Host::local("local")));
    host.good(&["init"]);
    host.good(&["run"]);
    host
}

/// A file of the vault whose path has this in it.
fn one(vault: &Path, part: &str, end: &str) -> PathBuf {
    let mut found = files_below(vault);
    found.retain(|path| {
        let text = path.to_str().unwrap();
        text.contains(part) && text.ends_with(end) && !text.contains("_damaged")
    });
    found.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
    found.into_iter().next().unwrap_or_else(|| panic!("nothing like `{part}…{end}`"))
}

fn replace(path: &Path, body: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, body).unwrap();
}

fn content(vault: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = files_below(vault);
    files.retain(|path| !path.starts_with(vault.join("_damaged")));
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn everything_that_another_vault_has_is_repaired_and_what_was_bad_is_kept() {
    let host = host(&Host::local("offsite"));
    let local = host.path("local");
    let good = content(&local);
    let victims = [
        one(&local, "/objects/", ""),
        one(&local, "/snapshots/", ".inventory.zst"),
        one(&local, "/snapshots/", ".json"),
        one(&local, "generation.json", ".sig"),
        one(&local, "RECOVER-1.md", ".md"),
    ];
    for victim in &victims {
        let mut bad = fs::read(victim).unwrap();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        replace(victim, &bad);
    }
    let dry = host.run(&["verify", "--vault", "local", "--read-data", "1/1", "--repair", "--dry-run"]);
    assert_eq!(dry.code, 4, "{}{}", dry.out, dry.err);
    assert!(dry.out.contains("would be repaired from vault `offsite`"), "{}", dry.out);
    assert!(!local.join("_damaged").exists() && content(&local) != good);
    let said = host.good(&["verify", "--vault", "local", "--read-data", "1/1", "--repair"]);
    assert!(said.out.contains("repaired 5 files\n") && said.out.contains("kept as `_damaged/"), "{}", said.out);
    assert_eq!(content(&local), good);
    let kept = files_below(&local.join("_damaged"));
    // The bad one of each, and of three documents the other half.
    assert_eq!(kept.len(), 8, "{kept:?}");
    // Nothing takes what was moved aside for a part of the vault.
    for args in [
        &["verify", "--identity", "ops.txt"][..],
        &["list"],
        &["status"],
        &["prune"],
        &["replicate"],
        &["run"],
        &["doctor"],
    ] {
        let ended = host.run(args);
        assert!(ended.code == 0 && !format!("{}{}", ended.out, ended.err).contains("_damaged"), "{args:?} {ended:?}");
    }
    assert_eq!(files_below(&local.join("_damaged")), kept);
}

#[test]
fn a_repair_waits_for_no_run_and_no_other_repair() {
    let host = host(&Host::local("offsite"));
    let object = one(&host.path("local"), "/objects/", "");
    let good = fs::read(&object).unwrap();
    replace(&object, b"bad");
    let lock =
        fs::File::options().create(true).truncate(false).write(true).open(host.path("state/s.docs.lock")).unwrap();
    lock.lock().unwrap();
    let busy = host.run(&["verify", "--repair"]);
    assert!(busy.code == 11 && busy.err.contains("another run or repair of source `docs` is under way"), "{busy:?}");
    assert_eq!(fs::read(&object).unwrap(), b"bad");
    // Who only looks waits for nobody.
    assert_eq!(host.run(&["verify", "--repair", "--dry-run"]).code, 4);
    assert_eq!(host.run(&["verify"]).code, 4);
    drop(lock);
    host.good(&["verify", "--repair"]);
    assert_eq!(fs::read(&object).unwrap(), good);
}

#[test]
fn what_an_earlier_call_found_is_repaired_without_reading_everything_again() {
    let host = host(&Host::local("offsite"));
    let object = one(&host.path("local"), "/objects/", "");
    let good = fs::read(&object).unwrap();
    let mut bad = good.clone();
    bad[40] ^= 1;
    replace(&object, &bad);
    assert_eq!(host.run(&["verify", "--read-data", "1/1"]).code, 4);
    // Fails where only what this call found is mended: a listing shows nothing.
    assert!(host.good(&["verify", "--repair"]).out.contains("repaired 1 file\n"));
    assert_eq!(fs::read(&object).unwrap(), good);
    assert!(!host.good(&["verify", "--repair"]).out.contains("repaired"), "the damage is forgotten");
}

#[test]
fn damage_beyond_a_page_is_counted_printed_short_and_mended_whole() {
    let host = Host::new();
    for name in ["data", "local", "offsite"] {
        fs::create_dir(host.path(name)).unwrap();
    }
    // A file of more than a mebibyte is a stream of its own, and so an object of its own; equal chunks make it a small one.
    for number in 0..70_u8 {
        fs::write(host.path(&format!("data/{number}.bin")), vec![number; (1 << 20) + 1]).unwrap();
    }
    host.configure(&format!("{}{}{SOURCE}", Host::local("local"), Host::local("offsite")));
    host.good(&["init"]);
    host.good(&["run"]);
    let local = host.path("local");
    let good = content(&local);
    let objects: Vec<PathBuf> =
        files_below(&local).into_iter().filter(|path| path.to_str().unwrap().contains("/objects/")).collect();
    assert!(objects.len() > 64 + 6, "{}", objects.len());
    for (number, object) in objects.iter().enumerate() {
        match number % 3 {
            0 => fs::remove_file(object).unwrap(),
            1 => replace(object, &vec![7; usize::try_from(fs::metadata(object).unwrap().len()).unwrap()]),
            _ => replace(object, b"short"),
        }
    }
    let (all, more) = (objects.len(), objects.len() - 10);
    let lines = |text: &str, part: &str| text.lines().filter(|line| line.contains(part)).count();
    let look = ["verify", "--vault", "local", "--read-data", "1/1"];
    let short = host.run(&look);
    assert_eq!(short.code, 4, "{}{}", short.out, short.err);
    assert!(short.out.contains(&format!("  and {more} more; `--json` has all")), "{}", short.out);
    assert_eq!(lines(&short.out, "object"), 10 + 1, "ten of them, and the line about the other vault: {}", short.out);
    let worth = format!("lists all {all} damaged objects, 64 were read and are good: `backup restore");
    assert!(short.out.contains(&worth), "{}", short.out);
    let json = host.run(&[&look[..], &["--json"]].concat());
    let told = json.json().to_string();
    for object in &objects {
        let name = object.file_name().unwrap().to_str().unwrap();
        assert!(told.matches(name).count() >= 2, "{name} is in the words and in the list");
    }
    assert!(told.contains("\"likely_good\":[\"offsite\"]") && told.contains("\"good_copies\":[]"), "{told}");

    // One that no vault has any more must not be lost in the crowd.
    let name = objects[5].file_name().unwrap().to_str().unwrap();
    let other = one(&host.path("offsite"), name, "");
    let whole = fs::read(&other).unwrap();
    fs::remove_file(&other).unwrap();
    let dry = host.run(&[&look[..], &["--repair", "--dry-run"]].concat());
    assert!(dry.code == 4 && dry.out.contains(&format!("and {} more that would be repaired", more - 1)), "{dry:?}");
    let said = host.run(&[&look[..], &["--repair"]].concat());
    assert!(said.code == 4 && said.out.contains(&format!("repaired {} files; 1 could not be", all - 1)), "{said:?}");
    assert!(said.out.contains(&format!("and {} more repaired; `--json` has all", more - 1)), "{}", said.out);
    assert_eq!((lines(&said.out, "repaired from vault"), lines(&said.out, "NOT repaired")), (10, 1), "{}", said.out);
    assert!(said.out.find("NOT repaired") < said.out.find("repaired from vault"), "what is left comes first");
    fs::write(&other, whole).unwrap();
    assert!(host.good(&[&look[..], &["--repair"]].concat()).out.contains("repaired 1 file\n"));
    assert_eq!(content(&local), good);
    host.good(&["restore", "--latest", "--vault", "local", "--into-dir", "back", "--identity", "ops.txt"]);
    for number in 0..70_u8 {
        let path = files_below(&host.path("back")).into_iter().find(|path| path.ends_with(format!("{number}.bin")));
        assert!(fs::read(path.unwrap()).unwrap() == vec![number; (1 << 20) + 1], "{number}");
    }
}

#[test]
fn what_cannot_be_repaired_is_named() {
    let host = host(&Host::local("offsite"));
    let object = one(&host.path("local"), "/objects/", "");
    let name = object.file_name().unwrap().to_str().unwrap().to_owned();
    for vault in ["local", "offsite"] {
        replace(&one(&host.path(vault), &name, ""), b"bad");
    }
    let ended = host.run(&["verify", "--vault", "local", "--repair"]);
    assert!(ended.code == 4 && ended.out.contains("NOT repaired: no other vault that answers"), "{ended:?}");
    assert_eq!(fs::read(&object).unwrap(), b"bad", "it stays where it is");
    // With a file that nobody can read in its place as well: a link is damage of one file, not of the vault.
    let host = self::host(&Host::local("offsite"));
    let object = one(&host.path("local"), "/objects/", "");
    let good = fs::read(&object).unwrap();
    fs::remove_file(&object).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &object).unwrap();
    let ended = host.good(&["verify", "--vault", "local", "--repair"]);
    assert!(ended.out.contains("repaired 1 file\n"), "{ended:?}");
    assert_eq!(fs::read(&object).unwrap(), good);
    let kept = files_below(&host.path("local/_damaged"));
    assert!(kept[0].is_symlink(), "{kept:?}");
}

#[test]
fn damage_costs_files_that_an_identity_names() {
    let host = host(&Host::local("offsite"));
    let object = one(&host.path("local"), "/objects/", "");
    let bad = vec![0; usize::try_from(fs::metadata(&object).unwrap().len()).unwrap()];
    replace(&object, &bad);
    let ended = host.run(&["verify", "--vault", "local", "--identity", "ops.txt"]);
    assert!(ended.code == 4 && ended.out.contains("  costs file ") && ended.out.contains("a.bin"), "{ended:?}");
    assert!(!ended.out.contains("small.txt"), "another file, another stream: {}", ended.out);
    let ended = host.run(&["verify", "--vault", "local", "--read-data", "1/1"]);
    assert!(ended.out.contains("`backup verify --identity FILE` tells"), "{ended:?}");
}

#[test]
fn a_bucket_is_repaired_from_a_directory_and_the_other_way_round() {
    let s3 = S3Server::start().unwrap();
    let bucket = &s3.bucket;
    let offsite = format!(
        "[vault.offsite]\ns3 = {{ endpoint = \"{}\", bucket = \"{}\", prefix = \"v\", region = \"{}\", path_style = true }}\n\
         credentials = {{ file = \"s3.env\" }}\nkeep = {{ within = \"7d\", min = 2 }}\n",
        bucket.endpoint, bucket.bucket, bucket.region
    );
    let host = {
        let host = Host::new();
        let keys = format!("AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\n", bucket.access_key, bucket.secret_key);
        fs::write(host.path("s3.env"), keys).unwrap();
        fs::set_permissions(host.path("s3.env"), fs::Permissions::from_mode(0o600)).unwrap();
        for name in ["data", "local"] {
            fs::create_dir(host.path(name)).unwrap();
        }
        fs::write(host.path("data/a.bin"), noise(1_200_000)).unwrap();
        host.configure(&format!("{}{offsite}{SOURCE}", Host::local("local")));
        host.good(&["init"]);
        host.good(&["run"]);
        host
    };
    for vault in [s3.files().join("v"), host.path("local")] {
        let [object, document] = [one(&vault, "/objects/", ""), one(&vault, "/snapshots/", ".json")];
        let good = [fs::read(&object).unwrap(), fs::read(&document).unwrap()];
        let mut bad = good[0].clone();
        bad[40] ^= 1;
        replace(&object, &bad);
        replace(&document, b"{}");
        let said = host.good(&["verify", "--read-data", "1/1", "--repair"]);
        assert!(said.out.contains("repaired 2 files\n"), "{}", said.out);
        assert_eq!([fs::read(&object).unwrap(), fs::read(&document).unwrap()], good);
        let kept: Vec<Vec<u8>> =
            files_below(&vault.join("_damaged")).iter().map(|path| fs::read(path).unwrap()).collect();
        assert!(kept.contains(&bad) && kept.contains(&b"{}".to_vec()));
        host.good(&["verify", "--identity", "ops.txt"]);
    }
}

#[test]
fn status_tells_how_far_a_vault_is_behind_also_while_it_is_down() {
    let host = host(&Host::local("offsite"));
    let lag = |code: i32| {
        let ended = host.run(&["status", "--json"]);
        assert_eq!(ended.code, code, "{}{}", ended.out, ended.err);
        ended.json()["sources"][0]["vaults"][1].clone()
    };
    let good = lag(0);
    assert_eq!((&good["vault"], &good["missing"], &good["answers"]), (&"offsite".into(), &0.into(), &true.into()));
    fs::rename(host.path("offsite"), host.path("unplugged")).unwrap();
    fs::write(host.path("data/b.bin"), noise(700_000)).unwrap();
    assert_eq!(host.run(&["run"]).code, 3);
    let down = lag(3);
    // Fails where nothing is remembered of a vault that is away: `replication::seen`.
    assert_eq!(
        (&down["missing"], &down["answers"], &down["newest"]),
        (&1.into(), &false.into(), &good["newest"]),
        "{down:#}"
    );
    assert!(down["missing_bytes"].as_u64().unwrap() > 0 && down["seen"].is_string(), "{down:#}");
    let said = host.run(&["status"]).out;
    assert!(said.contains("offsite: does not answer; ") && said.contains(" missing, "), "{said}");
    fs::rename(host.path("unplugged"), host.path("offsite")).unwrap();
    assert_eq!(lag(0)["missing"], 1);
    host.good(&["replicate"]);
    let again = lag(0);
    assert_eq!(
        (&again["missing"], &again["missing_bytes"], &again["behind_seconds"]),
        (&0.into(), &0.into(), &0.into())
    );
}

#[test]
fn a_planted_name_is_no_copy_to_status_and_an_empty_vault_is_not_up_to_date() {
    let host = host(&Host::local("offsite"));
    let lags = || {
        let told = host.run(&["status", "--json"]);
        told.json()["sources"][0]["vaults"].clone()
    };
    let newest = lags()[1]["newest"].clone();
    let real = one(&host.path("offsite"), "/snapshots/", ".json");
    let planted = real.with_file_name("29990101T000000Z-1r-abcdef.json");
    fs::write(&planted, "{}").unwrap();
    // Fails where a name counts as a copy: in `held`, and in what is missing elsewhere.
    for at in [0, 1] {
        let lag = &lags()[at];
        assert_eq!(
            (&lag["missing"], &lag["newest"], &lag["behind_seconds"]),
            (&0.into(), &newest, &0.into()),
            "{lag:#}"
        );
    }
    assert_ne!(host.run(&["replicate"]).code, 0, "it is told");
    fs::rename(host.path("offsite"), host.path("unplugged")).unwrap();
    fs::write(host.path("data/b.bin"), noise(700_000)).unwrap();
    assert_eq!(host.run(&["run"]).code, 3);
    // Fails where the planted name is remembered as what the vault held.
    let down = &lags()[1];
    assert_eq!((&down["missing"], &down["newest"], &down["answers"]), (&1.into(), &newest, &false.into()), "{down:#}");
    fs::rename(host.path("unplugged"), host.path("offsite")).unwrap();
    // Its copy of a snapshot is no copy when it is not believed there.
    fs::remove_file(&planted).unwrap();
    replace(&real, b"{}");
    assert_eq!(lags()[1]["missing"], 2);
    fs::remove_dir_all(host.path("offsite/s")).unwrap();
    let empty = &lags()[1];
    assert_eq!((&empty["missing"], &empty["behind_seconds"]), (&2.into(), &serde_json::Value::Null), "{empty:#}");
}

#[test]
fn who_may_only_read_the_other_vault_repairs_from_it_and_one_that_is_away_is_told() {
    let s3 = S3Server::start().unwrap();
    let keys = |bucket: &harness::s3::Bucket| {
        format!("AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\n", bucket.access_key, bucket.secret_key)
    };
    let host = Host::new();
    for name in ["data", "local"] {
        fs::create_dir(host.path(name)).unwrap();
    }
    fs::write(host.path("data/a.bin"), noise(1_200_000)).unwrap();
    fs::write(host.path("s3.env"), keys(&s3.bucket)).unwrap();
    fs::set_permissions(host.path("s3.env"), fs::Permissions::from_mode(0o600)).unwrap();
    host.configure(&format!(
        "{}[vault.far]\ns3 = {{ endpoint = \"{}\", bucket = \"{}\", prefix = \"v\" }}\n\
         credentials = {{ file = \"s3.env\" }}\nkeep = {{ within = \"7d\", min = 2 }}\n{SOURCE}",
        Host::local("local"),
        s3.bucket.endpoint,
        s3.bucket.bucket
    ));
    host.good(&["init"]);
    host.good(&["run"]);
    fs::write(host.path("s3.env"), keys(&s3.reader())).unwrap();
    let object = one(&host.path("local"), "/objects/", "");
    let (good, before) = (fs::read(&object).unwrap(), files_below(&s3.files()));
    let repair = ["verify", "--vault", "local", "--read-data", "1/1", "--repair"];
    replace(&object, b"bad");
    // Fails where every vault is opened for writing: the bucket refuses its probe.
    assert!(host.good(&repair).out.contains("repaired 1 file\n"));
    assert_eq!((fs::read(&object).unwrap(), files_below(&s3.files())), (good, before));
    replace(&object, b"bad");
    fs::write(host.path("s3.env"), keys(&s3.bucket).replace("SECRET_ACCESS_KEY=", "SECRET_ACCESS_KEY=x")).unwrap();
    let ended = host.run(&repair);
    // Fails where only the chosen vault's silence is told.
    assert!(ended.code == 4 && ended.err.contains("vault `far` cannot be used, so no copy"), "{ended:?}");
    let ended = host.run(&[&repair[..], &["--json"]].concat()).json();
    assert_eq!(ended["silent"][0]["vault"], "far", "{ended:#}");
}

#[test]
fn a_copy_of_what_lost_its_inventory_is_looked_at_before_it_is_offered() {
    let host = host(&Host::local("offsite"));
    let (local, offsite) = (host.path("local"), host.path("offsite"));
    replace(&one(&local, "/snapshots/", ".inventory.zst"), b"bad");
    let told = || {
        let ended = host.run(&["verify", "--vault", "local"]);
        assert_eq!(ended.code, 4, "{ended:?}");
        ended.out.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let whole = told();
    assert!(whole.contains("vault `offsite` holds its document and its inventory, and lists all"), "{whole}");
    assert!(whole.contains("none was read"), "{whole}");
    let object = one(&offsite, "/objects/", "");
    let body = fs::read(&object).unwrap();
    fs::remove_file(&object).unwrap();
    // Fails where nobody looks: what is damaged here are no objects.
    let lacks = told();
    assert!(lacks.contains("and lacks 1 of") && !lacks.contains("holds a good copy"), "{lacks}");
    replace_or_write(&object, &body[1..]);
    assert!(told().contains("and lacks 1 of"), "another size is no copy");
    // With an object damaged here as well, what is good here counts there, too.
    replace_or_write(&object, &body);
    let other = files_below(&local).into_iter().filter(|path| path.to_str().unwrap().contains("/objects/"));
    let other = other.min_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    assert_ne!(other.file_name(), object.file_name());
    fs::remove_file(&object).unwrap();
    replace(
        &one(&local, "/snapshots/", ".inventory.zst"),
        &fs::read(one(&offsite, "/snapshots/", ".inventory.zst")).unwrap(),
    );
    replace(&other, b"bad");
    let partly = told();
    assert!(partly.contains("good copies of what is damaged here, and lacks 1 of"), "{partly}");
    fs::write(&object, &body).unwrap();
    assert!(told().contains("holds a good copy: what is damaged here was read there"));
}

fn replace_or_write(path: &Path, body: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, body).unwrap();
}
