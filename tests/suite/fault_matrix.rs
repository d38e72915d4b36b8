//! Every request that a verb makes × every fault of it, once and always, on the real binary behind a proxy: how each ends is a
//! cell of `docs/faults.md`.
//!
//! What is asked is not written down here: a proxy sees it. The short form makes each verb once with a passing fault of each
//! kind of request at its first occurrence, and then a sample of single cells in which each fault occurs, the same one each
//! time (`BACKUP_FAULT_SEED` chooses another). `BACKUP_FAULT_CELLS=all` tries each kind of request under the first verb that
//! makes it, and with `BACKUP_WRITE_FAULT_TABLE=1` writes the page anew; `=every` tries them under every verb, which takes
//! hours and is compared with no page.
//!
//! After each trial, whatever the page says: it ended in time and with an exit code that is one; an error names what it was
//! about; a fault that passes changed nothing; whatever was in the vaults before is there as it was; and without the fault
//! the same verb ends well, the next run succeeds, and its snapshot restores byte by byte.

mod fault;
mod request;
mod scene;
mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness::proxy::{Act, Proxy};
use harness::s3::S3Server;

use self::fault::{FAULTS, Fault, TIMES, Times};
use self::scene::{PATIENT, Scene, VAULTS, place, scenes};
use super::host::{Ended, Host};
use super::past::contents;
use super::stack::files_below;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/faults.md");

const HEAD: &str = "# What faults do

Each kind of request that is made of an S3 vault, under a verb that makes it (the first in the order of this table: a verb further down may make those
above it, too), each fault of it, and how the verb then ends: before the `/` where it happens once, after it where it happens always. The stack has two
vaults, `near` and `far`, and one of them has the fault. Written and compared by `tests/suite/fault_matrix.rs`: `BACKUP_FAULT_CELLS=all BACKUP_WRITE_FAULT_TABLE=1`
writes it anew; every run of the tests compares a sample.

| word | meaning |
|---|---|
| ok | it ended as without the fault, and said nothing of it |
| told | it ended with the same exit code, and said what it met |
| N | it ended with exit code N, and named the object or the listing |
| – | there is no such fault of such a request |

| fault | what is done |
|---|---|
| 500, 503, 403, skewed | `InternalError`, `SlowDown`, `AccessDenied`, `RequestTimeTooSkewed`; the server never sees the request |
| closed, hangs | no answer; the server never sees the request |
| answer lost | what was asked is done, and the connection closed in place of an answer |
| reset | the connection is reset in the middle of the answer |
| short, altered | a whole answer of half the body, or with one bit of it changed |
| half, old | a listing without every second entry, or without what came last |
| trickles | the answer comes at 20 bytes a second |
| a year ahead, behind | the answer's `Date` |

Whatever the cell, nothing that was stored is lost, and without the fault the same verb and the next run end well.

";

/// The longest that a verb may take under a fault: patience is seconds here, and few calls are made one after the other.
const LONGEST: Duration = Duration::from_secs(90);

/// What is tried.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    scene: usize,
    kind: String,
    fault: Fault,
    times: Times,
}

/// The faults of a trial.
#[derive(Debug, Clone)]
enum Plan {
    Nothing,
    One(Cell),
    /// Each kind of request fails at its first occurrence, with a fault that passes; which one depends on this number.
    Each(u64),
}

/// What a trial saw.
struct Trial {
    ended: Ended,
    took: Duration,
    /// Kinds of requests, in the order in which each was first made.
    kinds: Vec<String>,
    /// What the faulty ones were about.
    names: BTreeSet<String>,
    /// What is wrong whatever the page says.
    wrong: Vec<String>,
}

#[derive(Default)]
struct Seen {
    kinds: Vec<String>,
    names: BTreeSet<String>,
}

/// One trial of a scene, in a prefix and on a host of its own.
struct Place<'a> {
    scene: &'a Scene,
    server: &'a S3Server,
    host: Host,
    prefix: String,
}

impl<'a> Place<'a> {
    fn new(scene: &'a Scene, server: &'a S3Server) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let prefix = format!("c{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        scene.lay_out(server, &prefix);
        let place = Self { scene, server, host: scene.host.cloned(), prefix };
        for vault in VAULTS {
            place.point(vault, &server.bucket.endpoint);
        }
        place
    }

    /// Says where a vault is.
    fn point(&self, vault: &str, endpoint: &str) {
        let text = fs::read_to_string(self.host.path("backup.toml")).unwrap();
        let is_its = |line: &str| line.starts_with("s3 = ") && line.contains(&format!("/{vault}\""));
        let lines =
            text.lines().map(|line| if is_its(line) { place(endpoint, &self.prefix, vault) } else { line.to_owned() });
        fs::write(self.host.path("backup.toml"), lines.collect::<Vec<_>>().join("\n") + "\n").unwrap();
    }

    fn patience(&self, from: &str, to: &str) {
        self.host.change(&format!("patience = \"{from}\""), &format!("patience = \"{to}\""));
    }

    fn verb(&self) -> Ended {
        self.host.run(&self.scene.args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Whatever was in the vaults before is as it was; and whether nothing else is there either.
    fn lost(&self) -> (Vec<String>, bool) {
        let (mut lost, mut is_same) = (Vec::new(), true);
        for vault in VAULTS {
            let (before, now) =
                (self.scene.bodies.path().join(vault), self.server.files().join(&self.prefix).join(vault));
            let files = files_below(&before);
            is_same &= files_below(&now).len() == files.len();
            for path in files {
                let relative = path.strip_prefix(&before).unwrap();
                let now = now.join(relative);
                // Bodies are replaced and never changed in place.
                let is_its = |found: fs::Metadata| found.ino() == fs::metadata(&path).unwrap().ino();
                if fs::metadata(&now).is_ok_and(is_its) {
                    continue;
                }
                is_same = false;
                if !self.scene.stays(relative) {
                    continue;
                }
                match fs::read(now) {
                    Ok(body) if body == fs::read(&path).unwrap() => {}
                    Ok(_) => lost.push(format!("`{}` in `{vault}` changed", relative.display())),
                    Err(error) => lost.push(format!("`{}` in `{vault}`: {error}", relative.display())),
                }
            }
        }
        (lost, is_same)
    }

    /// A restore that ended well brought what was captured, one that failed brought nothing.
    fn wrong_bytes(&self, ended: &Ended) -> Option<String> {
        let back = self.host.path("back");
        let came = back.exists().then(|| contents(&back));
        let _ = fs::remove_dir_all(&back);
        match (ended.code, came) {
            (0, Some(files)) if self.scene.states.contains(&files) => None,
            (0, _) => Some("a restore brought something else".to_owned()),
            (_, None) => None,
            (code, Some(_)) => Some(format!("a restore that ended with {code} brought something")),
        }
    }

    /// The verb without the fault, the next run, and what it captured.
    fn aftermath(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut again = self.verb();
        if again.code == 2 && again.err.contains("hint: join it with `backup init --adopt") {
            // It was made and not yet written down: the way out is the one that is told.
            self.host.run(&["init", "--adopt", self.scene.faulty]);
            again = self.verb();
        }
        if again.code != 0 {
            wrong.push(format!("without the fault it ends with {}: {}{}", again.code, again.out, again.err));
        }
        if self.scene.name == "restore" {
            wrong.extend(self.wrong_bytes(&again));
        }
        if self.scene.args != ["run"] {
            let run = self.host.run(&["run"]);
            if run.code != 0 {
                wrong.push(format!("the next run ended with {}: {}{}", run.code, run.out, run.err));
            }
        }
        let from = self.scene.faulty;
        let args = ["restore", "--latest", "--vault", from, "--identity", "ops.txt", "--into-dir", "out"];
        let restored = self.host.run(&args);
        if restored.code != 0 {
            wrong.push(format!("the newest snapshot does not restore: {}", restored.err));
        } else if contents(&self.host.path("out")) != contents(&self.host.path("data")) {
            wrong.push("the newest snapshot restores something else".to_owned());
        }
        wrong
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.server.files().join(&self.prefix));
    }
}

/// How long a call is tried again: until it was tried twice where each attempt takes until a limit, briefly where it can only
/// fail, long enough for a busy machine otherwise.
fn patience(plan: &Plan) -> &'static str {
    match plan {
        Plan::Nothing => PATIENT,
        Plan::Each(_) => "16s",
        Plan::One(Cell { times: Times::Always, .. }) => "3s",
        Plan::One(cell) if cell.fault.takes_time() => "8s",
        Plan::One(_) => "1m",
    }
}

/// The fault of the `n`-th kind of request: one of those that take time, and else those that do not.
fn passing(n: usize, number: u64) -> Fault {
    let all = FAULTS.iter().map(|(fault, _)| *fault).filter(|fault| fault.is_passing() && !fault.asks_more());
    let (slow, quick): (Vec<Fault>, Vec<Fault>) = all.partition(|fault| fault.takes_time());
    let at = n + usize::try_from(number).unwrap();
    if n == 1 { slow[at % slow.len()] } else { quick[at % quick.len()] }
}

/// Lets the proxy do what a plan says to the requests of the vault with this name, below this prefix of this bucket; what it
/// sees of them.
fn meddle(
    proxy: &Proxy,
    plan: &Plan,
    old: &Arc<BTreeSet<String>>,
    (bucket, prefix, vault): (&str, &str, &str),
) -> Arc<Mutex<Seen>> {
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let (note, faults, old, met) = (Arc::clone(&seen), plan.clone(), Arc::clone(old), AtomicUsize::new(0));
    let [bucket, prefix, vault] = [bucket, prefix, vault].map(str::to_owned);
    proxy.judge(Some(Arc::new(move |line| {
        let Some(asked) = request::asked(line, &bucket, &prefix, &vault) else { return Act::Pass };
        let mut seen = note.lock().unwrap();
        let is_first = !seen.kinds.contains(&asked.kind);
        if is_first {
            seen.kinds.push(asked.kind.clone());
        }
        let fault = match &faults {
            Plan::Each(number) if is_first => passing(seen.kinds.len() - 1, *number),
            Plan::One(cell) if cell.kind == asked.kind => {
                if cell.times == Times::Once && met.fetch_add(1, Ordering::Relaxed) > 0 {
                    return Act::Pass;
                }
                cell.fault
            }
            _ => return Act::Pass,
        };
        seen.names.extend(asked.names);
        fault.act(&old, &prefix)
    })));
    seen
}

fn trial(scene: &Scene, server: &S3Server, plan: &Plan) -> Trial {
    let place = Place::new(scene, server);
    let proxy = Proxy::start(server.addr()).unwrap();
    place.point(scene.faulty, &proxy.endpoint());
    place.patience(PATIENT, patience(plan));
    let prefix = format!("{}/{}", place.prefix, scene.faulty);
    let seen = meddle(&proxy, plan, &scene.old, ("vault", &prefix, scene.faulty));
    let begun = Instant::now();
    let ended = place.verb();
    let took = begun.elapsed();
    let (mut wrong, is_same) = place.lost();
    if scene.name == "restore" {
        wrong.extend(place.wrong_bytes(&ended));
    }
    place.point(scene.faulty, &server.bucket.endpoint);
    place.patience(patience(plan), PATIENT);
    drop(proxy);
    // What ended well and changed nothing has the aftermath of the scene itself.
    if !is_same || ended.code != 0 || matches!(plan, Plan::Nothing) {
        wrong.extend(place.aftermath());
        wrong.extend(place.lost().0);
    }
    if took > LONGEST {
        wrong.push(format!("it took {took:?}"));
    }
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    Trial { ended, took, kinds: seen.kinds, names: seen.names, wrong }
}

/// The word of a cell; what is wrong with it is added to `wrong`.
fn judged((name, vault): (&str, &str), cell: &Cell, trial: &Trial, wrong: &mut Vec<String>) -> String {
    let Trial { ended, .. } = trial;
    let mut all = trial.wrong.clone();
    if trial.names.is_empty() {
        all.push("the request was not made".to_owned());
    }
    let words = format!("{}{}", ended.out, ended.err);
    let word = match ended.code {
        0 if ended.err.lines().any(|line| line.starts_with("warning")) => "told".to_owned(),
        0 => "ok".to_owned(),
        code @ (1 | 3 | 4 | 5 | 10 | 12) => {
            // These are about vaults as a whole.
            let whole = ["init", "doctor"].contains(&name) && words.contains(vault);
            // What a wrong listing or a wrong clock breaks is a later request: that one is named, or what is missing.
            let is_list = cell.kind.starts_with("LIST") && [Fault::Short, Fault::Altered].contains(&cell.fault);
            let later = (is_list || [Fault::Half, Fault::Old, Fault::Ahead, Fault::Behind].contains(&cell.fault))
                && words.contains(&format!("`{vault}`"));
            let whole = whole || later;
            if !whole && !trial.names.iter().any(|name| words.contains(name)) {
                all.push(format!("it ended with {code} and names none of {:?}", trial.names));
            }
            code.to_string()
        }
        code => {
            all.push(format!("it ended with {code}"));
            code.to_string()
        }
    };
    if cell.times == Times::Once && cell.fault.is_passing() && word != "ok" {
        all.push(format!("a fault that passes ended it: {word}"));
    }
    if !all.is_empty() {
        wrong.push(format!("{cell:?} after {:?}\n  {}\n  {words}", trial.took, all.join("\n  ")));
    }
    word
}

/// Splitmix64: the same order for the same seed.
fn shuffle(cells: &mut [Cell], mut seed: u64) {
    let mut next = || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    for at in (1..cells.len()).rev() {
        cells.swap(at, usize::try_from(next() % (at as u64 + 1)).unwrap());
    }
}

/// Of all cells, some in which each fault occurs that [`Plan::Each`] has not.
fn sample(mut cells: Vec<Cell>, seed: u64) -> Vec<Cell> {
    shuffle(&mut cells, seed);
    let mut faults = BTreeSet::new();
    let is_new = |cell: &Cell| {
        let is_there = cell.times == Times::Once && cell.fault.is_passing() && !cell.fault.asks_more();
        !is_there && faults.insert((cell.fault, cell.times))
    };
    cells.into_iter().filter(is_new).collect()
}

/// A kind of request, and the scene whose verb makes it.
type Row = (usize, String);

/// The page's table: for each row the words of its cells.
fn page(scenes: &[Scene], rows: &[Row], words: &BTreeMap<Cell, String>) -> String {
    let mut page = HEAD.to_owned();
    let heads: Vec<&str> = FAULTS.iter().map(|(_, head)| *head).collect();
    let _ = writeln!(page, "| verb | request | {} |\n|---|---|{}", heads.join(" | "), "---|".repeat(heads.len()));
    for (scene, kind) in rows {
        let cell = |fault| {
            if !Fault::applies(fault, kind) {
                return "–".to_owned();
            }
            let word = |times| words.get(&Cell { scene: *scene, kind: kind.clone(), fault, times });
            TIMES.map(|times| word(times).map_or("?", String::as_str)).join(" / ")
        };
        let cells: Vec<String> = FAULTS.iter().map(|(fault, _)| cell(*fault)).collect();
        let _ = writeln!(page, "| {} | {kind} | {} |", scenes[*scene].name, cells.join(" | "));
    }
    page
}

/// The word that the page has for a cell.
fn stands<'a>(page: &'a str, scenes: &[Scene], cell: &Cell) -> Option<&'a str> {
    let begin = format!("| {} | {} | ", scenes[cell.scene].name, cell.kind);
    let row = page.lines().find_map(|line| line.strip_prefix(&begin)?.strip_suffix(" |"))?;
    let at = FAULTS.iter().position(|(fault, _)| *fault == cell.fault)?;
    let (once, always) = row.split(" | ").nth(at)?.split_once(" / ")?;
    Some(if cell.times == Times::Once { once } else { always })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_survives_every_fault_and_each_ends_as_the_page_says() {
    let form = std::env::var("BACKUP_FAULT_CELLS").unwrap_or_default();
    let (all, every) = (form == "all" || form == "every", form == "every");
    let seed = number("BACKUP_FAULT_SEED").unwrap_or(1);
    let workers = number("BACKUP_FAULT_WORKERS").map_or(8, |workers| usize::try_from(workers).unwrap());
    let begun = Instant::now();
    let server = S3Server::start().unwrap();
    let scenes = scenes(&server).await;
    let first = if all { Plan::Nothing } else { Plan::Each(seed) };
    let firsts: Vec<Trial> =
        in_turn(&scenes.iter().collect::<Vec<_>>(), workers, |scene| trial(scene, &server, &first));
    let (mut wrong, mut rows, mut known) = (Vec::new(), Vec::<Row>::new(), BTreeSet::new());
    for (at, trial) in firsts.iter().enumerate() {
        let ended = &trial.ended;
        if ended.code != 0 || ended.err.contains("warning") || !trial.wrong.is_empty() {
            wrong.push(format!("{}, {first:?}: {ended:?} {:?}", scenes[at].name, trial.wrong));
        }
        // The clock is asked for where the last answer is too old: by whichever verb had to wait. `doctor` always asks.
        let steady = trial.kinds.iter().filter(|kind| *kind != "HEAD bucket" || scenes[at].name == "doctor");
        let new = steady.filter(|kind| known.insert((*kind).clone()) || every);
        rows.extend(new.map(|kind| (at, kind.clone())));
    }
    let cells = rows.iter().flat_map(|(scene, kind)| {
        let faults = FAULTS.iter().map(|(fault, _)| *fault).filter(|fault| fault.applies(kind));
        let times = faults.flat_map(|fault| TIMES.map(|times| (fault, times)));
        times.map(|(fault, times)| Cell { scene: *scene, kind: kind.clone(), fault, times })
    });
    let cells: Vec<Cell> = cells.collect();
    let of = cells.len();
    let chosen = if all { cells } else { sample(cells, seed) };
    let judge = |cell: &Cell| trial(&scenes[cell.scene], &server, &Plan::One(cell.clone()));
    let trials = in_turn(&chosen.iter().collect::<Vec<_>>(), workers, judge);
    let mut words = BTreeMap::new();
    for (cell, trial) in chosen.iter().zip(&trials) {
        let scene = &scenes[cell.scene];
        words.insert(cell.clone(), judged((scene.name, scene.faulty), cell, trial, &mut wrong));
    }
    println!(
        "{} of {of} cells of {} requests of {} verbs: {:.0?}",
        chosen.len(),
        rows.len(),
        scenes.len(),
        begun.elapsed()
    );
    if form == "all" && std::env::var_os("BACKUP_WRITE_FAULT_TABLE").is_some() {
        fs::write(PAGE, page(&scenes, &rows, &words)).unwrap();
    }
    if !every {
        let page = fs::read_to_string(PAGE).expect("docs/faults.md, which the long form writes");
        for (cell, word) in &words {
            let said = stands(&page, &scenes, cell);
            if said != Some(word) {
                wrong.push(format!("docs/faults.md says {said:?} of {} {cell:?}: {word}", scenes[cell.scene].name));
            }
        }
        let begins = |(scene, kind): &Row| format!("\n| {} | {kind} | ", scenes[*scene].name);
        wrong.extend(
            rows.iter()
                .map(begins)
                .filter(|begin| !page.contains(begin))
                .map(|row| format!("not in docs/faults.md:{row}")),
        );
        let in_page = page.lines().filter(|line| line.contains(" / ")).count();
        if in_page != rows.len() {
            wrong.push(format!("docs/faults.md has {in_page} requests, and there are {}", rows.len()));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Does the work with so many threads; results in the order of the work.
fn in_turn<T: Sync, R: Send>(work: &[&T], workers: usize, one: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = work.get(at) else { break };
                    let result = one(item);
                    done.lock().unwrap().insert(at, result);
                }
            });
        }
    });
    done.into_inner().unwrap().into_values().collect()
}
