//! Every kind of file × every way to damage it × every verb, on the real binary: what each does is a cell of
//! `docs/damage.md`, which this test writes anew where `BACKUP_WRITE_DAMAGE_TABLE` is set, and compares otherwise.
//!
//! The stack has two vaults and the damage is in the first. Whatever the table says, no cell may be a silent loss: no verb
//! gives other bytes, what the damaged vault cannot restore alone `verify --read-data 1/1` or `list` shows, and what the
//! other vault holds comes back.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};

use backup_core::id::Hash256;
use backup_core::signature::{HostKey, Namespace};
use backup_core::vault::document::{
    ExpiredDoc, GenerationDoc, Grounds, MarkDoc, MarkKind, PruneStage, PublicDocument, ReceiptDoc, SnapshotDoc,
};
use backup_core::vault::layout::signature_of;

use super::host::{Ended, Host, of_source};
use super::recover::noise;
use super::stack::files_below;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/damage.md");

const HEAD: &str = "# What damage does

Each kind of file in a vault, each way to damage it, and what every verb then does. The stack has two vaults, the damage is in the first one, and it
is in the newest snapshot (`ID`) or beside it. Written and compared by `tests/suite/damage_matrix.rs`: `BACKUP_WRITE_DAMAGE_TABLE=1` writes it anew.

| word | meaning |
|---|---|
| unaffected | it ended well, as without the damage, and said nothing |
| told | it ended well, and what it printed is not what it prints where the same files are whole, or were never put back |
| other vault | it ended well with what the other vault holds, and said so |
| mended | it ended well, and the file is again as it was (with a number: so it is, and it ended with that exit code, since damage was met) |
| named, N | it ended with exit code N, and names the file or the snapshot |
| refused, N | it ended with exit code N |

*Old* is a validly signed file of before, with its signature: an older snapshot under the newest one's name, an earlier generation's document under this one's, an
earlier recovery page, and marks, grants, receipts and announcements that were taken back or have done their work. It was not altered by anybody, so it is believed
where it says the truth about where it lies; an earlier recovery page restores as it did then, and `init` puts this program's in its place. Objects and inventories have no such form: a name or a signed document says which bytes they have.
`run` and `replicate` also fill the first vault from the second one, which is how files come back. `restore` is asked for `ID`, once as configured and once from
the first vault alone. A grant that nobody signed says itself whether it holds the key, to who has an identity: `verify --identity` tells of it.

";

/// The verbs, in the order of the columns. `ID` is the newest snapshot.
const VERBS: [(&str, &[&str]); 11] = [
    ("list", &["list", "--json"]),
    ("show", &["show", "ID", "--json"]),
    ("verify", &["verify"]),
    ("verify --read-data", &["verify", "--read-data", "1/1"]),
    ("restore", &["restore", "ID", "--into-dir", "back", "--identity", "ops.txt"]),
    ("restore --vault", &["restore", "ID", "--into-dir", "back", "--identity", "ops.txt", "--vault", "local"]),
    ("verify --repair", &["verify", "--read-data", "1/1", "--repair"]),
    ("audit", &["audit", "--read-data", "1/1"]),
    ("run", &["run"]),
    ("replicate", &["replicate"]),
    ("prune", &["prune", "--apply"]),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Harm {
    Deleted,
    CutShort,
    Flipped,
    Swapped,
    Old,
}

const HARMS: [(Harm, &str); 5] = [
    (Harm::Deleted, "deleted"),
    (Harm::CutShort, "cut short"),
    (Harm::Flipped, "a bit flipped"),
    (Harm::Swapped, "swapped"),
    (Harm::Old, "old"),
];

/// A kind of file: the one that is damaged, another one to swap it with, what is put there first, and what an attacker
/// kept of before.
struct Kind {
    name: &'static str,
    file: PathBuf,
    other: Vec<u8>,
    before: Vec<(PathBuf, Vec<u8>)>,
    old: Vec<(PathBuf, Vec<u8>)>,
    /// Its other damages are those of another kind that has the same form and the same readers.
    only_old: bool,
    /// With what is put there first, and nothing damaged.
    whole: OnceLock<Baseline>,
}

struct Scene {
    host: Host,
    id: String,
    content: Vec<u8>,
    kinds: Vec<Kind>,
    baseline: Baseline,
}

/// How each verb ends where nothing is damaged.
type Baseline = BTreeMap<&'static str, Ended>;

/// What lies in a vault is replaced and never changed in place: a link is as good as a copy, and much quicker.
fn copy_tree(from: &Path, to: &Path, link: bool) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target, link || matches!(entry.file_name().to_str(), Some("local" | "offsite")));
        } else if link {
            fs::hard_link(entry.path(), target).unwrap();
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The binary in a folder.
fn call(dir: &Path, args: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backup"));
    command.args(args).current_dir(dir).env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    Ended::of(command.output().unwrap())
}

/// Another file in the place of one: the one that was there may have other names.
fn replace(path: &Path, body: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, body).unwrap();
}

/// A grant as somebody makes it who has no key to sign with.
fn without_signer(grant: &[u8]) -> Vec<u8> {
    let mut doc: backup_core::vault::document::GrantDoc = serde_json::from_slice(grant).unwrap();
    doc.signer = None;
    serde_json::to_vec(&doc).unwrap()
}

/// Puts a file where it belongs below `dir`.
fn lay(dir: &Path, (path, body): &(PathBuf, Vec<u8>)) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    replace(&path, body);
}

/// Output without what changes by itself.
fn lasting(out: &str) -> Vec<&str> {
    let lines =
        out.lines().filter(|line| !line.trim_start().starts_with("\"at\"") && !line.contains("\"age_seconds\""));
    // How old the newest snapshot is stands last in a line.
    lines.map(|line| if line.ends_with(" old") { line.rsplit_once(", ").unwrap().0 } else { line }).collect()
}

/// A document and its signature, by paths below the stack's folder.
fn signed<T: PublicDocument>(doc: &T, key: &HostKey) -> Vec<(PathBuf, Vec<u8>)> {
    let body = serde_json::to_vec(doc).unwrap();
    let signature = key.sign(T::NAMESPACE, &body).unwrap().into_bytes();
    let at = |path: &str| PathBuf::from("local").join(path);
    vec![(at(doc.path().as_str()), body), (at(signature_of(&doc.path()).as_str()), signature)]
}

impl Scene {
    fn new() -> Self {
        let host = Host::new();
        for name in ["data", "more", "local", "offsite"] {
            fs::create_dir(host.path(name)).unwrap();
        }
        fs::write(host.path("more/b.bin"), noise(5000, 9)).unwrap();
        let source = |name: &str, path: &str| format!("[source.{name}]\ntype = \"files\"\npaths = [\"{path}\"]\n");
        let vaults = format!("{}{}", Host::local("local"), Host::local("offsite"));
        host.configure(&format!("{vaults}{}{}", source("docs", "data"), source("more", "more")));
        host.good(&["init"]);
        let (mut ids, mut objects, mut content) = (Vec::new(), Vec::new(), Vec::new());
        for seed in 1..=3 {
            content = noise(40_000, seed);
            fs::write(host.path("data/a.bin"), &content).unwrap();
            ids.push(of_source(&host.backup(), "docs")["snapshot"].as_str().unwrap().to_owned());
            objects.push(files_below(&host.path("local/s/docs")));
        }
        let mut scene = Self { host, id: ids[2].clone(), content, kinds: Vec::new(), baseline: BTreeMap::new() };
        scene.kinds = scene.find(&ids, &objects);
        scene.baseline = scene.whole(&[]);
        for (verb, ended) in &scene.baseline {
            assert_eq!(ended.code, 0, "{verb}: {}{}", ended.out, ended.err);
        }
        scene
    }

    /// How each verb ends with these files there, whole.
    fn whole(&self, before: &[(PathBuf, Vec<u8>)]) -> Baseline {
        let each = VERBS.map(|(verb, args)| {
            let trial = tempfile::tempdir().unwrap();
            copy_tree(self.host.dir(), trial.path(), false);
            for file in before {
                lay(trial.path(), file);
            }
            (verb, call(trial.path(), &self.args(args)))
        });
        each.into()
    }

    fn args<'a>(&'a self, args: &'a [&'a str]) -> Vec<&'a str> {
        args.iter().map(|arg| if *arg == "ID" { self.id.as_str() } else { arg }).collect()
    }

    /// The files of each kind, relative to the host's folder.
    fn find(&self, ids: &[String], objects: &[Vec<PathBuf>]) -> Vec<Kind> {
        let host = &self.host;
        let relative = |path: &Path| path.strip_prefix(host.dir()).unwrap().to_owned();
        let named = |end: &str, folder: &str| {
            let all = files_below(&host.path(folder));
            relative(all.iter().find(|path| path.to_str().unwrap().ends_with(end)).unwrap_or_else(|| panic!("{end}")))
        };
        let read = |path: &Path| fs::read(host.path(path.to_str().unwrap())).unwrap();
        let doc = |id: &str| -> SnapshotDoc {
            serde_json::from_slice(&read(&named(&format!("{id}.json"), "local/s/docs"))).unwrap()
        };
        let (newest, before) = (doc(&ids[2]), doc(&ids[1]));
        let manifest = |doc: &SnapshotDoc| named(&doc.manifest.objects[0].to_string(), "local/s/docs");
        // The objects that a run was the first to need, without its manifest's.
        let data = |at: usize, doc: &SnapshotDoc| {
            let fresh = objects[at].iter().filter(|path| !objects[at - 1].contains(path));
            let fresh = fresh.filter(|path| path.to_str().unwrap().contains("/objects/"));
            relative(
                fresh.max_by_key(|path| (relative(path) != manifest(doc), fs::metadata(path).unwrap().len())).unwrap(),
            )
        };
        let key = HostKey::from_openssh(&fs::read_to_string(host.path("host_key")).unwrap()).unwrap();
        let announced = |stage, grounds: Grounds| {
            let doc = ExpiredDoc {
                format: 1,
                stage,
                stack: newest.stack.clone(),
                source: newest.source.clone(),
                generation: newest.generation.clone(),
                at: newest.instant,
                newest: newest.id.clone(),
                snapshots: ids.iter().map(|id| (id.parse().unwrap(), "old".to_owned())).collect(),
                grounds,
                signer: key.fingerprint(),
                tool: "backup 0".to_owned(),
            };
            signed(&doc, &key)
        };
        let receipt = |generation: &str, grounds: Grounds| {
            let doc = ReceiptDoc {
                format: 1,
                stack: newest.stack.clone(),
                source: newest.source.clone(),
                generation: generation.parse().unwrap(),
                at: newest.instant,
                snapshots: Vec::new(),
                vault: None,
                documents: std::collections::BTreeSet::new(),
                objects: 0,
                stored_bytes: 0,
                grounds,
                signer: key.fingerprint(),
                tool: "backup 0".to_owned(),
            };
            signed(&doc, &key)
        };
        let none = Grounds::default;
        let gone = receipt("2020-01-01--28d--00000000", none());
        let other_gone = receipt("2020-01-01--28d--11111111", none());
        let (expired, deleting) = (announced(PruneStage::Expired, none()), announced(PruneStage::Deleting, none()));
        let leaked = || Grounds { purge: Some("leaked".to_owned()), ..Grounds::default() };
        let purged = announced(PruneStage::Expired, leaked());
        let purge_done = receipt(newest.generation.to_string().as_str(), leaked());
        let restored = signed(
            &MarkDoc {
                format: 1,
                stack: newest.stack.clone(),
                source: newest.source.clone(),
                snapshot: newest.id.clone(),
                mark: MarkKind::Restored,
                at: newest.finished,
                document: Hash256::of(&read(&named(&format!("{}.json", ids[2]), "local/s/docs"))),
                closes: None,
                signer: key.fingerprint(),
                tool: "backup 0".to_owned(),
            },
            &key,
        );
        let at_its_place = |place: &Path, body: Vec<u8>, namespace| {
            let signature = key.sign(namespace, &body).unwrap().into_bytes();
            let beside = PathBuf::from(format!("{}.sig", place.display()));
            vec![(place.to_owned(), body), (beside, signature)]
        };
        let generation_json = named("generation.json", "local/s/docs");
        let mut earlier: GenerationDoc = serde_json::from_slice(&read(&generation_json)).unwrap();
        let (_, period_and_key) = earlier.generation.as_str().split_once("--").unwrap();
        earlier.generation = format!("2020-01-01--{period_and_key}").parse().unwrap();
        let earlier = at_its_place(&generation_json, serde_json::to_vec(&earlier).unwrap(), Namespace::Generation);
        let page = b"# An earlier page\n".to_vec();
        let earlier_page = at_its_place(Path::new("local/RECOVER-1.md"), page, Namespace::Recover);
        let vault_json = String::from_utf8(read(Path::new("local/vault.json"))).unwrap();
        let made_before = vault_json.replace("\"created\": \"20", "\"created\": \"19");
        assert_ne!(made_before, vault_json);
        // What a run that died leaves: in order, and nobody's.
        let abandoned = noise(3000, 5);
        let name = Hash256::of(&abandoned).to_string();
        let folder = generation_json.parent().unwrap().join("objects").join(&name[..2]);
        let abandoned = vec![(folder.join(&name), abandoned)];
        // A pin that is there, and one that was taken back.
        host.good(&["pin", &ids[2]]);
        host.good(&["accept", &ids[2]]);
        host.good(&["verify", "--source", "docs", "--identity", "ops.txt"]);
        let mark = |end: &str| {
            let path = named(end, "local/s/docs/marks");
            (path.clone(), read(&path))
        };
        let pin = ["pin.json", "pin.json.sig"].map(mark);
        let accept = ["accept.json", "accept.json.sig"].map(mark);
        let checked = ["json", "json.sig"].map(|end| mark(&format!("{}.checked.{end}", ids[2])));
        let (granted, other_granted) = (self.granted("new.txt"), self.granted("newer.txt"));
        let unsigned: Vec<_> = granted[..1].iter().map(|(path, body)| (path.clone(), without_signer(body))).collect();
        let other_unsigned = vec![(PathBuf::new(), without_signer(&other_granted[0].1))];
        for vault in ["local", "offsite"] {
            fs::remove_dir_all(host.path(&format!("{vault}/s/docs/marks"))).unwrap();
        }
        let plain = |name, file: PathBuf, other: &Path| Kind {
            name,
            file,
            other: read(other),
            before: Vec::new(),
            old: Vec::new(),
            only_old: false,
            whole: OnceLock::new(),
        };
        let of = |id: &str, end: &str| named(&format!("{id}{end}"), "local/s/docs");
        let older = |end: &str| (of(&ids[2], end), read(&of(&ids[1], end)));
        let snapshot = |name, end: &'static str| plain(name, of(&ids[2], end), &of(&ids[1], end));
        let generation = |name, end: &str| plain(name, named(end, "local/s/docs"), &named(end, "local/s/more"));
        let made = |name, of: &[(PathBuf, Vec<u8>)], nth: usize, other: &[(PathBuf, Vec<u8>)]| Kind {
            name,
            file: of[nth].0.clone(),
            other: other[nth].1.clone(),
            before: of.to_vec(),
            old: Vec::new(),
            only_old: false,
            whole: OnceLock::new(),
        };
        let again = |name, of: &[(PathBuf, Vec<u8>)]| Kind {
            old: of.to_vec(),
            only_old: true,
            ..plain(name, of[0].0.clone(), Path::new("local/vault.json"))
        };
        vec![
            Kind {
                old: vec![("local/vault.json".into(), made_before.into_bytes())],
                ..plain("`vault.json`", "local/vault.json".into(), Path::new("offsite/vault.json"))
            },
            Kind {
                old: earlier_page,
                ..plain("`RECOVER-1.md`", "local/RECOVER-1.md".into(), Path::new("local/RECOVER-1.md.sig"))
            },
            plain("`RECOVER-1.md.sig`", "local/RECOVER-1.md.sig".into(), Path::new("local/RECOVER-1.md")),
            Kind { old: earlier, ..generation("`generation.json`", "generation.json") },
            generation("`generation.json.sig`", "generation.json.sig"),
            Kind { old: vec![older(".json"), older(".json.sig")], ..snapshot("`ID.json`", ".json") },
            snapshot("`ID.json.sig`", ".json.sig"),
            snapshot("`ID.inventory.zst`", ".inventory.zst"),
            plain("data object", data(2, &newest), &data(1, &before)),
            plain("manifest's object", manifest(&newest), &manifest(&before)),
            made("nobody's object", &abandoned, 0, &[(PathBuf::new(), noise(3000, 6))]),
            Kind { old: pin.to_vec(), ..made("pin", &pin, 0, &accept) },
            made("pin's signature", &pin, 1, &accept),
            Kind { old: accept.to_vec(), ..made("accept", &accept, 0, &pin) },
            made("accept's signature", &accept, 1, &pin),
            Kind { old: checked.to_vec(), ..made("checked", &checked, 0, &pin) },
            made("checked's signature", &checked, 1, &pin),
            Kind { old: restored.clone(), ..made("restored", &restored, 0, &checked) },
            made("restored's signature", &restored, 1, &checked),
            Kind { old: granted.clone(), ..made("grant", &granted, 0, &other_granted) },
            made("grant's signature", &granted, 1, &other_granted),
            Kind { old: unsigned.clone(), ..made("unsigned grant", &unsigned, 0, &other_unsigned) },
            Kind { old: gone.clone(), ..made("receipt", &gone, 0, &other_gone) },
            made("receipt's signature", &gone, 1, &other_gone),
            again("receipt of a purge", &purge_done),
            Kind { old: expired.clone(), ..made("`expired.json`", &expired, 0, &deleting) },
            made("`expired.json.sig`", &expired, 1, &deleting),
            again("`expired.json` of a purge", &purged),
            Kind { old: deleting.clone(), ..made("`deleting.json`", &deleting, 0, &expired) },
            made("`deleting.json.sig`", &deleting, 1, &expired),
        ]
    }

    /// What a grant to a new recipient puts beside the newest snapshot, taken away again: the grant and its signature.
    fn granted(&self, name: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let host = &self.host;
        host.good(&["key", "new", name]);
        host.good(&["key", "grant", &host.recipient(name), "--identity", "ops.txt"]);
        let (mut found, mut folders) = (Vec::new(), Vec::new());
        for path in files_below(host.dir()).into_iter().filter(|path| path.to_str().unwrap().contains("/grants/")) {
            let relative = path.strip_prefix(host.dir()).unwrap().to_owned();
            if relative.starts_with("local/s/docs") {
                found.push((relative, fs::read(&path).unwrap()));
            }
            folders.push(path.parent().unwrap().to_owned());
        }
        found.sort();
        for folder in folders {
            // Named once for each of its files.
            let _ = fs::remove_dir_all(folder);
        }
        assert_eq!(found.len(), 2, "a document and its signature");
        found
    }

    /// Damages a copy of the stack.
    fn spoil(dir: &Path, kind: &Kind, harm: Harm) {
        if harm == Harm::Old {
            return kind.old.iter().for_each(|file| lay(dir, file));
        }
        kind.before.iter().for_each(|file| lay(dir, file));
        let file = dir.join(&kind.file);
        let mut body = fs::read(&file).unwrap();
        let middle = body.len() / 2;
        match harm {
            Harm::Deleted => return fs::remove_file(file).unwrap(),
            Harm::CutShort => body.truncate(middle),
            Harm::Flipped => body[middle] ^= 1,
            _ => {
                assert_ne!(body, kind.other, "{}", kind.name);
                body.clone_from(&kind.other);
            }
        }
        replace(&file, &body);
    }

    /// The words of a row, one for each verb.
    fn row(&self, kind: &Kind, harm: Harm) -> Vec<String> {
        // What shows because a mark is there is not what shows because it is damaged; what was put back was not there.
        let put = !kind.before.is_empty() && harm != Harm::Old;
        let baseline = if put { kind.whole.get_or_init(|| self.whole(&kind.before)) } else { &self.baseline };
        VERBS.iter().map(|(verb, args)| self.cell(kind, harm, (verb, args), &baseline[verb])).collect()
    }

    fn cell(&self, kind: &Kind, harm: Harm, (verb, args): (&str, &[&str]), base: &Ended) -> String {
        let trial = tempfile::tempdir().unwrap();
        copy_tree(self.host.dir(), trial.path(), false);
        let dir = trial.path();
        Self::spoil(dir, kind, harm);
        let spoilt = fs::read(dir.join(&kind.file)).ok();
        let whole = kind.before.iter().find(|(path, _)| *path == kind.file).map(|(_, body)| body.clone());
        let whole = whole.or_else(|| fs::read(self.host.dir().join(&kind.file)).ok());
        let ended = call(dir, &self.args(args));
        let name = format!("{} {harm:?}, {verb}", kind.name);
        if verb == "run" && (ended.code == 0 || ended.code == 3) {
            // What the run made restores, from wherever it lies; or somebody says no.
            let latest = ["restore", "--latest", "--source", "docs", "--into-dir", "back", "--identity", "ops.txt"];
            if call(dir, &latest).code == 0 {
                self.right(dir, &name);
            }
        }
        if verb.starts_with("restore") {
            match ended.code {
                0 => self.right(dir, &name),
                _ => assert!(!dir.join("back").exists(), "{name}: something came back\n{}", ended.err),
            }
        }
        let now = fs::read(dir.join(&kind.file)).ok();
        let words = format!("{}\n{}", ended.out, ended.err);
        let file = kind.file.file_name().unwrap().to_str().unwrap();
        let names = [file, file.split('.').next().unwrap()];
        let vault = kind.file.starts_with("local/vault.json") && words.contains("local");
        let named = vault || names.iter().any(|name| words.contains(name));
        let mended = now != spoilt && now == whole;
        match ended.code {
            0 if mended => "mended".to_owned(),
            code if mended => format!("mended, {code}"),
            0 if ["trying the next vault", "is taken from vault"].iter().any(|said| words.contains(said)) => {
                "other vault".to_owned()
            }
            0 if ended.err.lines().any(|line| line.starts_with("warning") && !base.err.contains(line)) => {
                "told".to_owned()
            }
            0 if (matches!(verb, "list" | "show" | "prune" | "audit") || verb.starts_with("verify"))
                && lasting(&ended.out) != lasting(&base.out) =>
            {
                "told".to_owned()
            }
            0 => "unaffected".to_owned(),
            code if named => format!("named, {code}"),
            code => format!("refused, {code}"),
        }
    }

    /// What came back is what was captured: no damage may ever give other bytes.
    fn right(&self, dir: &Path, name: &str) {
        let back = files_below(&dir.join("back"));
        let file =
            back.iter().find(|path| path.ends_with("a.bin")).unwrap_or_else(|| panic!("{name}: nothing came back"));
        assert!(fs::read(file).unwrap() == self.content, "{name}: restored other bytes");
    }
}

#[test]
fn every_cell_is_as_the_page_says_and_none_is_a_silent_loss() {
    let scene = Scene::new();
    let work: Vec<(&Kind, Harm, &str)> =
        scene.kinds.iter().flat_map(|kind| HARMS.iter().map(move |(harm, word)| (kind, *harm, *word))).collect();
    // Most files never were anything else at their place.
    let happens = |kind: &Kind, harm| if harm == Harm::Old { !kind.old.is_empty() } else { !kind.only_old };
    let work: Vec<_> = work.into_iter().filter(|(kind, harm, _)| happens(kind, *harm)).collect();
    let (next, rows) = (Mutex::new(0_usize), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let at = {
                        let mut next = next.lock().unwrap();
                        *next += 1;
                        *next - 1
                    };
                    let Some((kind, harm, _)) = work.get(at) else { break };
                    let row = scene.row(kind, *harm);
                    rows.lock().unwrap().insert(at, row);
                }
            });
        }
    });
    let mut page = HEAD.to_owned();
    let verbs: Vec<String> = VERBS.iter().map(|(verb, _)| format!("`{verb}`")).collect();
    let _ = writeln!(page, "| file | damage | {} |\n|---|---|{}", verbs.join(" | "), "---|".repeat(VERBS.len()));
    let mut wrong = Vec::new();
    for (at, row) in rows.into_inner().unwrap() {
        let (kind, harm, word) = work[at];
        let cell = |verb: &str| row[VERBS.iter().position(|(name, _)| *name == verb).unwrap()].as_str();
        // What is missing in one vault alone and whole in the other is shown by `list`.
        let (alone, read, list) = (cell("restore --vault"), cell("verify --read-data"), cell("list"));
        if !matches!(alone, "unaffected" | "told") && read == "unaffected" && list == "unaffected" {
            wrong.push(format!("{} {harm:?}: it does not come back ({alone}), and nobody says so", kind.name));
        }
        if !matches!(cell("restore"), "unaffected" | "told" | "other vault") {
            let said = cell("restore");
            wrong.push(format!("{} {harm:?}: the other vault is whole, and nothing comes back: {said}", kind.name));
        }
        let _ = writeln!(page, "| {} | {word} | {} |", kind.name, row.join(" | "));
    }
    if std::env::var_os("BACKUP_WRITE_DAMAGE_TABLE").is_some() {
        fs::write(PAGE, &page).unwrap();
    }
    assert_eq!(wrong, [""; 0]);
    let stands = fs::read_to_string(PAGE).unwrap_or_default();
    let differ = stands.lines().zip(page.lines()).find(|(stands, now)| stands != now);
    assert!(stands == page, "docs/damage.md is not what happens (BACKUP_WRITE_DAMAGE_TABLE=1 writes it): {differ:#?}");
}
