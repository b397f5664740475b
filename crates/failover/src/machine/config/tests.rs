//! What is read, what is refused, and that the documentation says the same.

use super::*;
use proptest::prelude::*;

fn assemble(ours: &str, master: &str, metalogger: &str) -> Result<Config, Error> {
    let ours = Document::parse(ours);
    ours.check_keys()?;
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
    let format = config.in_force.iter().find(|setting| setting.key == "ARCHIVE_FORMAT").unwrap();
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
fn as_in_moosefs_the_last_definition_wins_and_there_are_no_inline_comments() {
    let document = Document::parse("A = 1\nA = 2 # x\n # not a comment\n");
    assert_eq!(document.get("A").unwrap().value, "2 # x");
    assert_eq!(document.odd, Some((3, " # not a comment".to_owned())));
}

#[test]
fn errors_name_the_line_and_what_is_wanted() {
    for (ours, wanted) in [
        ("\nARCHIVE_FORMAT = zip\n", "line 2: ARCHIVE_FORMAT = \"zip\" is not one of tar.xz, tlz"),
        ("SETTLE_MARGIN = soon", "line 1: SETTLE_MARGIN = \"soon\" is not a number of seconds"),
        ("SETTLE_MARGIN = -1", "is not a number of seconds"),
        ("PREFIX_LENGTH = 33", "is not a prefix length from 1 to 32"),
        ("ARCHIVE_LEVEL = 10", "is not a level from 0 to 9"),
        ("MASTER_SERVICE =", "is not a name"),
        ("NOTIFY = mail root", "is not the full path of a command"),
        ("COLOR = red", "line 1: unknown key COLOR; the keys are PREFIX_LENGTH"),
    ] {
        let text = assemble(ours, "", "").unwrap_err().to_string();
        assert!(text.contains(wanted), "{text}");
    }
}

#[test]
fn the_documentation_lists_exactly_these_keys() {
    let page = include_str!("../../../../../docs/configuration.md");
    let table = page.split("## Keys of mfspromote.cfg").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let keys: Vec<&str> = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(keys, KEYS);
}

#[test]
fn an_xparam_names_a_file_and_nothing_else() {
    assert_eq!(path_for_xparam("vip2").unwrap(), Path::new("/etc/mfs/mfspromote-vip2.cfg"));
    for bad in ["", "../x", "a/b", ".hidden", "a b"] {
        assert!(path_for_xparam(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_file_that_others_can_write_or_exchange_is_refused() {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let (folder, path, link) = (root.join("mfs"), root.join("mfs/x.cfg"), root.join("link.cfg"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(&path, "ARCHIVE_LEVEL = 3\n").unwrap();
    symlink(&path, &link).unwrap();
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let refused = || {
        [&path, &link].map(|path| match Config::load(path) {
            Err(Error::Unsafe { path }) => Some(path),
            Ok(_) => None,
            Err(e) => panic!("{e}"),
        })
    };
    assert_eq!(refused(), [None, None]);
    mode(&path, 0o666);
    assert_eq!(refused(), [Some(path.clone()), Some(path.clone())]);
    mode(&path, 0o644);
    mode(&folder, 0o775);
    assert_eq!(refused(), [Some(folder.clone()), Some(folder.clone())]);
    mode(&folder, 0o755);
    chown(&folder, Some(65_534), None).unwrap();
    assert_eq!(refused(), [Some(folder.clone()), Some(folder.clone())]);
    chown(&folder, Some(0), None).unwrap();
    std::os::unix::fs::lchown(&link, Some(65_534), None).unwrap();
    assert_eq!(refused(), [None, Some(link.clone())]);
    // MooseFS's own files name the folder that root works in.
    mode(&folder, 0o777);
    assert!(matches!(Document::load_lenient(&path), Err(Error::Unsafe { .. })));
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC*") {
        let _ = assemble(&text, &text, &text);
    }

    #[test]
    fn no_value_makes_it_panic(key in prop::sample::select(KEYS), value in "[-+]?[0-9.]{1,25}(e[0-9]{1,4})?|nan|inf|\\PC*") {
        let _ = assemble(&format!("{key} = {value}"), "", "");
    }

    #[test]
    fn what_is_written_is_what_is_read(key in "[A-Z_]{1,12}", value in "[a-z0-9/.*-]{1,12}") {
        let document = Document::parse(&format!("{key} = {value}\n"));
        prop_assert_eq!(&document.get(&key).unwrap().value, &value);
    }
}
