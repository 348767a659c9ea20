//! Tells the binary where the Python library is that it was linked with.

fn main() {
    pyo3_build_config::add_libpython_rpath_link_args();
}
