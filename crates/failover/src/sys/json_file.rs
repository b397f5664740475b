//! One value in one JSON file, which is always replaced as a whole.
//!
//! The new text is written under another name, flushed and renamed, and then the folder is flushed. A reader finds the
//! old text or the new one, also after a power cut; never a part of one.
//!
//! Beside the fields of a value is the number of its format. A field that is missing in an older file must have a default; whatever
//! an older program would misread raises the number. That program then does not read the file, and one that writes it anew keeps the
//! later text under another name.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::sys::folder::{self, Folder};

/// The name of the number of the format.
const FORMAT_FIELD: &str = "format";
/// That of this program. Files without one, of before it was written, have the first one.
const FORMAT: u64 = 1;

/// Why a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It cannot be opened, renamed or removed.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// Its text cannot be read or written.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// `read` or `write`
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A later release wrote it.
    #[error(
        "{} was written by a later release of mfs-promote (format {format}, and this one knows {FORMAT}); install that release \
         again", path.display()
    )]
    Later {
        /// The file.
        path: PathBuf,
        /// The number of its format.
        format: u64,
    },
    /// No run of mfs-promote wrote this text.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}

/// The value in the file `name`; `None` if there is no such file.
pub(crate) fn read<T: DeserializeOwned>(folder: &Folder, name: &OsStr) -> Result<Option<T>, Error> {
    let mut file = match folder.read(name) {
        Ok(file) => file,
        Err(e) if e.is_not_found() => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let path = folder.path().join(name);
    let mut text = Vec::new();
    match file.read_to_end(&mut text) {
        Ok(_) => {
            let damaged = |source| Error::Damaged { path: path.clone(), source };
            let mut value: Value = serde_json::from_slice(&text).map_err(damaged)?;
            let format = value.as_object_mut().and_then(|fields| fields.remove(FORMAT_FIELD));
            match format.as_ref().and_then(Value::as_u64) {
                Some(format) if format > FORMAT => Err(Error::Later { path, format }),
                _ => serde_json::from_value(value).map(Some).map_err(damaged),
            }
        }
        Err(source) => Err(Error::Io { operation: "read", path, source }),
    }
}

/// Writes `value` to the file `name`, through to the disk.
pub(crate) fn write<T: Serialize>(folder: &Folder, name: &OsStr, value: &T) -> Result<(), Error> {
    let new = new_name(name);
    remove_if_present(folder, &new)?;
    if let Err(Error::Later { format, .. }) = read::<Value>(folder, name) {
        let mut kept = name.to_owned();
        kept.push(format!(".format-{format}"));
        folder.replace(name, &kept)?;
    }
    let mut file = folder.create(&new, 0o600)?;
    let text = numbered(value).and_then(|value| serde_json::to_vec_pretty(&value)).map_err(io::Error::from);
    let written = text.and_then(|text| file.write_all(&text).and_then(|()| file.sync_all()));
    written.map_err(|source| Error::Io { operation: "write", path: folder.path().join(name), source })?;
    folder.replace(&new, name)?;
    Ok(folder.sync()?)
}

/// The value with the number of its format, if it has fields.
fn numbered<T: Serialize>(value: &T) -> serde_json::Result<Value> {
    let mut value = serde_json::to_value(value)?;
    if let Value::Object(fields) = &mut value {
        fields.insert(FORMAT_FIELD.to_owned(), FORMAT.into());
    }
    Ok(value)
}

/// Removes the file `name`, and the half-written text of a run that was killed; flushes the folder. Neither has to
/// exist.
pub(crate) fn remove(folder: &Folder, name: &OsStr) -> Result<(), Error> {
    remove_if_present(folder, &new_name(name))?;
    remove_if_present(folder, name)?;
    Ok(folder.sync()?)
}

/// Under which name the new text of the file `name` is written.
fn new_name(name: &OsStr) -> OsString {
    let mut new = OsString::from(".");
    new.push(name);
    new
}

fn remove_if_present(folder: &Folder, name: &OsStr) -> Result<(), Error> {
    match folder.remove(name) {
        Err(e) if !e.is_not_found() => Err(e.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_the_last_value_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let name = OsStr::new("value.json");
        assert_eq!(read::<u32>(&folder, name).unwrap(), None);
        // A run was killed while it wrote.
        std::fs::write(dir.path().join(".value.json"), "{").unwrap();
        for value in [1, 2] {
            write(&folder, name, &value).unwrap();
            assert_eq!(read(&folder, name).unwrap(), Some(value));
        }
        assert_eq!(folder.names().unwrap(), [name]);
        std::fs::write(dir.path().join(".value.json"), "{").unwrap();
        remove(&folder, name).unwrap();
        remove(&folder, name).unwrap();
        assert!(folder.names().unwrap().is_empty());
    }

    #[test]
    fn files_of_earlier_releases_are_read_and_those_of_later_ones_are_refused() {
        #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        struct Kept {
            run: u32,
        }
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let (name, path) = (OsStr::new("value.json"), dir.path().join("value.json"));
        write(&folder, name, &Kept { run: 17 }).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("\"format\": 1"));
        for (text, wanted) in [("{\"run\": 1}", 1), ("{\"format\": 1, \"run\": 2, \"new\": true}", 2)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read(&folder, name).unwrap(), Some(Kept { run: wanted }));
        }
        std::fs::write(&path, "{\"format\": 2, \"run\": 3}").unwrap();
        let refused = read::<Kept>(&folder, name).unwrap_err();
        assert!(matches!(refused, Error::Later { format: 2, .. }), "{refused}");
        write(&folder, name, &Kept { run: 4 }).unwrap();
        assert_eq!(read(&folder, name).unwrap(), Some(Kept { run: 4 }));
        assert!(std::fs::read_to_string(dir.path().join("value.json.format-2")).unwrap().contains('3'), "it is kept");
        let map = std::collections::BTreeMap::from([("a".to_owned(), true)]);
        write(&folder, name, &map).unwrap();
        assert_eq!(read(&folder, name).unwrap(), Some(map));
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_an_absent_one() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        for text in ["", "{", "{\"run\": 17"] {
            std::fs::write(dir.path().join("value.json"), text).unwrap();
            assert!(matches!(read::<u32>(&folder, "value.json".as_ref()), Err(Error::Damaged { .. })), "{text}");
        }
    }
}
