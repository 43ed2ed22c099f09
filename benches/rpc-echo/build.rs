//! Messages, server traits and clients of `proto/`.

fn main() {
    proto_wire_codegen::Build::new("proto").lock("proto/methods.lock").run();
}
