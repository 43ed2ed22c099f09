//! Writes `services.rs`: a module for each service, then the table of all methods and the descriptors.

mod client;
mod server;

use std::fmt::Write;

use prost_build::{Comments, Method, Service};

use crate::Paths;
use crate::options::{MethodOptions, Table};

/// The whole file.
pub fn services(services: &[Service], options: &Table, paths: &Paths) -> String {
    let mut out = String::new();
    let mut all: Vec<(u16, String)> = Vec::new();
    for service in services {
        let methods: Vec<Line<'_>> = service
            .methods
            .iter()
            .map(|method| Line {
                service,
                method,
                options: &options
                    [&(format!("{}.{}", service.package, service.proto_name), method.proto_name.clone())],
            })
            .collect();
        let module = snake(&service.name);
        all.extend(methods.iter().map(|line| (line.options.id, format!("{module}::{}", line.constant()))));
        write_service(&mut out, &module, service, &methods, paths);
    }
    all.sort();
    write_table(&mut out, &all, paths);
    out
}

/// A method with its options.
struct Line<'a> {
    service: &'a Service,
    method: &'a Method,
    options: &'a MethodOptions,
}

impl Line<'_> {
    fn constant(&self) -> String {
        let name = snake(&self.method.proto_name).trim_start_matches("r#").to_uppercase();
        // `METHODS` is the list of all.
        if name == "METHODS" { "METHODS_".to_owned() } else { name }
    }

    /// The function's name.
    fn name(&self) -> &str {
        &self.method.name
    }

    fn request(&self) -> String {
        type_of(&self.method.input_type)
    }

    /// The message of the reply; nothing for a method that sends none.
    fn reply(&self) -> String {
        if self.options.one_way { "()".to_owned() } else { type_of(&self.method.output_type) }
    }

    fn access(&self) -> &'static str {
        match self.options.access.as_str() {
            "PHONE" => "Phone",
            "ANONYMOUS" => "Anonymous",
            _ => "Internal",
        }
    }

    /// The comments of the `.proto`; where there are none, what the options say.
    fn write_docs(&self, indent: u8, out: &mut String) {
        let MethodOptions { id, deadline_ms, priority, idempotent, one_way, .. } = self.options;
        let said = format!(
            "`{}.{}`: number {id:#06x}, {deadline_ms} ms, priority {priority}{}{}.",
            self.service.proto_name,
            self.method.proto_name,
            if *idempotent { ", idempotent" } else { "" },
            if *one_way { ", one-way" } else { "" },
        );
        write_docs(&self.method.comments, &said, indent, out);
    }
}

fn write_docs(comments: &Comments, otherwise: &str, indent: u8, out: &mut String) {
    if comments.leading.is_empty() && comments.trailing.is_empty() {
        let _ = writeln!(out, "{}/// {otherwise}", "    ".repeat(usize::from(indent)));
    } else {
        comments.append_with_indent(indent, out);
    }
}

/// A message where generated code names it. What another crate has comes with its whole path.
fn type_of(name: &str) -> String {
    let is_elsewhere = name == "()" || name.starts_with("::") || name.starts_with("crate::");
    if is_elsewhere { name.to_owned() } else { format!("pb::{name}") }
}

fn write_service(out: &mut String, module: &str, service: &Service, methods: &[Line<'_>], paths: &Paths) {
    let mut body = String::new();
    let wire = &paths.wire;
    let _ = writeln!(
        body,
        "use std::rc::Rc;\n\nuse {wire}::bytes::Bytes;\n\
         use {wire}::rpc::method::{{self, Access, CallOptions, Channel, Dispatch, Method, Runner, Wait}};\n\
         use {wire}::status::Status;\nuse {} as pb;\n",
        paths.pb
    );
    for line in methods {
        write_constant(&mut body, line);
    }
    write_methods(&mut body, methods);
    server::write_async(&mut body, methods);
    server::write_sync(&mut body, methods);
    client::write_async(&mut body, methods);
    client::write_sync(&mut body, methods);

    write_docs(&service.comments, &format!("The service `{}`.", service.proto_name), 0, out);
    // A program need not use all that there is, and a service may have no method at all.
    out.push_str("#[allow(dead_code, unused_imports, unused_variables, clippy::all, clippy::pedantic)]\n");
    let _ = writeln!(out, "pub mod {module} {{");
    for line in body.lines() {
        if line.is_empty() {
            out.push('\n')
        } else {
            let _ = writeln!(out, "    {line}");
        }
    }
    out.push_str("}\n\n");
}

fn write_constant(out: &mut String, line: &Line<'_>) {
    let MethodOptions { id, deadline_ms, priority, idempotent, one_way, .. } = line.options;
    line.write_docs(0, out);
    let _ = writeln!(
        out,
        "pub const {}: Method = Method {{\n    id: {id:#06x},\n    service: \"{}\",\n    name: \"{}\",\n    \
         deadline_ms: {deadline_ms},\n    priority: {priority},\n    idempotent: {idempotent},\n    \
         access: Access::{},\n    one_way: {one_way},\n}};\n",
        line.constant(),
        line.service.proto_name,
        line.method.proto_name,
        line.access(),
    );
}

fn write_methods(out: &mut String, methods: &[Line<'_>]) {
    let names: Vec<String> = methods.iter().map(|line| format!("&{}", line.constant())).collect();
    let _ = writeln!(
        out,
        "/// Every method of this service.\npub const METHODS: &[&Method] = &[{}];\n",
        names.join(", ")
    );
}

/// `METHODS` of all services, the way from a number to its method (two loads), and the descriptors.
fn write_table(out: &mut String, all: &[(u16, String)], paths: &Paths) {
    let names: Vec<String> = all.iter().map(|(_, path)| format!("    &{path},\n")).collect();
    let wire = &paths.wire;
    let _ = writeln!(
        out,
        "/// Every method, by rising number.\n#[allow(dead_code)]\n\
         pub const METHODS: &[&{wire}::rpc::method::Method] = &[\n{}];\n",
        names.concat()
    );
    let tiers = all.iter().map(|(id, _)| id >> 8).max().map_or(0, |tier| tier + 1);
    let _ = writeln!(
        out,
        "/// By the high byte of the number, which names the tier, then by its low byte.\n#[allow(dead_code)]\n\
         static TABLE: &[&[Option<&{wire}::rpc::method::Method>]] = &["
    );
    for tier in 0..tiers {
        let of_tier: Vec<_> = all.iter().filter(|(id, _)| id >> 8 == tier).collect();
        let places = of_tier.last().map_or(0, |(id, _)| (id & 0xff) + 1);
        let row: Vec<String> = (0..places)
            .map(|low| {
                let held = of_tier.iter().find(|(id, _)| id & 0xff == low);
                held.map_or("None".to_owned(), |(_, path)| format!("Some(&{path})"))
            })
            .collect();
        let _ = writeln!(out, "    &[{}],", row.join(", "));
    }
    let _ = writeln!(
        out,
        "];\n\n/// The method with this number.\n#[allow(dead_code)]\n\
         pub fn method(id: u16) -> Option<&'static {wire}::rpc::method::Method> {{\n    \
         *TABLE.get(usize::from(id >> 8))?.get(usize::from(id & 0xff))?\n}}\n\n\
         /// A `google.protobuf.FileDescriptorSet` of all files with their imports, for reflection.\n#[allow(dead_code)]\n\
         pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!(\"OUT_DIR\"), \"/descriptors.bin\"));"
    );
}

/// `CreateGroup` gives `create_group`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for (at, character) in name.chars().enumerate() {
        if character.is_ascii_uppercase() && at > 0 {
            out.push('_');
        }
        out.push(character.to_ascii_lowercase());
    }
    // A module may not have the name of a keyword.
    match out.as_str() {
        "self" | "super" | "crate" => format!("{out}_"),
        word if KEYWORDS.contains(&word) => format!("r#{out}"),
        _ => out,
    }
}

const KEYWORDS: &[&str] = &[
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "do", "dyn", "else",
    "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro",
    "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return", "static", "struct", "trait",
    "true", "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];
