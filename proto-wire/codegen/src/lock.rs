//! The file that keeps the methods' numbers, so that none is changed or given to another method by oversight: callers in
//! the field go on using it.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use protox::prost_reflect::DescriptorPool;

use crate::options::{Fault, Table, method_fault};
use crate::{CodegenError, write};

const TOP: &str = "\
# The numbers of all methods that there ever were. The build adds new ones, and ends with an error when a method has
# another number than here, or has the number of another one. Check this file in. The line of a method that is gone stays:
# its number is not to be used again.
";

/// Checks all methods against the file, and adds those that are new to it.
pub fn hold(
    path: &Path,
    methods: &Table,
    pool: &DescriptorPool,
    includes: &[&Path],
) -> Result<(), CodegenError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(CodegenError::Io(path.to_owned(), error)),
    };
    let locked = read(path, &text).map_err(CodegenError::Methods)?;
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let mut wanted = locked.clone();
    let mut faults = Vec::new();
    for ((service, method), options) in methods {
        let (full_name, id) = (format!("{service}.{method}"), options.id);
        let its_own = locked.iter().find(|(_, holder)| **holder == full_name).map(|(id, _)| *id);
        let what = match (its_own, locked.get(&id)) {
            (Some(own), _) if own == id => continue,
            (Some(own), _) => format!("{full_name} has id {id:#06x}, and {name} keeps {own:#06x} for it"),
            (None, Some(holder)) => format!("{full_name} has id {id:#06x}, which {name} keeps for {holder}"),
            (None, None) => {
                wanted.insert(id, full_name);
                continue;
            }
        };
        faults.push(method_fault(pool, service, method, includes, what));
    }
    if !faults.is_empty() {
        return Err(CodegenError::Methods(faults));
    }
    if wanted == locked { Ok(()) } else { write(path, render(&wanted).as_bytes()) }
}

/// Full names by number.
fn read(path: &Path, text: &str) -> Result<BTreeMap<u16, String>, Vec<Fault>> {
    let (mut locked, mut faults) = (BTreeMap::new(), Vec::new());
    for (at, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let parsed = line.trim().split_once(' ').and_then(|(id, name)| {
            Some((u16::from_str_radix(id.strip_prefix("0x")?, 16).ok()?, name.trim().to_owned()))
        });
        let what = match parsed {
            Some((id, name)) => match locked.insert(id, name) {
                None => continue,
                Some(other) => format!("{id:#06x} stands here twice, for {other} too"),
            },
            None => format!("\"{line}\" is no line like \"0x0601 moorgate.Echo.Say\""),
        };
        faults.push(Fault { file: path.display().to_string(), line: at + 1, what });
    }
    if faults.is_empty() { Ok(locked) } else { Err(faults) }
}

fn render(locked: &BTreeMap<u16, String>) -> String {
    let lines: Vec<String> = locked.iter().map(|(id, name)| format!("{id:#06x} {name}\n")).collect();
    format!("{TOP}{}", lines.concat())
}
