//! An import among captures: of when it is, that nothing takes it for the newest, and that it changes nothing for captures.

use std::fs::{File, FileTimes};
use std::time::{Duration, SystemTime};

use super::scene::Scene;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn an_import_is_never_the_newest_and_changes_nothing_for_captures() {
    let scene = Scene::new();
    let stack = &scene.stack;
    let custom = scene.dump("app.dump", &["-Fc"]);
    scene.import(&custom, &["--at", "2021-03-01T00:00:00Z"]).expect(0);
    // Where there is nothing else it is the answer.
    let only = scene.restore(&["--source", "db", "--into", "x", "--dry-run", "--json"]).expect(0).json();
    assert!(only["plan"][0]["snapshot"].as_str().unwrap().starts_with("20210301T000000Z"), "{only:#}");
    let plan = only["plan"][0]["plan"].to_string();
    assert!(plan.contains("imported from `app.dump`"), "{plan}");

    let first = stack.backup(&["run", "--source", "db", "--json"]).expect(0).json();
    // By its file's time the newest of all.
    scene.import(&custom, &[]).expect(0);
    let second = stack.backup(&["run", "--source", "db", "--json"]).expect(0).json();
    let ids = [&first, &second].map(|run| run["sources"][0]["snapshot"].as_str().unwrap().to_owned());
    let added = |run: &serde_json::Value| run["sources"][0]["added_bytes"].as_u64().unwrap();
    assert!(added(&second) * 2 < added(&first), "what is known stays known: {} and {}", added(&first), added(&second));

    let listed = stack.backup(&["list", "--json"]).expect(0).json();
    let rows = listed["snapshots"].as_array().unwrap();
    let generation = |id: &str| rows.iter().find(|row| row["id"] == id).unwrap()["generation"].clone();
    assert_eq!(generation(&ids[0]), generation(&ids[1]));
    let imports: Vec<_> = rows.iter().filter(|row| row["imported"] == true).collect();
    assert_eq!((rows.len(), imports.len()), (4, 2));
    assert_ne!(imports[0]["generation"], imports[1]["generation"], "each has a generation of its own");
    assert_ne!(imports[1]["generation"], generation(&ids[0]));
    assert_eq!(stack.backup(&["list"]).expect(0).stdout.matches("imported").count(), 2);

    let chosen = |more: &[&str]| {
        let line = [&["--source", "db", "--into", "x", "--dry-run", "--json"], more].concat();
        scene.restore(&line).expect(0).json()["plan"][0]["snapshot"].as_str().unwrap().to_owned()
    };
    assert_eq!(chosen(&[]), ids[1]);
    assert_eq!(chosen(&["--latest"]), ids[1]);
    assert!(chosen(&["--at", "2023-01-01"]).starts_with("20210301T000000Z"));

    // The chain of captures closes, and nothing in the vault is amiss.
    stack.backup(&["verify"]).expect(0);
    let shown = stack.backup(&["show", &ids[1], "--json"]).expect(0).json();
    assert_eq!((shown["chain"].as_str(), shown["snapshot"]["previous"].is_string()), (Some("follows"), true));
    let shown = stack.backup(&["show", &ids[0], "--json"]).expect(0).json();
    assert_eq!(shown["chain"], "first");
    let import = imports[0]["id"].as_str().unwrap();
    let shown = stack.backup(&["show", import, "--json"]).expect(0).json();
    assert_eq!((shown["chain"].as_str(), shown["snapshot"]["previous"].is_null()), (Some("imported"), true));
    let shown = stack.backup(&["show", import, "--identity", &stack.text("operator/ops.txt")]).expect(0);
    assert!(shown.stdout.contains("imported    from app.dump, a custom dump"), "{}", shown.stdout);
    let status = stack.backup(&["status", "--json"]).all();
    assert!(status.contains(&ids[1]) && !status.contains("imported"), "{status}");

    // Expiry is not frozen by years without captures, and the imports stay.
    let prune = stack.backup(&["prune", "--json"]).expect(0).json().to_string();
    assert!(!prune.contains("no snapshot for more than"), "{prune}");
    assert_eq!(prune.matches("keep: imported").count(), 2, "{prune}");
}

#[test]
fn the_instant_is_what_the_dump_says_or_the_files_time() {
    let scene = Scene::new();
    let seen = |name: &str, arguments: &[&str], modified: u64| {
        let file = scene.dump(name, arguments);
        File::options()
            .append(true)
            .open(&file)
            .unwrap()
            .set_times(FileTimes::new().set_modified(at(modified)))
            .unwrap();
        let out = scene.import(&file, &["--dry-run", "--json"]).expect(0).json();
        (out["instant_from"].as_str().unwrap().to_owned(), out["instant"].as_str().unwrap().to_owned())
    };
    let known = |(from, instant): (String, String)| (from, instant[..10].to_owned());
    let old = 1_677_888_000;
    assert_eq!(known(seen("app.sql", &[], old)), ("modified".to_owned(), "2023-03-04".to_owned()));
    for (name, arguments) in [("app.dump", &["-Fc"][..]), ("app.tar", &["-Ft"]), ("verbose.sql", &["-v"])] {
        let (from, instant) = seen(name, arguments, old);
        assert_eq!(from, "dump", "{name}");
        assert!(instant.as_str() > "2025", "{name}: {instant}");
    }
    // The header has the digits of the clocks there; a plan that lies ahead of now cannot be right.
    scene.stack.configure("timezone = \"UTC\"", "timezone = \"America/Bogota\"");
    let ahead = scene.import(&scene.stack.path("app.dump"), &["--dry-run"]).expect(2);
    assert!(ahead.stderr.contains("has not come yet") && ahead.stderr.contains("--at"), "{}", ahead.stderr);
    let file = scene.stack.path("app.sql");
    File::options()
        .append(true)
        .open(&file)
        .unwrap()
        .set_times(FileTimes::new().set_modified(at(5_000_000_000)))
        .unwrap();
    scene.import(&file, &["--dry-run"]).expect(2);
}
