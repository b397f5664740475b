//! Emergency images: images that a master saved outside the data folder, and what they mean for a promotion.
//!
//! A master that cannot write into its data folder writes `metadata.mfs.emergency` somewhere else
//! (`meta_emergency_saves` in `mfsmaster/metadata.c`), and `mfsmaster -a` looks in all those places. We never use such a
//! file. But a plan that ends before one is refused: `mfsmaster -a` would serve that image, or it holds changes that the
//! data folder lacks. Looking follows no link and opens nothing but a regular file.
//!
//! In some of the places (`/tmp`) every user can make files, and must neither block a promotion nor forge what it serves.
//! There the files of other users do not count, and while a master starts the name is [held](hold): by an empty file, which
//! the sticky bit of the folder protects and which a master passes over.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::Version;
use super::image::{self, Image};
use super::note::Changes;
use super::plan::{Loss, Plan};
use crate::sys::folder::{self, Folder, Owner, account};
use crate::sys::logging::chain;

const NAME: &str = "metadata.mfs.emergency";
/// Where `MooseFS` looks besides the home of its user.
const PLACES: [&str; 8] =
    ["/", "/tmp", "/var", "/usr", "/usr/share", "/usr/local", "/usr/local/var", "/usr/local/share"];

/// The mode of a folder where every user can make files, and nobody can touch those of others.
const OPEN: u32 = 0o1002;
/// How often another user may put a file into the place before it counts as impossible to hold.
const ATTEMPTS: u32 = 1000;

/// Why a plan must not be served while an emergency image is there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The master would load it.
    #[error(
        "{} is an image of version {version} of this file system; mfsmaster -a would serve it instead of the staged \
         version {served}: find out what wrote it, and move it away",
        path.display()
    )]
    Served {
        /// Where it is.
        path: PathBuf,
        /// Its version.
        version: Version,
        /// The version of the staged set.
        served: Version,
    },
    /// It holds later changes.
    #[error(
        "{0} is an image of version {version} that a master saved; the files in {1} end at version {end}, so {2} {3} \
         only there: move it into {1} to use it, or away to lose them",
        path.display(), data.display(), only_there(*end, *version), only_there(*end, *version).are()
    )]
    Newer {
        /// Where it is.
        path: PathBuf,
        /// Its version.
        version: Version,
        /// Where the files here end.
        end: Version,
        /// The data folder.
        data: PathBuf,
    },
    /// Other users could forge what is served.
    #[error("cannot keep other users from placing an image of theirs in {}", place.display())]
    Hold {
        /// The folder.
        place: PathBuf,
        /// The cause.
        #[source]
        source: folder::Error,
    },
}

fn only_there(end: Version, version: Version) -> Changes {
    Changes(end.next_change(), version.last_change())
}

/// One emergency image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Emergency {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What it is; `None` if it is no regular file or cannot be read.
    pub(crate) image: Option<Image>,
    /// Last modification, Unix seconds.
    pub(crate) modified: u64,
    /// Whether it belongs to root or to the master's user.
    trusted: bool,
    /// Whether it is in a place that is [held](hold) while a master starts.
    held: bool,
}

impl Emergency {
    /// Its version, if it is a complete image of the file system with this metaid and goes beyond `version`.
    fn beyond(&self, metaid: u64, version: Version) -> Option<Version> {
        match self.image {
            Some(Image::Complete { version: v, metaid: m, .. }) if v > version && (m == metaid || metaid == 0) => {
                Some(v)
            }
            _ => None,
        }
    }

    /// Why `plan` must not be served as version `served` beside this file. `data` is the data folder.
    pub(crate) fn judge(&self, plan: &Plan, served: Version, data: &Path) -> Option<Error> {
        if self.held && !self.trusted {
            return None;
        }
        let path = self.path.clone();
        if let Some(version) = self.beyond(plan.metaid, served) {
            return Some(Error::Served { path, version, served });
        }
        let version = self.beyond(plan.metaid, plan.end_version).filter(|_| self.trusted)?;
        Some(Error::Newer { path, version, end: plan.end_version, data: data.to_owned() })
    }
}

impl fmt::Display for Emergency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        match &self.image {
            Some(image @ Image::Complete { .. }) => write!(f, "an emergency image of a master ({image})")?,
            Some(image) => write!(f, "an unusable emergency image ({image})")?,
            None => f.write_str("not a regular file, or not readable")?,
        }
        if self.held && !self.trusted {
            return f.write_str("; another user has put it there: it does not count; remove it");
        }
        f.write_str("; not used, but mfsmaster -a looks there: move it away, or into the data folder to use it")
    }
}

/// The names of emergency images in the places that are open to every user, as long as this value exists.
#[must_use]
#[derive(Debug)]
pub(crate) struct Held(Vec<Folder>);

impl Drop for Held {
    fn drop(&mut self) {
        for place in &self.0 {
            // A master that has saved an image there meanwhile has filled the file.
            let removed = match place.status(NAME.as_ref()) {
                Ok(Some(status)) if status.st_size == 0 => place.remove(NAME.as_ref()),
                Ok(_) => Ok(()),
                Err(e) => Err(e),
            };
            if let Err(e) = removed {
                log::warn!("{}", chain(&e));
            }
        }
    }
}

/// Keeps other users from giving an image to the master that is about to be started as `owner`: it looks for images when it
/// starts. A file of another user is moved aside.
pub(crate) fn hold(owner: Owner) -> Result<Held, Error> {
    hold_in(&places(None), owner)
}

fn hold_in(places: &[PathBuf], owner: Owner) -> Result<Held, Error> {
    let mut held = Held(Vec::new());
    for place in places {
        let Ok(folder) = Folder::open(place) else { continue };
        if !folder.own_status().is_ok_and(|status| is_open(status.st_mode)) {
            continue;
        }
        match occupy(&folder, owner) {
            Ok(true) => held.0.push(folder),
            Ok(false) => (),
            Err(source) => return Err(Error::Hold { place: place.clone(), source }),
        }
    }
    Ok(held)
}

fn is_open(mode: u32) -> bool {
    mode & OPEN == OPEN
}

/// Puts an empty file in the place. False if there is an image of root or of the master: nobody else can touch that.
fn occupy(place: &Folder, owner: Owner) -> Result<bool, folder::Error> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        if let Some(status) = place.status(NAME.as_ref())? {
            let is_file = FileType::from_raw_mode(status.st_mode) == FileType::RegularFile;
            if is_file && (status.st_uid == 0 || status.st_uid == owner.uid) {
                // An empty one is left of a run that was killed.
                return Ok(status.st_size == 0);
            }
            let aside = format!("{NAME}.not-used-{}-{attempt}", std::process::id());
            if place.rename(NAME.as_ref(), place, aside.as_ref()).is_ok() {
                let (uid, path) = (status.st_uid, place.path().display());
                log::warn!("user {uid} has put {NAME} into {path}: renamed to {aside}, so that no master loads it");
            }
        }
        match place.create(NAME.as_ref(), 0o600) {
            // The master's own: one that cannot write its data folder later may save its image there.
            Ok(file) => return place.give(&file, NAME.as_ref(), owner).map(|()| true),
            // That user does not give in.
            Err(e) if attempt == ATTEMPTS => return Err(e),
            Err(_) => (),
        }
    }
}

/// All emergency files outside the data folder `data`, for a master that runs as `user`.
pub(crate) fn find(data: &Folder, user: &str) -> Vec<Emergency> {
    let user = account(user);
    look(data, &places(user.as_ref().and_then(|user| user.home.as_deref())), user.map(|user| user.uid))
}

/// Refuses to serve `plan` as version `served` if an emergency image of the master's `user` goes beyond it.
pub(crate) fn check(data: &Folder, user: &str, plan: &Plan, served: Version, loss: Loss) -> Result<(), Error> {
    match find(data, user).iter().find_map(|file| file.judge(plan, served, data.path())) {
        Some(newer @ Error::Newer { .. }) if loss == Loss::Allow => {
            log::warn!("data loss allowed: {newer}");
            Ok(())
        }
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Where a master saves its emergency image, if its user has this home.
fn places(home: Option<&Path>) -> Vec<PathBuf> {
    home.into_iter().chain(PLACES.iter().map(Path::new)).map(Path::to_owned).collect()
}

/// The emergency files in `places`, except in the data folder, where they are part of the inventory.
fn look(data: &Folder, places: &[PathBuf], uid: Option<u32>) -> Vec<Emergency> {
    let identity = |folder: &Folder| folder.own_status().ok().map(|status| (status.st_dev, status.st_ino));
    let mut seen = vec![identity(data)];
    let mut found = Vec::new();
    for place in places {
        let Ok(folder) = Folder::open(place) else { continue };
        // Some of the places are links to others.
        let this = identity(&folder);
        if seen.contains(&this) {
            continue;
        }
        seen.push(this);
        let Ok(Some(status)) = folder.status(NAME.as_ref()) else { continue };
        let trusted = status.st_uid == 0 || Some(status.st_uid) == uid;
        if trusted && status.st_size == 0 {
            // It holds the place.
            continue;
        }
        let read = |mut file: File| image::read(&mut file).ok();
        found.push(Emergency {
            path: place.join(NAME),
            image: folder.read(NAME.as_ref()).ok().and_then(read),
            modified: u64::try_from(status.st_mtime).unwrap_or_default(),
            trusted,
            held: folder.own_status().is_ok_and(|status| is_open(status.st_mode)),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::testing::{Data, image, me};

    fn found(data: &Data, places: &[&Data], uid: u32) -> Vec<Emergency> {
        let places: Vec<_> = places.iter().map(|place| place.folder().path().to_owned()).collect();
        look(&data.folder(), &places, Some(uid))
    }

    #[test]
    fn every_place_is_looked_at_once_and_no_link_is_followed() {
        let (data, a, b, c) =
            (Data::new().image(NAME, 9, 1), Data::new().image(NAME, 812, 7), Data::new(), Data::new());
        std::fs::write(c.path("elsewhere"), image(5, 5)).unwrap();
        std::os::unix::fs::symlink(c.path("elsewhere"), b.path(NAME)).unwrap();
        let found = found(&data, &[&data, &a, &b, &a, &c], me().uid);
        assert_eq!(found.iter().map(|e| &e.path).collect::<Vec<_>>(), [&a.path(NAME), &b.path(NAME)]);
        assert!(matches!(found[0].image, Some(Image::Complete { version: Version(812), metaid: 7, .. })));
        assert_eq!(found[1].image, None);
        assert!(found[0].to_string().contains("(version 812, metaid 0x7); not used"), "{}", found[0]);
    }

    #[test]
    fn an_image_is_judged_by_what_it_has_beyond_the_plan_and_whose_it_is() {
        let plan =
            Data::new().image("metadata_ml.mfs.back", 10, 7).log("changelog_ml.0.mfs", 10..=20, 0).plan().unwrap();
        let judged = |version, metaid, mine: bool, served| {
            let (data, place) = (Data::new(), Data::new().image(NAME, version, metaid));
            std::os::unix::fs::chown(place.path(NAME), Some(4711), None).expect("this test needs root");
            let found = found(&data, &[&place], if mine { 4711 } else { 4712 });
            found[0].judge(&plan, Version(served), Path::new("/data"))
        };
        assert!(judged(21, 7, true, 1021).is_none(), "all of it is in the plan");
        assert!(matches!(judged(25, 7, true, 1021), Some(Error::Newer { version: Version(25), end: Version(21), .. })));
        assert!(judged(25, 7, false, 1021).is_none(), "any user may have put it there");
        assert!(judged(25, 8, true, 1021).is_none(), "another file system");
        for mine in [true, false] {
            assert!(matches!(
                judged(1022, 7, mine, 1021),
                Some(Error::Served { version: Version(1022), served: Version(1021), .. })
            ));
        }
    }

    fn opened(place: &Data) {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
        std::fs::set_permissions(place.folder().path(), mode).unwrap();
    }

    #[test]
    fn in_a_place_that_is_open_to_every_user_the_files_of_others_do_not_count() {
        let plan = Data::new().image("metadata.mfs.back", 10, 7).plan().unwrap();
        let judged = |version, uid| {
            let (data, place) = (Data::new(), Data::new().image(NAME, version, 7));
            opened(&place);
            std::os::unix::fs::chown(place.path(NAME), Some(uid), None).expect("this test needs root");
            let found = found(&data, &[&place], 4711);
            let counts = !found[0].to_string().contains("it does not count");
            (found[0].judge(&plan, Version(1010), Path::new("/data")), counts)
        };
        for uid in [0, 4711] {
            assert!(matches!(judged(25, uid), (Some(Error::Newer { .. }), true)));
            assert!(matches!(judged(1 << 62, uid), (Some(Error::Served { .. }), true)));
        }
        assert!(matches!(judged(25, 4712), (None, false)));
        assert!(matches!(judged(1 << 62, 4712), (None, false)));
    }

    #[test]
    fn a_place_that_is_open_to_every_user_is_held_while_a_master_starts() {
        let owner = Owner { uid: 4711, gid: 4711 };
        let hold = |place: &Data| hold_in(&[place.folder().path().to_owned()], owner).unwrap();
        let names = |place: &Data| place.folder().names().unwrap().len();
        let (free, closed, foreign, folder) =
            (Data::new(), Data::new().image(NAME, 5, 7), Data::new().image(NAME, 9, 7), Data::new());
        for place in [&free, &foreign, &folder] {
            opened(place);
        }
        std::os::unix::fs::chown(foreign.path(NAME), Some(4712), None).expect("this test needs root");
        std::fs::create_dir(folder.path(NAME)).unwrap();
        std::os::unix::fs::chown(folder.path(NAME), Some(4712), None).unwrap();
        for (place, aside) in [(&free, 0), (&foreign, 1), (&folder, 1)] {
            let guard = hold(place);
            let status = place.folder().status(NAME.as_ref()).unwrap().unwrap();
            assert_eq!((status.st_size, status.st_uid, names(place)), (0, 4711, 1 + aside));
            assert_eq!(found(&Data::new(), &[place], 4711), [], "it is no image");
            // As a run that is killed leaves it.
            std::mem::forget(guard);
            drop(hold(place));
            assert_eq!(place.folder().status(NAME.as_ref()).unwrap().map(|status| status.st_size), None);
            assert_eq!(names(place), aside, "nothing of others is lost");
        }

        // One that a master saved, before or meanwhile, stays; so does all in places that only root can write.
        let guard = hold(&free);
        std::fs::write(free.path(NAME), image(9, 7)).unwrap();
        drop(guard);
        drop(hold(&free));
        drop(hold(&closed));
        assert!([&free, &closed].into_iter().all(|place| place.path(NAME).metadata().unwrap().len() > 0));
    }

    #[test]
    fn the_home_of_the_user_comes_first() {
        let places = places(Some(Path::new("/home/mfs")));
        assert_eq!(places[0], Path::new("/home/mfs"));
        assert!(places.iter().any(|place| place == Path::new("/usr/local/share")));
    }
}
