//! Folders and prefixes of the configuration that lie in one another. Nothing that is there is harmed by it, and each night makes it
//! worse: a source that holds a vault captures all nights before it, and a vault inside another one is gone together with it.
//!
//! Symbolic links are followed, so that two names of one folder are one. Nothing but the folders' names is looked at.

use std::fs;
use std::path::{Path, PathBuf};

use backup_core::config::{Config, ConfigWarning, Place, S3, SourceKind, State, Vault};

/// Vaults inside vaults, and sources that hold a vault or the state.
pub(in crate::commands) fn places(config: &Config) -> Vec<ConfigWarning> {
    let mut warnings = Vec::new();
    for (at, one) in config.vaults.iter().enumerate() {
        for other in &config.vaults[at + 1..] {
            warnings.extend(nested(one, other).or_else(|| nested(other, one)));
        }
    }
    let mut held: Vec<(String, &Path)> = Vec::new();
    for vault in &config.vaults {
        if let Place::Path(path) = &vault.place {
            held.push((format!("vault.{}", vault.name), path));
        }
    }
    if let State::Folder(dir) = &config.state {
        held.push(("state".to_owned(), dir));
    }
    for source in &config.sources {
        let SourceKind::Files(files) = &source.kind else { continue };
        for path in &files.paths {
            for (key, inner) in held.iter().filter(|(_, inner)| real(inner).starts_with(real(path))) {
                warnings.push(ConfigWarning {
                    key: format!("source.{}.paths", source.name),
                    text: format!(
                        "`{}` holds `{key}` (`{}`): each capture takes in what all captures before it wrote there",
                        path.display(),
                        inner.display()
                    ),
                    hint: format!("move `{key}` out of it, or name in `paths` what lies beside it"),
                });
            }
        }
    }
    warnings
}

/// That `inner` lies inside `outer`, or is the same place.
fn nested(outer: &Vault, inner: &Vault) -> Option<ConfigWarning> {
    let (is_inside, is_same) = match (&outer.place, &inner.place) {
        (Place::Path(outer), Place::Path(inner)) => {
            let (outer, inner) = (real(outer), real(inner));
            (inner.starts_with(&outer), inner == outer)
        }
        // The same prefix twice is no configuration; only links make two names of one place.
        (Place::S3(outer), Place::S3(inner)) => {
            let bucket = |s3: &S3| (s3.endpoint.clone(), s3.region.clone(), s3.bucket.clone());
            (bucket(outer) == bucket(inner) && Path::new(&inner.prefix).starts_with(&outer.prefix), false)
        }
        _ => (false, false),
    };
    is_inside.then(|| ConfigWarning {
        key: format!("vault.{}", inner.name),
        text: if is_same {
            format!("it is the same place as `vault.{}`: there is one copy, not two", outer.name)
        } else {
            format!("it lies inside `vault.{}`: what loses that one loses both", outer.name)
        },
        hint: "give each vault a place of its own, best on another disk or machine".to_owned(),
    })
}

/// The path with the links in it followed, as far as it is there.
fn real(path: &Path) -> PathBuf {
    match (fs::canonicalize(path), path.parent(), path.file_name()) {
        (Ok(real), ..) => real,
        (Err(_), Some(parent), Some(name)) => real(parent).join(name),
        (Err(_), ..) => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(root: &Path, rest: &str) -> Vec<(String, String)> {
        let other = "[source.other]\ntype = \"files\"\npaths = [\"elsewhere\"]\n";
        let text = format!(
            "schema = 1\nstack = \"s\"\nstate = \"state\"\n[keys]\nrecipients = [\"{}\"]\nsigners = \"/s\"\n{rest}{other}",
            age::x25519::Identity::generate().to_public()
        );
        let config = Config::parse(&text, &root.join("t.toml")).unwrap();
        places(&config).into_iter().map(|one| (one.key, one.text)).collect()
    }

    #[test]
    fn what_lies_in_one_another_is_told_and_neighbours_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for name in ["a", "data"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        std::os::unix::fs::symlink(root.join("a"), root.join("link")).unwrap();
        let vault = |name: &str, path: &str| format!("[vault.{name}]\npath = \"{path}\"\n");
        let docs = |path: &str| format!("[source.docs]\ntype = \"files\"\npaths = [\"{path}\"]\n");
        let bucket = |name: &str, prefix: &str| {
            format!(
                "[vault.{name}]\ns3 = {{ endpoint = \"https://h\", bucket = \"b\", prefix = \"{prefix}\" }}\ncredentials = \"aws-chain\"\n"
            )
        };
        for (rest, key, text) in [
            (vault("x", "a") + &vault("y", "a/deep/er"), "vault.y", "lies inside `vault.x`"),
            (vault("x", "link/y") + &vault("y", "a"), "vault.x", "lies inside `vault.y`"),
            (vault("x", "link") + &vault("y", "a"), "vault.y", "the same place as `vault.x`"),
            (bucket("x", "v") + &bucket("y", "v/w"), "vault.y", "lies inside `vault.x`"),
            (bucket("x", "v") + &bucket("y", ""), "vault.x", "lies inside `vault.y`"),
            (vault("x", "data/v") + &docs("data"), "source.docs.paths", "holds `vault.x`"),
            (vault("x", "link/v") + &docs("a"), "source.docs.paths", "holds `vault.x`"),
        ] {
            let found = found(root, &rest);
            assert!(found.len() == 1 && found[0].0 == key && found[0].1.contains(text), "{found:?} of {rest}");
        }
        let all = found(root, &(vault("x", "v") + &docs(".")));
        assert!(all.len() == 2 && all[1].1.contains("holds `state`"), "{all:?}");
        for rest in [
            vault("x", "a") + &vault("y", "ab") + &docs("data"),
            bucket("x", "v") + &bucket("y", "vw"),
            vault("x", "a/v") + &docs("a/data"),
        ] {
            assert_eq!(found(root, &rest), [], "{rest}");
        }
    }
}
