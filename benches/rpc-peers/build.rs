//! Two copies of the generated code: as it comes, with `Vec<u8>` for `bytes`, and with `Bytes`.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["echo.proto"], ["proto"]).expect("the .proto compiles");
    let out_dir = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it for build scripts"));
    for (name, bytes) in [("vec", false), ("bytes", true)] {
        let dir = out_dir.join(name);
        fs::create_dir_all(&dir).expect("a directory can be made there");
        let mut builder = tonic_prost_build::configure().out_dir(dir);
        if bytes {
            builder = builder.bytes(".");
        }
        builder.compile_fds(files.clone()).expect("code is generated");
    }
}
