//! The package has the same bytes in every folder, time zone and language in which it is packed, and a list of the crates in it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::{Result, debian_package};
use serde_json::Value;

use crate::packages::output;

/// A cargo that compiles nothing: it has the programs and the pages of the first package.
const COMPILED: &str = "#!/bin/sh
case $1 in
    rustc) ;;
    run) for to; do :; done; cp -r \"$COMPILED/pages\" \"$to\" ;;
    *) exec \"$CARGO\" \"$@\" ;;
esac
";

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace")
}

/// The sources in another folder.
fn sources(folder: &Path) -> PathBuf {
    let sources = folder.join("another folder");
    fs::create_dir(&sources).expect("a new folder");
    let copy = "git ls-files -z --cached --others --exclude-standard | tar -c --null -T - | tar -x -C \"$0\"";
    output(Command::new("sh").args(["-c", copy]).arg(&sources).current_dir(top()));
    sources
}

/// Builds the package of `sources` as another person would, and compares it with the one of this workspace.
fn same_package(sources: &Path, mut adjust: impl FnMut(&mut Command)) -> Result<()> {
    let first = debian_package()?;
    let time = output(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(top()));
    let mut build = Command::new("sh");
    build.args(["-c", "umask 077; exec scripts/package deb"]).current_dir(sources);
    build.env("SOURCE_DATE_EPOCH", time.trim()).env("TZ", "Pacific/Chatham").env("LC_ALL", "C.UTF-8");
    build.env("LANGUAGE", "de").env_remove("CARGO_TARGET_DIR");
    adjust(&mut build);
    let second = sources.join(output(&mut build).trim());
    if fs::read(&first).expect("a package") != fs::read(&second).expect("a package") {
        let compare = "dpkg-deb -R \"$1\" \"$0/a\"; dpkg-deb -R \"$2\" \"$0/b\"; diff -r \"$0/a\" \"$0/b\"; \
                       dpkg-deb -c \"$1\" > \"$0/c\"; dpkg-deb -c \"$2\" | diff \"$0/c\" -; :";
        let differences = output(Command::new("sh").args(["-c", compare]).arg(sources).args([&first, &second]));
        panic!("{} and {} differ:\n{differences}", first.display(), second.display());
    }
    Ok(())
}

/// All but the compiler's part, which takes minutes: of that, only that no folder of the builder is in the programs.
#[test]
fn a_package_that_another_person_packs_has_the_same_bytes() -> Result<()> {
    debian_package()?;
    let folder = tempfile::tempdir().expect("a folder");
    let (sources, compiled) = (sources(folder.path()), top().join("target/package"));
    let release = sources.join("target/release");
    let cargo = folder.path().join("cargo");
    fs::create_dir_all(&release).expect("a new folder");
    for program in fs::read_dir(compiled.join("bin")).expect("programs").flatten() {
        fs::copy(program.path(), release.join(program.file_name())).expect("a copy");
    }
    fs::write(&cargo, COMPILED).expect("a script");
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).expect("a script");
    let path = std::env::var("PATH").expect("a PATH");
    let crates = std::env::var("CARGO_HOME").unwrap_or_else(|_| std::env::var("HOME").expect("a home") + "/.cargo");
    for program in fs::read_dir(&release).expect("programs").flatten() {
        let bytes = fs::read(program.path()).expect("a program");
        for folder in [top().to_str().expect("a plain name"), &crates] {
            let found = bytes.windows(folder.len()).any(|part| part == folder.as_bytes());
            assert!(!found, "{folder} is in {}", program.path().display());
        }
    }
    same_package(&sources, |build| {
        build.env("PATH", format!("{}:{path}", folder.path().display())).env("COMPILED", &compiled);
        build.env("CARGO", env!("CARGO"));
    })
}

/// Of every crate in the programs, its name, version and licence; and none of those that only tests or compilers use.
#[test]
fn the_package_lists_the_crates_in_the_programs() -> Result<()> {
    debian_package()?;
    let list = fs::read(top().join("target/package/crates.cdx.json")).expect("a list");
    let list: Value = serde_json::from_slice(&list).expect("JSON");
    let text = |component: &Value, name: &str| component[name].as_str().expect("a text").to_owned();
    let components = list["components"].as_array().expect("components");
    let listed: BTreeSet<String> = components
        .iter()
        .map(|one| format!("name = \"{}\"\nversion = \"{}\"\n", text(one, "name"), text(one, "version")))
        .collect();
    assert_eq!(listed.len(), components.len());
    let locked = fs::read_to_string(top().join("Cargo.lock")).expect("Cargo.lock");
    assert!(listed.iter().all(|one| locked.contains(one)), "{listed:?}");
    let has = |name: &str| listed.iter().any(|one| one.starts_with(&format!("name = \"{name}\"")));
    // The crates that lists are for are those with the code of others: xz, and what reads the network.
    assert!(["lzma-sys", "tar", "netlink-packet-route"].iter().all(|name| has(name)), "{listed:?}");
    assert!(!["proptest", "tempfile", "clap_derive", "cc", "lab"].iter().any(|name| has(name)), "{listed:?}");
    assert!(components.iter().all(|one| !one["licenses"][0]["expression"].as_str().unwrap_or("/").contains('/')));
    Ok(())
}
