//! The values that are read, those that are refused, and that the documentation has the same keys.

use super::*;
use proptest::prelude::*;

fn assemble(ours: &str, master: &str, metalogger: &str) -> Result<Config, Error> {
    let ours = Document::parse(ours);
    check_keys(&ours)?;
    Config::assemble(&ours, &Document::parse(master), &Document::parse(metalogger))
}

#[test]
fn nothing_configured_is_a_default_debian_installation() {
    let config = assemble("", "", "").unwrap();
    assert_eq!(config.data_path, Path::new("/var/lib/mfs"));
    assert_eq!(config.working_user, "mfs");
    assert_eq!((config.client_host, config.client_port), (Ipv4Addr::UNSPECIFIED, 9421));
    assert_eq!(config.prefix_length, None);
    assert_eq!(config.archive_format, ArchiveFormat::TarXz);
    assert!(config.in_force.iter().all(|setting| setting.origin == Origin::Default));
}

#[test]
fn values_carry_the_line_they_came_from() {
    let config = assemble("# ours\n\nARCHIVE_FORMAT = tlz\nPREFIX_LENGTH=16 \n", "", "").unwrap();
    assert_eq!((config.archive_format, config.prefix_length), (ArchiveFormat::Tlz, Some(16)));
    let format = config.in_force.iter().find(|setting| setting.key.name == "ARCHIVE_FORMAT").unwrap();
    assert!(matches!(format.origin, Origin::File { line: 3, .. }), "{format:?}");
}

#[test]
fn the_daemons_own_files_say_where_and_who() {
    let text = "DATA_PATH = /srv/mfs\nWORKING_USER = moose\nMATOCL_LISTEN_PORT = 19421\nLOCK_MEMORY = 1\n";
    let config = assemble("", text, "DATA_PATH=/srv/mfs").unwrap();
    assert_eq!(config.data_path, Path::new("/srv/mfs"));
    assert_eq!((config.working_user.as_str(), config.client_port), ("moose", 19421));
    assert!(matches!(assemble("", text, ""), Err(Error::TwoFolders { .. })));
    let old = assemble("", "MATOCU_LISTEN_PORT = 9521\nMATOCU_LISTEN_HOST = 10.0.0.1\n", "").unwrap();
    assert_eq!((old.client_port, old.client_host), (9521, Ipv4Addr::new(10, 0, 0, 1)));
}

#[test]
fn every_key_is_read_once_and_shown_in_the_order_of_the_table() {
    let config = assemble("", "", "").unwrap();
    let shown: Vec<&str> = config.in_force.iter().map(|setting| setting.key.name).collect();
    let old_name = |key: &&str| key.starts_with("MATOCU");
    let rows: Vec<&str> = KEYS.iter().chain(MOOSEFS_KEYS).map(|key| key.name).filter(|key| !old_name(key)).collect();
    assert_eq!(shown, rows);
}

#[test]
fn errors_name_the_line_and_the_values_that_are_valid() {
    for (ours, wanted) in [
        ("\nARCHIVE_FORMAT = zip\n", "line 2: ARCHIVE_FORMAT = \"zip\" is not valid; set it to one of tar.xz, tlz"),
        ("SETTLE_MARGIN = soon", "line 1: SETTLE_MARGIN = \"soon\" is not valid; set it to a number of seconds"),
        ("SETTLE_MARGIN = -1", "set it to a number of seconds"),
        ("PREFIX_LENGTH = 33", "set it to a prefix length from 1 to 32"),
        ("ARCHIVE_LEVEL = 10", "set it to a level from 0 to 9"),
        ("MASTER_SERVICE =", "set it to a name"),
        ("NOTIFY = mail root", "set it to the full path of a command"),
        ("COLOR = red", "line 1: unknown key COLOR; remove the line or use one of PREFIX_LENGTH, SETTLE"),
    ] {
        let text = assemble(ours, "", "").unwrap_err().to_string();
        assert!(text.contains(wanted), "{text}");
    }
}

#[test]
fn a_key_of_an_earlier_release_is_no_error() {
    let config = assemble("EPOCH_JUMP = 1000000\nARCHIVE_LEVEL = 3\n", "", "").unwrap();
    assert_eq!(config.archive_level, 3);
    assert!(config.in_force.iter().all(|setting| setting.key.name != "EPOCH_JUMP"));
    assert!(RETIRED.iter().all(|(retired, _)| KEYS.iter().all(|key| key.name != *retired)));
}

#[test]
fn the_documentation_lists_exactly_these_keys() {
    let page = include_str!("../../../../../docs/configuration.md");
    let table = page.split("## Keys of mfspromote.cfg").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let keys: Vec<&str> = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(keys, KEYS.iter().map(|key| key.name).collect::<Vec<_>>());
}

#[test]
fn without_its_file_a_named_instance_has_no_master_that_could_be_stopped() {
    let named = Instance::of_xparam(Some("absent-on-every-machine")).unwrap();
    assert!(Config::of(&named).is_err() && Config::fallback_of(&named).is_none());
    assert_eq!(Config::fallback_of(&Instance::default()).unwrap().instance, Instance::default());
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC*") {
        let _ = assemble(&text, &text, &text);
    }
}
