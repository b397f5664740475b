//! Images that a master saved in need outside the data folder.
//!
//! A master that cannot write into its data folder writes `metadata.mfs.emergency` somewhere else (`mfsmaster/metadata.c`,
//! `meta_emergency_saves`), and `mfsmaster -a` looks in all those places. They are not ours to use or to move: some of
//! them every user can write. Looking follows no link and opens nothing but a regular file.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::image::{self, Image};
use crate::sys::folder::Folder;

const NAME: &str = "metadata.mfs.emergency";
/// Where `MooseFS` looks besides the home of its user.
const PLACES: [&str; 8] =
    ["/", "/tmp", "/var", "/usr", "/usr/share", "/usr/local", "/usr/local/var", "/usr/local/share"];

/// One such file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Emergency {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What it is; `None` if it is no regular file or cannot be read.
    pub(crate) image: Option<Image>,
    /// Last modification, Unix seconds.
    pub(crate) modified: u64,
    /// The user it belongs to: some of the places are open to every user.
    pub(crate) uid: u32,
}

impl Emergency {
    /// Its version, if it is a whole image of the file system with this metaid and goes beyond `version`. If `version` is
    /// what a staged set is to be served as, `mfsmaster -a` takes this image instead.
    pub(crate) fn beyond(&self, metaid: u64, version: u64) -> Option<u64> {
        match self.image {
            Some(Image::Complete { version: v, metaid: m, .. }) if v > version && (m == metaid || metaid == 0) => {
                Some(v)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Emergency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        match &self.image {
            Some(image @ Image::Complete { .. }) => write!(f, "a master saved this image in need ({image})")?,
            Some(image) => write!(f, "no usable image ({image})")?,
            None => f.write_str("not a regular file that can be read")?,
        }
        f.write_str("; it is not used, but mfsmaster -a looks there: move it away, or into the data folder to use it")
    }
}

/// The places where a master whose user has this home saves its image in need.
pub(crate) fn places(home: Option<&Path>) -> Vec<PathBuf> {
    home.into_iter().chain(PLACES.iter().map(Path::new)).map(Path::to_owned).collect()
}

/// The emergency files in `places`, except in the data folder, where they are part of the inventory.
pub(crate) fn look(data: &Folder, places: &[PathBuf]) -> Vec<Emergency> {
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
        let read = |mut file: File| image::read(&mut file).ok();
        found.push(Emergency {
            path: place.join(NAME),
            image: folder.read(NAME.as_ref()).ok().and_then(read),
            modified: u64::try_from(status.st_mtime).unwrap_or_default(),
            uid: status.st_uid,
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::testing::{Data, image};

    #[test]
    fn every_place_is_looked_at_once_and_no_link_is_followed() {
        let (data, a, b, c) =
            (Data::new().image(NAME, 9, 1), Data::new().image(NAME, 812, 7), Data::new(), Data::new());
        std::fs::write(c.path("elsewhere"), image(5, 5)).unwrap();
        std::os::unix::fs::symlink(c.path("elsewhere"), b.path(NAME)).unwrap();
        let places: Vec<_> = [&data, &a, &b, &a, &c].iter().map(|d| d.folder().path().to_owned()).collect();
        let found = look(&data.folder(), &places);
        assert_eq!(found.iter().map(|e| &e.path).collect::<Vec<_>>(), [&a.path(NAME), &b.path(NAME)]);
        assert!(matches!(found[0].image, Some(Image::Complete { version: 812, metaid: 7, .. })));
        assert_eq!(found[1].image, None);
        assert!(found[0].to_string().contains("(version 812, metaid 0x7); it is not used"), "{}", found[0]);
        let beyond = |metaid, version| found[0].beyond(metaid, version);
        assert_eq!([beyond(7, 811), beyond(0, 1), beyond(7, 812), beyond(6, 1)], [Some(812), Some(812), None, None]);
        assert_eq!(found[1].beyond(7, 1), None);
    }

    #[test]
    fn the_home_of_the_user_comes_first() {
        let places = places(Some(Path::new("/home/mfs")));
        assert_eq!(places[0], Path::new("/home/mfs"));
        assert!(places.iter().any(|place| place == Path::new("/usr/local/share")));
    }
}
