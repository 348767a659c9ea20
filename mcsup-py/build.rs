//! Tells the crate which Python it is built against, and its tests where that Python's library is.

fn main() {
    let config = pyo3_build_config::get();
    let version = config.version();
    println!("cargo:rustc-env=MCSUP_PYTHON_VERSION={}.{}", version.major, version.minor);
    println!("cargo:rustc-env=MCSUP_PYTHON={}", config.executable().unwrap_or("python3"));
    pyo3_build_config::add_libpython_rpath_link_args();
}
