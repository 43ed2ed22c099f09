//! Reads `(moorgate.method)` of every method, and finds what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use protox::prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, Kind, MethodDescriptor, ReflectMessage,
    ServiceDescriptor, Value,
};

/// The option's full name.
const EXTENSION: &str = "moorgate.method";

/// What a method says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodOptions {
    pub id: u16,
    pub deadline_ms: u32,
    pub priority: u8,
    pub idempotent: bool,
    /// The name of the value in `enum Access`: `INTERNAL`, `PHONE`, `ANONYMOUS`.
    pub access: String,
    pub one_way: bool,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub file: String,
    /// From 1; 0 when the source does not say.
    pub line: usize,
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// Options by (full name of the service, name of the method).
pub type Table = BTreeMap<(String, String), MethodOptions>;

/// Reads the options of all methods of the files in `own`; every fault is told, not only the first.
pub fn read(
    pool: &DescriptorPool,
    own: &BTreeSet<String>,
    package: &str,
    includes: &[&Path],
) -> Result<Table, Vec<Fault>> {
    let extension = pool.get_extension_by_name(EXTENSION);
    let (mut table, mut faults) = (Table::new(), Vec::new());
    let mut holders: BTreeMap<u16, String> = BTreeMap::new();
    for service in pool.services().filter(|service| own.contains(service.parent_file().name())) {
        for method in service.methods() {
            let checked = check_messages(&method, package);
            match checked.and_then(|()| read_method(&method, extension.as_ref())) {
                Ok(options) => {
                    if let Some(other) = holders.insert(options.id, method.full_name().to_owned()) {
                        let what =
                            format!("{} has id {:#06x}, which {other} has", method.full_name(), options.id);
                        faults.push(fault(&service, &method, includes, what));
                    }
                    table.insert((service.full_name().to_owned(), method.name().to_owned()), options);
                }
                Err(what) => {
                    let what = format!("{} {what}", method.full_name());
                    faults.push(fault(&service, &method, includes, what));
                }
            }
        }
    }
    if faults.is_empty() { Ok(table) } else { Err(faults) }
}

/// Generated code names messages of its own package, and those that other crates have.
fn check_messages(method: &MethodDescriptor, package: &str) -> Result<(), String> {
    for message in [method.input(), method.output()] {
        let of = message.parent_file().package_name().to_owned();
        if of != package && of != crate::OWN_PACKAGE && of != "google.protobuf" {
            return Err(format!("takes or gives {}, which is of another package", message.full_name()));
        }
    }
    Ok(())
}

fn read_method(
    method: &MethodDescriptor,
    extension: Option<&ExtensionDescriptor>,
) -> Result<MethodOptions, String> {
    if method.is_client_streaming() || method.is_server_streaming() {
        return Err("streams: a call has one request and one reply".to_owned());
    }
    let options = method.options();
    let extension = extension
        .filter(|extension| options.has_extension(extension))
        .ok_or("has no option (moorgate.method) = { id: .. deadline_ms: .. }")?;
    let value = options.get_extension(extension);
    let Value::Message(said) = &*value else {
        return Err("has a (moorgate.method) that is no message".to_owned());
    };

    let id = number(said, "id");
    let id =
        u16::try_from(id).ok().filter(|&id| id != 0).ok_or(format!("has id {id}, outside 1 to 0xffff"))?;
    let deadline_ms = number(said, "deadline_ms");
    if deadline_ms == 0 {
        return Err("has no deadline_ms: a call without an end holds its place for ever".to_owned());
    }
    let priority = number(said, "priority");
    let priority =
        u8::try_from(priority).map_err(|_| format!("has priority {priority}, outside 0 to 255"))?;
    Ok(MethodOptions {
        id,
        deadline_ms,
        priority,
        idempotent: flag(said, "idempotent"),
        access: access(said)?,
        one_way: flag(said, "one_way"),
    })
}

fn number(said: &DynamicMessage, field: &str) -> u32 {
    said.get_field_by_name(field).and_then(|value| value.as_u32()).unwrap_or(0)
}

fn flag(said: &DynamicMessage, field: &str) -> bool {
    said.get_field_by_name(field).and_then(|value| value.as_bool()).unwrap_or(false)
}

fn access(said: &DynamicMessage) -> Result<String, String> {
    let number = said.get_field_by_name("access").and_then(|value| value.as_enum_number()).unwrap_or(0);
    let kind = said.descriptor().get_field_by_name("access").map(|field| field.kind());
    let Some(Kind::Enum(values)) = kind else { return Err("has an access that is no enum".to_owned()) };
    let value = values.get_value(number).ok_or(format!("has access {number}, which is unknown"))?;
    Ok(value.name().to_owned())
}

/// A fault of a method that is known by name.
pub fn method_fault(
    pool: &DescriptorPool,
    service: &str,
    method: &str,
    includes: &[&Path],
    what: String,
) -> Fault {
    let service = pool.get_service_by_name(service);
    let found = service.as_ref().and_then(|s| s.methods().find(|m| m.name() == method).map(|m| (s, m)));
    match found {
        Some((service, method)) => fault(service, &method, includes, what),
        None => Fault { file: String::new(), line: 0, what },
    }
}

fn fault(service: &ServiceDescriptor, method: &MethodDescriptor, includes: &[&Path], what: String) -> Fault {
    let file = service.parent_file();
    let name = file.name();
    let shown = includes.iter().map(|include| include.join(name)).find(|path| path.exists());
    // A method's place in the source's table: field 6 (service) of the file, field 2 (method) of the service.
    let path = [6, service.index() as i32, 2, method.index() as i32];
    let line = file
        .file_descriptor_proto()
        .source_code_info
        .as_ref()
        .and_then(|info| info.location.iter().find(|location| location.path == path))
        .and_then(|location| location.span.first())
        .map_or(0, |&line| line as usize + 1);
    Fault { file: shown.map_or(name.to_owned(), |path| path.display().to_string()), line, what }
}
