//! Messages, server traits, clients and the table of methods from `proto/`.

use std::path::Path;
use std::{env, process};

use proto_wire_codegen::{Paths, generate_folder};

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it for build scripts");
    let out_dir = env::var("OUT_DIR").expect("cargo sets it for build scripts");
    let include = Path::new(&root).join("proto");
    println!("cargo:rerun-if-changed={}", include.join("moorgate").display());
    let paths = Paths { pb: "crate::pb".to_owned(), wire: "crate".to_owned() };
    if let Err(error) = generate_folder(&include, "moorgate", &paths, Path::new(&out_dir)) {
        for line in error.to_string().lines() {
            println!("cargo:warning={line}");
        }
        eprintln!("{error}");
        process::exit(1);
    }
}
