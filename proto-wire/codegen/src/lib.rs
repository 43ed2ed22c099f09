//! Server traits, clients and method tables from `.proto` files, without `protoc`, for any crate's `build.rs`:
//!
//! ```no_run
//! proto_wire_codegen::Build::new("proto").lock("proto/methods.lock").run();
//! ```
//!
//! compiles every `.proto` under `proto/` of the package. Its library or program then says
//!
//! ```ignore
//! include!(concat!(env!("OUT_DIR"), "/generated.rs"));
//! ```
//!
//! and has a module `pb` with the messages and a module `services` with, for each service, an async server trait, its
//! synchronous twin for coroutines, a client of both kinds, and the table of all methods. The package depends on
//! `proto-wire` (and on `prost-types` if it uses Google's well-known types), on nothing else.
//!
//! Each method says what it is in its option `(moorgate.method)`: number, deadline, priority, who may call it; the file
//! `moorgate/options.proto` need not be copied, it comes from here. What is wrong in an option, or against the lock file
//! of the methods' numbers, ends the build with the file and the line.

#![forbid(unsafe_code)]

mod build;
mod lock;
mod options;
mod render;
mod resolver;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::{fmt, fs, io};

use protox::prost_reflect::DescriptorPool;

pub use build::{Build, fail};
pub use options::{Fault, MethodOptions};

/// Where generated code finds what it names.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The module that includes `<package>.rs`.
    pub pb: String,
    /// The crate `proto_wire`.
    pub wire: String,
}

/// Why no code was generated.
#[derive(Debug)]
pub enum CodegenError {
    /// The `.proto` files do not compile.
    Proto(Box<protox::Error>),
    /// Methods whose options are missing or wrong, each with its file and line.
    Methods(Vec<Fault>),
    /// Services or messages lie in more than one package.
    Packages(String, String),
    Io(PathBuf, io::Error),
}

impl fmt::Display for CodegenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Its `Debug` names file, line and column; its `Display` does not.
            Self::Proto(error) => {
                let told = format!("{error:?}");
                f.write_str(&told)?;
                // It says that the option's value is wrong, and not what in it.
                if told.contains("'moorgate.Method'") {
                    write!(f, "; it may say {}", resolver::names_of_options().join(", "))?;
                }
                Ok(())
            }
            Self::Methods(faults) => {
                let lines: Vec<String> = faults.iter().map(Fault::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
            Self::Packages(a, b) => write!(f, "files of two packages, {a} and {b}: generate each apart"),
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for CodegenError {}

/// The package that options and the system's own messages are in.
const OWN_PACKAGE: &str = "moorgate";

/// Compiles every `.proto` file under `include/<folder>` and writes the code into `out_dir`.
///
/// Returns the files read, for `cargo:rerun-if-changed`.
pub fn generate_folder(
    include: &Path,
    folder: &str,
    paths: &Paths,
    lock: Option<&Path>,
    out_dir: &Path,
) -> Result<Vec<PathBuf>, CodegenError> {
    let files = build::protos_of(&include.join(folder))?;
    generate_locked(&[include], &files, paths, lock, out_dir)?;
    Ok(files)
}

/// Compiles `files` and writes `<package>.rs`, `services.rs` and `descriptors.bin` into `out_dir`.
pub fn generate(
    includes: &[&Path],
    files: &[PathBuf],
    paths: &Paths,
    out_dir: &Path,
) -> Result<(), CodegenError> {
    generate_locked(includes, files, paths, None, out_dir).map(|_| ())
}

/// As [`generate`], and holds the methods' numbers against a lock file, to which new methods are added. Gives the package.
pub fn generate_locked(
    includes: &[&Path],
    files: &[PathBuf],
    paths: &Paths,
    lock: Option<&Path>,
    out_dir: &Path,
) -> Result<String, CodegenError> {
    let proto = |error| CodegenError::Proto(Box::new(error));
    let mut compiler = protox::Compiler::with_file_resolver(resolver::of(includes));
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(files).map_err(proto)?;

    let own: BTreeSet<String> =
        compiler.files().filter(|file| !file.is_import()).map(|file| file.name().to_owned()).collect();
    let pool: DescriptorPool = compiler.descriptor_pool();
    let package = package_of(&pool, &own)?;
    let options = options::read(&pool, &own, &package, includes).map_err(CodegenError::Methods)?;
    if let Some(lock) = lock {
        lock::hold(lock, &options, &pool, includes)?;
    }

    let is_rooted = paths.wire.starts_with("::") || paths.wire.starts_with("crate");
    let wire = if is_rooted { paths.wire.clone() } else { format!("::{}", paths.wire) };
    let services = Rc::new(RefCell::new(Vec::new()));
    let mut config = prost_build::Config::new();
    config
        .bytes(["."])
        .prost_path(format!("{wire}::prost"))
        .service_generator(Box::new(Collector(Rc::clone(&services))))
        .out_dir(out_dir);
    if package != OWN_PACKAGE {
        config.extern_path(format!(".{OWN_PACKAGE}"), format!("{wire}::pb"));
    }
    let set = compiler.file_descriptor_set();
    // What reflection gives out: all files with their imports, without the comments and places of their sources.
    let descriptors = compiler.include_source_info(false).encode_file_descriptor_set();
    write(&out_dir.join("descriptors.bin"), &descriptors)?;
    config.compile_fds(set).map_err(|error| CodegenError::Io(out_dir.to_owned(), error))?;

    let mut services = services.borrow_mut();
    services.retain(|service| service.package == package);
    let code = render::services(&services, &options, paths);
    write(&out_dir.join("services.rs"), code.as_bytes())?;
    Ok(package)
}

/// The one package of the files that were asked for.
fn package_of(pool: &DescriptorPool, own: &BTreeSet<String>) -> Result<String, CodegenError> {
    let mut packages =
        pool.files().filter(|file| own.contains(file.name())).map(|file| file.package_name().to_owned());
    let first = packages.next().unwrap_or_default();
    match packages.find(|other| *other != first) {
        Some(other) => Err(CodegenError::Packages(first, other)),
        None => Ok(first),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), CodegenError> {
    fs::write(path, bytes).map_err(|error| CodegenError::Io(path.to_owned(), error))
}

/// Takes the services aside, so that their code stands in a file of its own and not among the messages.
struct Collector(Rc<RefCell<Vec<prost_build::Service>>>);

impl prost_build::ServiceGenerator for Collector {
    fn generate(&mut self, service: prost_build::Service, _messages: &mut String) {
        self.0.borrow_mut().push(service);
    }
}
