//! Messages, server traits, clients and the table of methods from `proto/`.

use std::env;
use std::path::Path;

use proto_wire_codegen::{Paths, fail, generate_folder};

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it for build scripts");
    let out_dir = env::var("OUT_DIR").expect("cargo sets it for build scripts");
    let include = Path::new(&root).join("proto");
    println!("cargo:rerun-if-changed={}", include.display());
    let paths = Paths { pb: "crate::pb".to_owned(), wire: "crate".to_owned() };
    let lock = include.join("methods.lock");
    if let Err(error) = generate_folder(&include, "moorgate", &paths, Some(&lock), Path::new(&out_dir)) {
        fail(&error);
    }
}
