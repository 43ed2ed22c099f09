//! Everything below `proto/`, as any package has it.

fn main() {
    proto_wire_codegen::Build::new("proto").lock("proto/methods.lock").run();
}
