//! Adds the path of the Python library to the binary.

fn main() {
    pyo3_build_config::add_libpython_rpath_link_args();
}
