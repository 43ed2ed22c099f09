//! The golden vectors of `spec/vectors`: each is read from its bytes and written to them again.
//!
//! The cases stand in the modules beside this file. `MOORGATE_WRITE_VECTORS=1 cargo nextest run -p proto-wire
//! --test vectors` writes the files anew; a diff in a vector that is published is a break of the protocol.

mod bad_frames;
mod frames;
mod names;
mod rpc;
mod text;

use std::fmt::Debug;
use std::path::Path;
use std::{env, fs};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A file of vectors as it stands in `spec/vectors`.
#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct File<T> {
    /// What a reader must know of the fields.
    about: String,
    vectors: Vec<T>,
}

/// The vectors of the file, which must be those that the code knows.
fn vectors<T>(name: &str, about: &str, cases: Vec<T>) -> Vec<T>
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("spec/vectors").join(name);
    let expected = File { about: about.to_owned(), vectors: cases };
    if env::var_os("MOORGATE_WRITE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&expected).expect("vectors have a JSON form") + "\n";
        fs::write(&path, text).expect("the file can be written");
    }
    let text = fs::read_to_string(&path).expect("the file is part of the repository");
    let found: File<T> = serde_json::from_str(&text).expect("the file has the form of its vectors");
    assert!(found == expected, "{name} is not what the code says; see the head of tests/vectors/main.rs");
    found.vectors
}
