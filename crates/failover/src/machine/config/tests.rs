//! The values that are read, those that are refused, and that the documentation has the same keys.

use super::*;
use proptest::prelude::*;

fn assemble(ours: &str, master: &str, metalogger: &str) -> Result<Config, Error> {
    let ours = Document::parse(ours.as_bytes());
    check_keys(&ours)?;
    let (master, metalogger) = (Document::parse(master.as_bytes()), Document::parse(metalogger.as_bytes()));
    Config::assemble(&ours, &master, &metalogger, &mut Reader::default())
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
fn what_mfsmaster_takes_as_a_value_is_taken() {
    let master = |text: &str| assemble("", text, "");
    assert_eq!(master("WORKING_GROUP =\n").unwrap().working_group, None, "the user's own group");
    let ssd = assemble("", "DATA_PATH = /ssd/mfs\t# ssd\n", "DATA_PATH = /ssd/mfs/\r\n").unwrap();
    assert_eq!(ssd.data_path, Path::new("/ssd/mfs"));
    assert_eq!(master("WORKING_USER = #420\n").unwrap().working_user, "#420");
    for (text, port) in [
        ("9421\t# clients", 9421),
        ("ssh", 22),
        ("www", 80),
        ("+19421", 19421),
        ("09421", 9421),
        ("70000", 4464),
        ("4294967376", 80),
    ] {
        assert_eq!(master(&format!("MATOCL_LISTEN_PORT = {text}\n")).unwrap().client_port, port, "{text}");
    }
    let listen = |text: &str| master(&format!("MATOCL_LISTEN_HOST = {text}\n")).map(|config| config.client_host);
    assert_eq!(listen("*").unwrap(), Ipv4Addr::UNSPECIFIED);
    assert_eq!(listen("localhost").unwrap(), Ipv4Addr::LOCALHOST);
    assert_eq!(listen("10.1").unwrap(), Ipv4Addr::new(10, 0, 0, 1));
    let mixed = master("MATOCU_LISTEN_PORT = 9521\nMATOCL_LISTEN_HOST = 10.0.0.1\n").unwrap();
    assert_eq!(mixed.client_port, 9421, "the old names count together, or not at all");
}

#[test]
fn what_mfsmaster_cannot_start_with_is_refused() {
    for text in [
        "MATOCL_LISTEN_PORT =",
        "MATOCL_LISTEN_PORT = *",
        "MATOCL_LISTEN_PORT = 0",
        "MATOCL_LISTEN_PORT = 65536",
        "MATOCL_LISTEN_PORT = 0x24cd",
        "MATOCL_LISTEN_PORT = 9421 # clients",
        "MATOCL_LISTEN_PORT = nonsense",
        "MATOCS_LISTEN_PORT = -1",
        "MATOML_LISTEN_PORT = 9419 9420",
        "MATOCL_LISTEN_HOST =",
        "MATOCL_LISTEN_HOST = 300.1.2.3.4",
        "WORKING_USER =",
        "DATA_PATH =",
        "DATA_PATH = mfs",
    ] {
        let refused = assemble("", text, "");
        assert!(matches!(refused, Err(Error::BadValue { .. })), "{text}: {refused:?}");
    }
}

/// A folder with a `mfspromote.cfg` that names both files of MooseFS beside it.
fn files(ours: &str, master: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mfspromote.cfg");
    let theirs = |key, name| format!("{key} = {}\n", dir.path().join(name).display());
    let named = theirs("MASTER_CFG", "master.cfg") + &theirs("METALOGGER_CFG", "metalogger.cfg");
    std::fs::write(&path, named + ours).unwrap();
    std::fs::write(dir.path().join("master.cfg"), master).unwrap();
    std::fs::write(dir.path().join("metalogger.cfg"), "DATA_PATH = /srv/mfs\n").unwrap();
    (dir, path)
}

#[test]
fn a_demotion_works_with_what_can_be_read_and_with_no_other_folder() {
    use std::os::unix::fs::PermissionsExt;

    let master = "DATA_PATH = /srv/mfs\nMATOCL_LISTEN_PORT = 19421\n";
    for (ours, bad) in [
        ("NONSENSE = 1\n", ""),
        ("nonsense\n", ""),
        ("STOP_TIMEOUT = soon\n", ""),
        ("", "MATOCS_LISTEN_PORT = nonsense\n"),
        ("", "WORKING_USER =\n"),
    ] {
        let (_dir, path) = files(ours, &(master.to_owned() + bad));
        assert!(Config::load(&path).is_err());
        let config = Config::salvage(Some(&path));
        assert_eq!((config.data_path.as_path(), config.client_port), (Path::new("/srv/mfs"), 19421), "{ours}{bad}");
    }

    let unknown = |path: &Path| {
        let config = Config::salvage(Some(path));
        assert!(!config.knows_data_folder() && Folder::open(&config.data_path).is_err(), "{config:?}");
        config.knows_master_cfg()
    };
    let (dir, path) = files("", "DATA_PATH = mfs\n");
    assert!(unknown(&path), "no full path");
    std::fs::write(dir.path().join("master.cfg"), master).unwrap();
    std::fs::write(dir.path().join("metalogger.cfg"), "").unwrap();
    assert!(matches!(Config::load(&path), Err(Error::TwoFolders { .. })));
    assert_eq!(Config::salvage(Some(&path)).data_path, Path::new("/srv/mfs"), "that of the master");
    std::fs::rename(dir.path().join("master.cfg"), dir.path().join("away.cfg")).unwrap();
    assert!(unknown(&path), "on a disk that is not mounted");
    assert!(matches!(Config::load(&path), Err(Error::File(e)) if e.is_missing()));
    std::fs::rename(dir.path().join("away.cfg"), dir.path().join("master.cfg")).unwrap();
    let writable = |name: &str| {
        std::fs::set_permissions(dir.path().join(name), std::fs::Permissions::from_mode(0o666)).unwrap();
    };
    writable("master.cfg");
    assert!(unknown(&path), "others can write it");
    writable("mfspromote.cfg");
    assert!(!unknown(&path), "it may have named any file");
    assert!(!unknown(&dir.path().join("absent.cfg")));
    let (_dir, path) = files("MASTER_CFG = here\n", master);
    assert!(!unknown(&path) && matches!(Config::load(&path), Err(Error::BadValue { key: "MASTER_CFG", .. })));
}

#[test]
fn the_place_of_old_counts_where_the_new_one_has_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let (new, old) = (dir.path().join("mfs/x.cfg"), dir.path().join("x.cfg"));
    assert_eq!(first_that_exists(&new), new);
    std::fs::write(&old, "").unwrap();
    assert_eq!(first_that_exists(&new), old);
    std::fs::create_dir(dir.path().join("mfs")).unwrap();
    std::fs::write(&new, "").unwrap();
    assert_eq!(first_that_exists(&new), new);
}

#[test]
fn the_user_of_a_build_from_source_is_known_by_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = account(SOURCE_USER).unwrap();
    std::os::unix::fs::chown(dir.path(), Some(nobody.uid), None).unwrap();
    let data = Folder::open(dir.path()).unwrap();
    let user = |text| {
        let mut config = assemble("", text, "").unwrap();
        config.find_default_user(&data);
        config.working_user
    };
    assert_eq!([user(""), user("WORKING_USER = mfs\n")], ["nobody", "mfs"]);
    std::os::unix::fs::chown(dir.path(), Some(0), None).unwrap();
    let data = Folder::open(dir.path()).unwrap();
    let mut config = assemble("", "", "").unwrap();
    config.find_default_user(&data);
    assert_eq!(config.working_user, "mfs");
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
    assert!(Config::of(&named).is_err() && Config::salvage_for(named.named_file().as_deref()).is_none());
    assert_eq!(Config::salvage_for(None).unwrap().instance, Instance::default());
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC*") {
        let _ = assemble(&text, &text, &text);
    }
}
