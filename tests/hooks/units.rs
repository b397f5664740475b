//! The units of the package, as they are made for an instance.

use std::path::Path;
use std::process::{Command, Stdio};

fn packaging(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/packaging").join(name)
}

/// The lines of a template that are not those of the unit that it is made of.
fn made_of(unit: &str) -> Vec<String> {
    let file = std::fs::File::open(packaging(unit)).unwrap();
    let made = Command::new(packaging("instance-unit")).stdin(file).stderr(Stdio::inherit()).output().unwrap();
    let (made, plain) = (String::from_utf8(made.stdout).unwrap(), std::fs::read_to_string(packaging(unit)).unwrap());
    assert_eq!(made.lines().count(), plain.lines().count());
    made.lines().zip(plain.lines()).filter(|(made, plain)| made != plain).map(|(made, _)| made.to_owned()).collect()
}

#[test]
fn all_that_names_a_unit_a_file_or_a_program_of_ours_names_the_instance() {
    let units = ["moosefs-ucarp.service", "moosefs-ucarp-check.service", "moosefs-ucarp-check.timer"].map(made_of);
    for line in [
        "EnvironmentFile=/etc/default/moosefs-ucarp-%i",
        "ExecStart=/usr/libexec/moosefs-ucarp/ucarp-service start %i",
        "ExecStopPost=/usr/libexec/moosefs-ucarp/ucarp-service stopped %i",
        "Also=moosefs-ucarp-check@%i.timer",
    ] {
        assert!(units[0].iter().any(|made| made == line), "{line} in {units:?}");
    }
    assert!(units[1].iter().any(|line| line == "ExecStart=/usr/libexec/moosefs-ucarp/check %i"), "{units:?}");
    for line in units.iter().flatten() {
        assert!(line.contains("%i"), "{line}");
    }
}

#[test]
fn the_unit_of_an_instance_names_its_own_file() {
    let started = Command::new(packaging("ucarp-service")).args(["start", "two"]).env_clear().output().unwrap();
    assert_eq!(started.status.code(), Some(78));
    let said = String::from_utf8(started.stderr).unwrap();
    assert_eq!(said, "INTERFACE is not set in /etc/default/moosefs-ucarp-two\n");
}
