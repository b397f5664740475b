//! Files that another user may put into a folder, and how root is protected from them.

use super::*;
use crate::sys::testing::{refusing, small_disk};
use std::os::unix::fs::symlink;

fn scratch() -> (tempfile::TempDir, Folder) {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    (dir, folder)
}

#[test]
fn a_symbolic_link_is_never_followed() {
    let (dir, folder) = scratch();
    std::fs::write(dir.path().join("target"), "secret").unwrap();
    symlink("target", dir.path().join("link")).unwrap();
    symlink(dir.path(), dir.path().join("dirlink")).unwrap();
    assert!(matches!(folder.read("link".as_ref()), Err(Error::NotAFile { .. })));
    assert!(matches!(folder.read("dirlink".as_ref()), Err(Error::NotAFile { .. })));
    assert!(folder.subfolder("dirlink".as_ref()).is_err());
    assert!(folder.create("link".as_ref(), 0o600).is_err());
}

#[test]
fn a_fifo_does_not_block_and_is_refused() {
    let (dir, folder) = scratch();
    nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(folder.read("fifo".as_ref()), Err(Error::NotAFile { .. })));
}

/// A folder of another user, and something of root's beside it.
fn of_another_user() -> (tempfile::TempDir, Folder) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), "root's").unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    std::os::unix::fs::chown(dir.path().join("data"), Some(65_534), Some(65_534)).unwrap();
    let folder = Folder::open(&dir.path().join("data")).unwrap();
    (dir, folder)
}

#[test]
fn a_second_name_of_a_foreign_file_is_not_read() {
    let (dir, folder) = of_another_user();
    let inside = |name: &str| dir.path().join("data").join(name);
    std::fs::hard_link(dir.path().join("secret"), inside("link")).unwrap();
    assert!(matches!(folder.read("link".as_ref()), Err(Error::ForeignLink { uid: 0, .. })));
    // Also where it was moved to meanwhile.
    let aside = folder.make_subfolder("aside".as_ref(), 0o700).unwrap();
    folder.rename("link".as_ref(), &aside, "link".as_ref()).unwrap();
    assert!(matches!(aside.read("link".as_ref()), Err(Error::ForeignLink { .. })));
    // An administrator's copy has one name, and the user's own file as many as he likes.
    std::fs::write(inside("copy"), "a copy").unwrap();
    folder.read("copy".as_ref()).unwrap();
    std::os::unix::fs::chown(inside("copy"), Some(65_534), None).unwrap();
    std::fs::hard_link(inside("copy"), inside("again")).unwrap();
    folder.read("again".as_ref()).unwrap();
}

#[test]
fn a_file_of_holes_is_not_read_and_one_with_a_hole_is() {
    let (dir, folder) = scratch();
    let file = |name: &str, size: u64| {
        let file = File::create(dir.path().join(name)).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"1: 1|A()\n", 0).unwrap();
        file.set_len(size).unwrap();
    };
    file("small", 1 << 20);
    file("huge", 1 << 42);
    folder.read("small".as_ref()).unwrap();
    assert!(matches!(folder.read("huge".as_ref()), Err(Error::Holes { size, .. }) if size == 1 << 42));
}

#[test]
fn endless_names_are_given_up() {
    let (dir, folder) = scratch();
    let first = dir.path().join("0");
    std::fs::write(&first, "").unwrap();
    for number in 1..=MOST_NAMES {
        // Links are quicker to make than files.
        if std::fs::hard_link(&first, dir.path().join(number.to_string())).is_err() {
            std::fs::write(dir.path().join(number.to_string()), "").unwrap();
        }
    }
    assert!(matches!(folder.names(), Err(Error::TooMany { .. })));
}

#[test]
fn a_folder_of_another_user_is_told_from_ours() {
    let (dir, folder) = of_another_user();
    assert!(!folder.is_ours().unwrap());
    assert!(folder.make_subfolder("new".as_ref(), 0o700).unwrap().is_ours().unwrap());
    assert!(folder.make_subfolder("new".as_ref(), 0o700).is_err());
    let new = dir.path().join("data/new");
    std::fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o770)).unwrap();
    assert!(!folder.subfolder("new".as_ref()).unwrap().is_ours().unwrap(), "a group can write there");
}

#[test]
fn names_that_leave_the_folder_are_refused() {
    let (_dir, folder) = scratch();
    for name in ["", ".", "..", "a/b", "/etc/passwd"] {
        assert!(matches!(folder.read(name.as_ref()), Err(Error::Name { .. })), "{name:?}");
    }
}

#[test]
fn asking_for_space_leaves_nothing_behind() {
    let (dir, folder) = scratch();
    std::fs::write(dir.path().join("a"), "a").unwrap();
    assert!(folder.free().unwrap() > 0);
    let _ = folder.shares_blocks("a".as_ref());
    assert!(!folder.shares_blocks("absent".as_ref()));
    assert_eq!(folder.names().unwrap(), ["a"]);
}

#[test]
fn a_lock_is_held_by_one_at_a_time() {
    let (_dir, folder) = scratch();
    let held = folder.lock("lock".as_ref(), Duration::ZERO).unwrap();
    assert!(held.is_some() && folder.lock("lock".as_ref(), Duration::from_millis(20)).unwrap().is_none());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| folder.lock("lock".as_ref(), Duration::from_secs(60)).unwrap().is_some());
        drop(held);
        assert!(waiting.join().unwrap());
    });
}

#[test]
fn a_file_is_locked_where_nothing_can_be_written() {
    small_disk(1, |disk| {
        let folder = Folder::open(disk).unwrap();
        assert!(folder.lock("lock".as_ref(), Duration::ZERO).unwrap().is_some());
        let remount = std::process::Command::new("mount").args(["-o", "remount,ro"]).arg(disk).status();
        assert!(remount.unwrap().success() && folder.try_write("file".as_ref()).is_err());
        let held = folder.lock("lock".as_ref(), Duration::ZERO).unwrap();
        assert!(held.is_some() && folder.lock("lock".as_ref(), Duration::ZERO).unwrap().is_none());
    });
}

#[test]
fn a_rename_never_replaces() {
    let (dir, folder) = scratch();
    std::fs::write(dir.path().join("a"), "a").unwrap();
    std::fs::write(dir.path().join("b"), "b").unwrap();
    assert!(folder.rename("a".as_ref(), &folder, "b".as_ref()).is_err());
    assert_eq!(std::fs::read_to_string(dir.path().join("b")).unwrap(), "b");
}

#[test]
fn a_user_may_be_a_number() {
    let own = |uid, gid| Some(Owner { uid, gid });
    assert_eq!(Owner::named("#0", None), own(0, 0));
    assert_eq!(Owner::named("root", Some("#7")), own(0, 7));
    assert_eq!(Owner::named("#4000000", Some("#4000001")), own(4_000_000, 4_000_001));
    assert_eq!(Owner::named("#4000000", None), None, "MooseFS cannot find its group either");
    assert_eq!(Owner::named("# 12x", Some("#")), own(12, 0));
    assert_eq!(Owner::named("#-1", Some("#0")), None);
    assert_eq!([Owner::named("", None), Owner::named("root", Some("no-such-group"))], [None, None]);
}

#[test]
fn a_rename_never_replaces_where_the_file_system_cannot_rename_so() {
    for errno in [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP] {
        refusing(&[(nix::libc::SYS_renameat2, errno)], || {
            let (dir, folder) = scratch();
            let to = folder.make_subfolder("to".as_ref(), 0o700).unwrap();
            std::fs::write(dir.path().join("a"), "a").unwrap();
            std::fs::write(dir.path().join("to/b"), "b").unwrap();
            assert!(folder.rename("a".as_ref(), &to, "b".as_ref()).is_err());
            assert_eq!(std::fs::read_to_string(dir.path().join("to/b")).unwrap(), "b");
            folder.rename("a".as_ref(), &to, "a".as_ref()).unwrap();
            assert_eq!(std::fs::read_to_string(dir.path().join("to/a")).unwrap(), "a");
            assert!(folder.rename("a".as_ref(), &to, "c".as_ref()).unwrap_err().is_not_found());
            // What is no regular file, too: a link is moved, not what it leads to.
            symlink("to/a", dir.path().join("link")).unwrap();
            folder.rename("link".as_ref(), &to, "link".as_ref()).unwrap();
            assert_eq!(std::fs::read_link(dir.path().join("to/link")).unwrap(), Path::new("to/a"));
            std::fs::create_dir(dir.path().join("folder")).unwrap();
            std::fs::write(dir.path().join("folder/file"), "").unwrap();
            assert!(folder.rename("folder".as_ref(), &folder, "to".as_ref()).is_err());
            assert!(folder.rename("folder".as_ref(), &to, "b".as_ref()).is_err());
            folder.rename("folder".as_ref(), &to, "folder".as_ref()).unwrap();
            assert_eq!(folder.names().unwrap(), ["to"]);
            assert_eq!(to.names().unwrap(), ["a", "b", "folder", "link"]);
        });
    }
}

#[test]
fn nothing_is_moved_where_there_are_no_hard_links_either() {
    for errno in [Errno::PERM, Errno::OPNOTSUPP] {
        refusing(&[(nix::libc::SYS_renameat2, Errno::INVAL), (nix::libc::SYS_linkat, errno)], || {
            let (dir, folder) = scratch();
            std::fs::write(dir.path().join("a"), "a").unwrap();
            let refused = folder.rename("a".as_ref(), &folder, "b".as_ref()).unwrap_err();
            assert!(matches!(refused, Error::NoSafeRename { .. }), "{refused}");
            assert_eq!(folder.names().unwrap(), ["a"]);
        });
    }
}
