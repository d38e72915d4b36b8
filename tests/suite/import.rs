//! `backup import`: old dumps by stock `pg_dump`, brought back by `backup restore` and by the vault's own page, judged by
//! stock `pg_dump` of both databases.

mod refused;
mod scene;
mod time;

use scene::{DUMPS, Scene};

#[test]
fn every_format_comes_back_as_stock_programs_see_it() {
    let scene = Scene::new();
    let (before, properties) = (scene.picture("app"), scene.properties("app"));
    assert!(properties.len() > 8, "{properties:#?}");
    for (n, (name, arguments, format)) in DUMPS.into_iter().enumerate() {
        let file = scene.dump(name, arguments);
        let at = format!("2024-05-0{}T02:00:00Z", n + 1);
        let out = scene.import(&file, &["--at", &at, "--json"]).expect(0).json();
        assert_eq!(
            (&out["dump_format"], &out["instant_from"], &out["suspect"]),
            (&format.into(), &"operator".into(), &serde_json::json!([]))
        );
        assert_eq!((out["file"].as_str(), out["rows"].as_u64()), (Some(name), Some(scene.rows())));
        let id = out["snapshot"].as_str().unwrap();
        let into = format!("back_{n}");
        let proof = scene.restore(&[id, "--into", &into, "--json"]).expect(0).json();
        let tables = proof["sources"][0]["tables"].as_array().unwrap();
        assert_eq!(tables.len(), 8, "{proof:#}");
        assert!(tables.iter().all(|table| table["equal"] == true && table["read_back"] == true), "{proof:#}");
        let after = scene.picture(&into);
        if format != "plain" {
            assert_eq!(scene.properties(&into), properties, "{name}");
        }
        assert!(before == after, "{name}: {}", scene::differences(&before, &after));
    }
}
