//! Writes `services.rs`: a module for each service, then the table of all methods.

use std::fmt::Write;

use prost_build::{Method, Service};

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
    method: &'a Method,
    options: &'a MethodOptions,
}

impl Line<'_> {
    fn constant(&self) -> String {
        snake(&self.method.proto_name).to_uppercase()
    }

    /// The message of the reply; nothing for a method that sends none.
    fn reply(&self) -> String {
        if self.options.one_way { "()".to_owned() } else { format!("pb::{}", self.method.output_type) }
    }

    fn access(&self) -> &'static str {
        match self.options.access.as_str() {
            "PHONE" => "Phone",
            "ANONYMOUS" => "Anonymous",
            _ => "Internal",
        }
    }
}

fn write_service(out: &mut String, module: &str, service: &Service, methods: &[Line<'_>], paths: &Paths) {
    let mut body = String::new();
    body.push_str("use ::bytes::Bytes;\n\n");
    let _ =
        writeln!(body, "use {}::rpc::method::{{self, Access, CallOptions, Channel, Method}};", paths.wire);
    let _ = writeln!(body, "use {}::status::Status;", paths.wire);
    let _ = writeln!(body, "use {} as pb;\n", paths.pb);
    for line in methods {
        write_constant(&mut body, service, line);
    }
    write_methods(&mut body, methods);
    write_server(&mut body, methods);
    write_dispatch(&mut body, service, methods);
    write_client(&mut body, methods);

    service.comments.append_with_indent(0, out);
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

fn write_constant(out: &mut String, service: &Service, line: &Line<'_>) {
    let MethodOptions { id, deadline_ms, priority, idempotent, one_way, .. } = line.options;
    line.method.comments.append_with_indent(0, out);
    let _ = writeln!(
        out,
        "pub const {}: Method = Method {{\n    id: {id:#06x},\n    service: \"{}\",\n    name: \"{}\",\n    \
         deadline_ms: {deadline_ms},\n    priority: {priority},\n    idempotent: {idempotent},\n    \
         access: Access::{},\n    one_way: {one_way},\n}};\n",
        line.constant(),
        service.proto_name,
        line.method.proto_name,
        line.access(),
    );
}

fn write_methods(out: &mut String, methods: &[Line<'_>]) {
    let names: Vec<String> = methods.iter().map(|line| format!("&{}", line.constant())).collect();
    let _ = writeln!(out, "pub const METHODS: &[&Method] = &[{}];\n", names.join(", "));
}

fn write_server(out: &mut String, methods: &[Line<'_>]) {
    out.push_str(
        "/// What serves this service. `C` is what its owner knows of one call: who calls, until when, and\n\
         /// what the reply's header shall carry.\n#[allow(async_fn_in_trait)]\npub trait Server<C> {\n",
    );
    for line in methods {
        line.method.comments.append_with_indent(1, out);
        let _ = writeln!(
            out,
            "    async fn {}(&self, ctx: &C, request: pb::{}) -> Result<{}, Status>;",
            line.method.name,
            line.method.input_type,
            line.reply()
        );
    }
    out.push_str("}\n\n");
}

fn write_dispatch(out: &mut String, service: &Service, methods: &[Line<'_>]) {
    out.push_str(
        "/// Decodes the request, calls `server`, encodes the reply. A number that no method here has ends in\n\
         /// `Code::UnknownMethod`, a body that is no such message in `Code::Invalid`.\n\
         pub async fn dispatch<C, S: Server<C>>(\n    server: &S,\n    ctx: &C,\n    method: u16,\n    body: Bytes,\n) \
         -> Result<Bytes, Status> {\n    match method {\n",
    );
    for line in methods {
        let (name, constant) = (&line.method.name, line.constant());
        let call = format!("server.{name}(ctx, method::decode_request(&{constant}, body)?).await?");
        let arm = if line.options.one_way {
            format!("{{\n            {call};\n            Ok(Bytes::new())\n        }}")
        } else {
            format!("Ok(method::encode(&{call})),")
        };
        let _ = writeln!(out, "        {:#06x} => {arm}", line.options.id);
    }
    let _ = writeln!(
        out,
        "        other => Err(method::unknown(\"{}\", other)),\n    }}\n}}\n",
        service.proto_name
    );
}

fn write_client(out: &mut String, methods: &[Line<'_>]) {
    out.push_str(
        "/// Calls this service over a channel.\n#[derive(Debug, Clone)]\npub struct Client<T>(pub T);\n\n\
         impl<T: Channel> Client<T> {\n",
    );
    for (at, line) in methods.iter().enumerate() {
        if at > 0 {
            out.push('\n');
        }
        let constant = line.constant();
        line.method.comments.append_with_indent(1, out);
        let _ = writeln!(
            out,
            "    pub async fn {}(\n        &self,\n        options: CallOptions,\n        request: &pb::{},\n    ) -> \
             Result<{}, Status> {{",
            line.method.name,
            line.method.input_type,
            line.reply()
        );
        let call = format!("self.0.call(&{constant}, options, method::encode(request)).await?");
        if line.options.one_way {
            let _ = writeln!(out, "        {call};\n        Ok(())\n    }}");
        } else {
            let _ = writeln!(
                out,
                "        let answer = {call};\n        method::decode_reply(&{constant}, answer.body)\n    }}"
            );
        }
    }
    out.push_str("}\n");
}

/// `METHODS` of all services, and the way from a number to its method: two loads.
fn write_table(out: &mut String, all: &[(u16, String)], paths: &Paths) {
    let names: Vec<String> = all.iter().map(|(_, path)| format!("    &{path},\n")).collect();
    let wire = &paths.wire;
    let _ = writeln!(
        out,
        "/// Every method, by rising number.\npub const METHODS: &[&{wire}::rpc::method::Method] = &[\n{}];\n",
        names.concat()
    );
    let tiers = all.iter().map(|(id, _)| id >> 8).max().map_or(0, |tier| tier + 1);
    let _ = writeln!(
        out,
        "/// By the high byte of the number, which names the tier, then by its low byte.\n\
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
        "];\n\n/// The method with this number.\n\
         pub fn method(id: u16) -> Option<&'static {wire}::rpc::method::Method> {{\n    \
         *TABLE.get(usize::from(id >> 8))?.get(usize::from(id & 0xff))?\n}}"
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
    out
}
