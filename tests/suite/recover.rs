//! What a vault holds, judged by stock tools: the script in its own RECOVER page, the page's commands, `FORMAT.md`'s
//! commands, and signatures both ways.
//!
//! Everything runs under `env -i` with a `PATH` of links to exactly the programs that the page names: a tool that the
//! page forgets is not found here.

mod damage;
mod format;
mod grants;
mod imported;
mod postgres;
mod scene;
mod tree;

use std::fs;

use backup_core::source::files::FilesOptions;
use scene::Scene;
pub(crate) use tree::noise;

#[tokio::test]
async fn files_come_back_by_the_vaults_own_page() {
    let Some(scene) = Scene::new().await else { return };
    let root = scene.path("tree");
    tree::make(&root);
    let before = tree::look(&root);
    scene.backup("conf", &FilesOptions::new(vec![root.clone()])).await;
    let copy = scene.copy_of_vault();
    scene.check_page(&copy);
    fs::remove_dir_all(&root).unwrap();

    let out = scene.path("out");
    scene.recover(&copy, "conf", &out, &[], &[]).succeeds();
    let restored = out.join("files").join(root.strip_prefix("/").unwrap());
    assert_eq!(tree::look(&restored), before);
    assert!(before.len() > 10, "the tree is not empty");
    assert!(!out.join("work").exists(), "the generation's key stays behind");
}
