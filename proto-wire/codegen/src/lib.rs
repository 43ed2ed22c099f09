//! Server traits, clients and method tables from `.proto` files, without `protoc`.
//!
//! Each method says what it is in its option `(moorgate.method)`: number, deadline, priority, who may call
//! it. Two files come out: `<package>.rs` with the messages (prost), and `services.rs` with a module for
//! each service. What is wrong in an option ends the build with the file and the line.

#![forbid(unsafe_code)]

mod options;
mod render;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::{fmt, fs, io};

use protox::prost_reflect::DescriptorPool;

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
    /// Services lie in more than one package.
    Packages(String, String),
    Io(io::Error),
}

impl fmt::Display for CodegenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Its `Debug` names file, line and column; its `Display` does not.
            Self::Proto(error) => write!(f, "{error:?}"),
            Self::Methods(faults) => {
                let lines: Vec<String> = faults.iter().map(Fault::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
            Self::Packages(a, b) => write!(f, "services of two packages, {a} and {b}: generate each apart"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CodegenError {}

/// Compiles every `.proto` file under `include/<folder>` and writes the code into `out_dir`.
///
/// Returns the files read, for `cargo:rerun-if-changed`.
pub fn generate_folder(
    include: &Path,
    folder: &str,
    paths: &Paths,
    out_dir: &Path,
) -> Result<Vec<PathBuf>, CodegenError> {
    let mut files: Vec<PathBuf> = fs::read_dir(include.join(folder))
        .map_err(CodegenError::Io)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "proto"))
        .collect();
    files.sort();
    generate(&[include], &files, paths, out_dir)?;
    Ok(files)
}

/// Compiles `files` and writes `<package>.rs` and `services.rs` into `out_dir`.
pub fn generate(
    includes: &[&Path],
    files: &[PathBuf],
    paths: &Paths,
    out_dir: &Path,
) -> Result<(), CodegenError> {
    let mut compiler = protox::Compiler::new(includes).map_err(|e| CodegenError::Proto(Box::new(e)))?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(files).map_err(|e| CodegenError::Proto(Box::new(e)))?;

    let pool: DescriptorPool = compiler.descriptor_pool();
    let options = options::read(&pool, includes).map_err(CodegenError::Methods)?;

    let services = Rc::new(RefCell::new(Vec::new()));
    prost_build::Config::new()
        .bytes(["."])
        .service_generator(Box::new(Collector(Rc::clone(&services))))
        .out_dir(out_dir)
        .compile_fds(compiler.file_descriptor_set())
        .map_err(CodegenError::Io)?;

    let services = services.borrow();
    if let Some(other) = services.iter().find(|service| service.package != services[0].package) {
        return Err(CodegenError::Packages(services[0].package.clone(), other.package.clone()));
    }
    let code = render::services(&services, &options, paths);
    fs::write(out_dir.join("services.rs"), code).map_err(CodegenError::Io)
}

/// Takes the services aside, so that their code stands in a file of its own and not among the messages.
struct Collector(Rc<RefCell<Vec<prost_build::Service>>>);

impl prost_build::ServiceGenerator for Collector {
    fn generate(&mut self, service: prost_build::Service, _messages: &mut String) {
        self.0.borrow_mut().push(service);
    }
}
