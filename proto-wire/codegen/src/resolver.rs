//! Where imported files come from: the folders that were named, then this crate for `moorgate/options.proto`, then
//! Google's own.

use std::path::Path;

use protox::Error;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver};

const OPTIONS: &str = "moorgate/options.proto";
const TEXT: &str = include_str!("../../proto/moorgate/options.proto");

pub fn of(includes: &[&Path]) -> ChainFileResolver {
    let mut chain = ChainFileResolver::new();
    for include in includes {
        chain.add(IncludeFileResolver::new(include.to_path_buf()));
    }
    chain.add(Options);
    chain.add(GoogleFileResolver::new());
    chain
}

/// What a method may say of itself, and who may call it.
pub fn names_of_options() -> Vec<String> {
    // The file is part of this crate, and `tests/options.rs` compiles it.
    let Ok(file) = File::from_source(OPTIONS, TEXT) else { return Vec::new() };
    let file = file.file_descriptor_proto();
    let fields =
        file.message_type.iter().flat_map(|message| &message.field).map(|field| field.name().to_owned());
    let values: Vec<&str> =
        file.enum_type.iter().flat_map(|access| &access.value).map(|value| value.name()).collect();
    fields
        .filter(|name| name != "method")
        .map(|name| if name == "access" { format!("access ({})", values.join(", ")) } else { name })
        .collect()
}

/// The file of our own options.
struct Options;

impl FileResolver for Options {
    fn open_file(&self, name: &str) -> Result<File, Error> {
        if name == OPTIONS { File::from_source(name, TEXT) } else { Err(Error::file_not_found(name)) }
    }
}
