//! The source packages: Debian's, built by a clean Debian 12 and 13 as their builders do, and what comes of it, installed and at
//! work; and that of rpm, built here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use lab::{Release, Result, debian_package, rust};

use crate::packages::output;

/// The folder of the source packages; made now, once per process.
fn source_package() -> PathBuf {
    static MADE: Mutex<bool> = Mutex::new(false);
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut made = MADE.lock().expect("no other test failed while it made the source package");
    if !*made {
        output(Command::new(top.join("scripts/package")).arg("source"));
        *made = true;
    }
    top.join("target/package/source")
}

/// The only file in a folder whose name ends so.
fn the_only(folder: &Path, end: &str) -> PathBuf {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
    let found: Vec<_> = entries.filter(|path| path.to_string_lossy().ends_with(end)).collect();
    let [one] = &found[..] else { panic!("{end} in {}: {found:?}", folder.display()) };
    one.clone()
}

/// Rights, owner and name of everything in a package.
fn contents(package: &Path) -> Vec<String> {
    let listed = output(Command::new("dpkg-deb").arg("--contents").arg(package));
    let line = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        // Between them are the size, which a compiler decides, and the time.
        let [rights, owner, _, _, _, name @ ..] = &words[..] else { panic!("{line}") };
        format!("{rights} {owner} {}", name.join(" "))
    };
    let mut lines: Vec<_> = listed.lines().map(line).collect();
    lines.sort();
    lines
}

fn field(package: &Path, name: &str) -> String {
    output(Command::new("dpkg-deb").arg("--field").arg(package).arg(name)).trim().to_owned()
}

/// What a package needs: the C library, and the rest.
fn needs(package: &Path) -> (String, String) {
    let all = field(package, "Depends");
    let (libc, rest) = all.split_once(", ").expect("more than the C library");
    (libc.to_owned(), rest.to_owned())
}

/// A script or list that a package brings for dpkg.
fn control_file(package: &Path, name: &str) -> String {
    let text = output(Command::new("dpkg-deb").arg("--info").arg(package).arg(name));
    // debhelper leaves an empty line where it had nothing to add.
    text.trim_end().to_owned()
}

fn silent_lintian(package: &Path) {
    let said = output(Command::new("lintian").args(["--tag-display-limit=0", "--allow-root"]).arg(package));
    assert_eq!(said, "", "{}", package.display());
}

/// The package that a release builds is the one of `scripts/package deb`, linked to that release's C library, and works there.
fn built_by(release: Release) -> Result<()> {
    let source = source_package();
    let folder = tempfile::tempdir().expect("a folder for the package");
    let said = rust::package(release, &source, folder.path())?;
    let built = the_only(folder.path(), ".deb");
    let ours = debian_package()?;
    assert_eq!(contents(&built), contents(&ours), "{said}");
    for name in ["Version", "Architecture", "Maintainer", "Recommends", "Suggests", "Description"] {
        assert_eq!(field(&built, name), field(&ours, name), "{name}");
    }
    for name in ["conffiles", "postinst", "prerm", "postrm"] {
        assert_eq!(control_file(&built, name), control_file(&ours, name), "{name}");
    }
    let (libc, rest) = needs(&built);
    eprintln!("{release:?}: {libc}");
    assert!(libc.starts_with("libc6 (>= 2."), "{libc}");
    assert_eq!(rest, needs(&ours).1);
    silent_lintian(&built);
    // dpkg refuses to install it if the release's C library is too old for it.
    eprintln!("{}", rust::try_package(release, folder.path())?);
    Ok(())
}

#[test]
#[ignore = "ten minutes of compiling; tests/README.md has the command"]
fn debian_12_builds_the_same_package_from_source() -> Result<()> {
    built_by(Release::Debian12)
}

#[test]
#[ignore = "ten minutes of compiling; tests/README.md has the command"]
fn debian_13_builds_the_same_package_from_source() -> Result<()> {
    built_by(Release::Debian13)
}

/// What rpm says of a package: its files with rights and owners, its scripts, and what it needs besides a C library: each version has
/// parts of its own.
fn told_by_rpm(package: &Path) -> Vec<String> {
    let files = "[%{FILEMODES:perms} %{FILEUSERNAME} %{FILEFLAGS} %{FILENAMES}\n]%{VERSION}-%{RELEASE}\n%{PACKAGER}\n";
    let said = [&["--queryformat", files][..], &["--scripts"], &["--requires"]]
        .map(|what| output(Command::new("rpm").args(["--query", "--package"]).args(what).arg(package)));
    let of_libc = |line: &str| ["libc.so", "libdl.so", "libpthread.so"].iter().any(|name| line.starts_with(name));
    said.concat().lines().filter(|line| !of_libc(line)).map(str::to_owned).collect()
}

/// Without a network, and from nothing but the source rpm.
#[test]
#[ignore = "five minutes of compiling; tests/README.md has the command"]
fn rpm_builds_the_same_package_from_source() -> Result<()> {
    let source = the_only(&source_package(), ".src.rpm");
    let folder = tempfile::tempdir().expect("a folder for the package");
    let define = |name: &str| format!("{name} {}", folder.path().display());
    let mut rpmbuild = Command::new("unshare");
    // What it needs to build is no rpm here.
    rpmbuild.args(["--net", "rpmbuild", "--rebuild", "--nodeps", "--define", &define("_topdir")]);
    rpmbuild.args(["--define", &define("_rpmdir"), "--define", "_rpmfilename built.rpm"]);
    rpmbuild.args(["--define", "_build_id_links none"]).arg(source);
    output(&mut rpmbuild);
    let ours = the_only(debian_package()?.parent().expect("the package is in a folder"), ".rpm");
    assert_eq!(told_by_rpm(&folder.path().join("built.rpm")), told_by_rpm(&ours));
    Ok(())
}

#[test]
fn lintian_has_nothing_to_say_about_the_source_package() {
    silent_lintian(&the_only(&source_package(), ".dsc"));
}

/// The licences in an expression, by the names that Debian gives them.
fn licences(expression: &str) -> BTreeSet<String> {
    let plain =
        expression.replace(" WITH LLVM-exception", "-LLVM").replace("-or-later", "+").replace(['/', '(', ')'], " ");
    let names = plain.split_whitespace().filter(|word| !["OR", "AND", "or", "and"].contains(word));
    names.map(|name| if name == "MIT" { "Expat" } else { name }.to_owned()).collect()
}

/// A crate that is new here, or whose licence has changed, may need a paragraph.
#[test]
fn the_copyright_file_names_the_licences_of_all_crates() {
    let text = include_str!("../../scripts/packaging/debian/copyright");
    let field = |paragraph: &str, name: &str| paragraph.split_once(name).map(|(_, rest)| rest.to_owned());
    let paragraphs: Vec<(String, BTreeSet<String>)> = text
        .split("\n\n")
        .filter_map(|paragraph| {
            let files = field(paragraph, "Files:")?.split("\nCopyright:").next()?.to_owned();
            let licence = field(paragraph, "\nLicense: ")?.lines().next()?.to_owned();
            Some((files, licences(&licence)))
        })
        .collect();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["metadata", "--format-version=1", "--locked", "--offline"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let metadata: serde_json::Value = serde_json::from_str(&output(&mut cargo)).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let crates: Vec<_> = packages.iter().filter(|package| !package["source"].is_null()).collect();
    assert!(!crates.is_empty());
    for package in crates {
        let word = |name: &str| package[name].as_str().expect("a text").to_owned();
        let folder = format!("vendor/{}-{}", word("name"), word("version"));
        let covers = |pattern: &str| pattern.strip_suffix('*').is_some_and(|start| folder.starts_with(start));
        // Of several paragraphs the last one counts.
        let named = paragraphs.iter().rev().find(|(files, _)| files.split_whitespace().any(covers));
        assert_eq!(named.map(|(_, licences)| licences), Some(&licences(&word("license"))), "{folder}");
    }
}
