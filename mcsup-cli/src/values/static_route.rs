//! A folder of static files and its route.

use std::path::PathBuf;

use super::Refused;

/// Parses `ROUTE=DIR`; the folder's path may contain `=`.
pub(crate) fn static_route(text: &str) -> Result<(String, PathBuf), Refused> {
    match text.split_once('=') {
        Some((route, folder)) if route.starts_with('/') && !folder.is_empty() => {
            Ok((route.to_owned(), PathBuf::from(folder)))
        }
        _ => Err("expected ROUTE=DIR, such as /static=static".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_a_path_and_a_folder() {
        assert_eq!(static_route("/static=a=b"), Ok(("/static".to_owned(), PathBuf::from("a=b"))));
        for text in ["static=a", "/static", "/static=", "", "=a"] {
            assert!(static_route(text).unwrap_err().contains("/static=static"), "{text}");
        }
    }
}
