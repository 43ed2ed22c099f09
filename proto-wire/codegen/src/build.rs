//! What a package's `build.rs` calls.

use std::path::{Path, PathBuf};
use std::{env, fs, process};

use crate::{CodegenError, Paths, generate_locked, write};

/// Compiles a folder of `.proto` files for the package whose `build.rs` calls it.
#[derive(Debug)]
pub struct Build {
    folder: PathBuf,
    includes: Vec<PathBuf>,
    lock: Option<PathBuf>,
    paths: Paths,
}

impl Build {
    /// All `.proto` files in `folder` of the package and in folders below it; imports are named from there.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let paths = Paths { pb: "super::super::pb".to_owned(), wire: "::proto_wire".to_owned() };
        Self { folder: folder.into(), includes: Vec::new(), lock: None, paths }
    }

    /// One more folder in which imports are looked for. Its files are not compiled by themselves.
    pub fn include(mut self, folder: impl Into<PathBuf>) -> Self {
        self.includes.push(folder.into());
        self
    }

    /// The file that keeps the methods' numbers; check it in. New methods are added to it by the build.
    pub fn lock(mut self, file: impl Into<PathBuf>) -> Self {
        self.lock = Some(file.into());
        self
    }

    /// Where the crate `proto_wire` is found, when another crate gives it out: `::backend_stub::proto_wire`.
    pub fn wire(mut self, path: impl Into<String>) -> Self {
        self.paths.wire = path.into();
        self
    }

    /// Generates, or ends the build and says why.
    pub fn run(self) {
        let root = variable("CARGO_MANIFEST_DIR");
        let out_dir = variable("OUT_DIR");
        if let Err(error) = self.generate(Path::new(&root), Path::new(&out_dir)) {
            fail(&error);
        }
    }

    /// As [`Build::run`], with the package's folder and the place for the code said.
    pub fn generate(&self, root: &Path, out_dir: &Path) -> Result<(), CodegenError> {
        let folder = root.join(&self.folder);
        println!("cargo:rerun-if-changed={}", folder.display());
        let files = protos_of(&folder)?;
        let includes: Vec<PathBuf> = self.includes.iter().map(|include| root.join(include)).collect();
        for include in &includes {
            println!("cargo:rerun-if-changed={}", include.display());
        }
        let mut all: Vec<&Path> = vec![&folder];
        all.extend(includes.iter().map(PathBuf::as_path));
        let lock = self.lock.as_ref().map(|lock| root.join(lock));
        if let Some(lock) = &lock {
            println!("cargo:rerun-if-changed={}", lock.display());
        }
        let package = generate_locked(&all, &files, &self.paths, lock.as_deref(), out_dir)?;
        // What `prost` calls the file of a package, and of none.
        let messages = if package.is_empty() { "_" } else { &package };
        write(&out_dir.join("generated.rs"), modules(messages).as_bytes())
    }
}

/// The whole of what a package includes.
fn modules(messages: &str) -> String {
    format!(
        "/// The messages.\n#[allow(dead_code, missing_docs, clippy::all, clippy::pedantic)]\npub mod pb {{\n    \
         include!(concat!(env!(\"OUT_DIR\"), \"/{messages}.rs\"));\n}}\n\n\
         /// For each service its server traits and its clients; and the table of all methods.\npub mod services {{\n    \
         include!(concat!(env!(\"OUT_DIR\"), \"/services.rs\"));\n}}\n"
    )
}

/// All `.proto` files below a folder, in the order of their names.
pub(crate) fn protos_of(folder: &Path) -> Result<Vec<PathBuf>, CodegenError> {
    /// A link to a folder above would never end.
    const DEPTH_MAX: usize = 16;
    let mut folders = vec![(folder.to_owned(), 0)];
    let mut files = Vec::new();
    while let Some((folder, depth)) = folders.pop() {
        let told = |error| CodegenError::Io(folder.clone(), error);
        for entry in fs::read_dir(&folder).map_err(told)? {
            let path = entry.map_err(told)?.path();
            if path.is_dir() && depth < DEPTH_MAX {
                folders.push((path, depth + 1));
            } else if path.extension().is_some_and(|extension| extension == "proto") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Ends a build with what is wrong, as a line that cargo shows and on standard error.
pub fn fail(error: &CodegenError) -> ! {
    for line in error.to_string().lines() {
        println!("cargo:warning={line}");
    }
    eprintln!("{error}");
    process::exit(1);
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| {
        eprintln!("{name} is not set: this is for a build.rs");
        process::exit(1)
    })
}
