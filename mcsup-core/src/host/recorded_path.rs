//! A path in a record for the next image, for serde's `with`: as text if it is UTF-8, otherwise as bytes.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize)]
#[serde(untagged)]
enum Written<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Read {
    Text(String),
    Bytes(Vec<u8>),
}

/// Serializes as text or bytes.
///
/// # Errors
/// Those of the serializer.
pub(crate) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    let bytes = path.as_os_str().as_bytes();
    path.to_str().map_or(Written::Bytes(bytes), Written::Text).serialize(to)
}

/// Deserializes text or bytes.
///
/// # Errors
/// The value is neither.
pub(crate) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<PathBuf, D::Error> {
    Ok(match Read::deserialize(from)? {
        Read::Text(text) => text.into(),
        Read::Bytes(bytes) => OsString::from_vec(bytes).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Record {
        #[serde(with = "super")]
        path: PathBuf,
    }

    #[test]
    fn a_path_is_recorded_whatever_bytes_it_has() {
        for (bytes, written) in [("/ü".as_bytes(), "{\"path\":\"/ü\"}"), (b"/\xff", "{\"path\":[47,255]}")]
        {
            let record = Record { path: OsString::from_vec(bytes.to_vec()).into() };
            let text = serde_json::to_string(&record).unwrap();
            assert_eq!(text, written);
            assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        }
    }
}
