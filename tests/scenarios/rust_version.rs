//! `rust-version` is true: everything compiles with the Rust that Debian 13 ships.

use lab::{Release, Result, rust};

#[test]
fn everything_compiles_with_the_rust_of_debian_13() -> Result<()> {
    let version = rust::cargo(Release::Debian13, &["--version"])?;
    let workspace = include_str!("../../Cargo.toml");
    let promised = workspace.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("a rust-version");
    let promised = promised.trim_matches('"');
    assert!(version.starts_with(&format!("cargo {promised}.")), "{promised} is promised, this is {version}");
    rust::cargo(Release::Debian13, &["check", "--workspace", "--all-targets", "--locked"]).map(drop)
}
