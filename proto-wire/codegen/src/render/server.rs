//! The server's side: a trait of async functions, its synchronous twin, and what serves each.

use std::fmt::Write;

use super::Line;

/// The trait, the dispatcher, and [`Dispatch`] of it.
pub fn write_async(out: &mut String, methods: &[Line<'_>]) {
    out.push_str(
        "/// What serves this service. `C` is what its owner knows of one call: who calls, until when, and\n\
         /// what the reply's header shall carry.\n#[allow(async_fn_in_trait)]\npub trait Server<C> {\n",
    );
    for line in methods {
        line.write_docs(1, out);
        let _ = writeln!(
            out,
            "    async fn {}(&self, ctx: &C, request: {}) -> Result<{}, Status>;",
            line.name(),
            line.request(),
            line.reply()
        );
    }
    out.push_str("}\n\n");
    out.push_str(
        "/// Decodes the request, calls `server`, encodes the reply. A number that no method here has ends in\n\
         /// `Code::UnknownMethod`, a body that is no such message in `Code::Invalid`.\n\
         pub async fn dispatch<C, S: Server<C>>(\n    server: &S,\n    ctx: &C,\n    method: u16,\n    body: Bytes,\n) \
         -> Result<Bytes, Status> {\n",
    );
    write_match(out, methods, |line| {
        format!("server.{}(ctx, method::decode_request(&{}, body)?).await?", line.name(), line.constant())
    });
    out.push_str(
        "}\n\n/// Serves a [`Server`], among other services.\n#[derive(Debug, Clone)]\n\
         pub struct AsyncService<S>(pub S);\n\n\
         impl<C, S: Server<C>> Dispatch<C> for AsyncService<S> {\n    \
         fn method(&self, id: u16) -> Option<&'static Method> {\n        method::find(METHODS, id)\n    }\n\n    \
         async fn dispatch(&self, ctx: &Rc<C>, method: u16, body: Bytes) -> Result<Bytes, Status> {\n        \
         dispatch(&self.0, ctx, method, body).await\n    }\n}\n\n",
    );
}

/// The twin whose functions read as if they blocked, the dispatcher, and [`Dispatch`] of it.
pub fn write_sync(out: &mut String, methods: &[Line<'_>]) {
    out.push_str(
        "/// The synchronous twin of [`Server`]: plain functions, each call on a coroutine of its own, which may wait as\n\
         /// if they blocked their thread.\npub trait SyncServer<C> {\n",
    );
    for line in methods {
        line.write_docs(1, out);
        let _ = writeln!(
            out,
            "    fn {}(&self, ctx: &C, request: {}) -> Result<{}, Status>;",
            line.name(),
            line.request(),
            line.reply()
        );
    }
    out.push_str("}\n\n");
    out.push_str(
        "/// As [`dispatch`], with the handler on a coroutine of `runner`; request and reply are decoded and encoded\n\
         /// outside of it, so that its stack holds the handler alone.\n\
         pub async fn dispatch_sync<C: 'static, S: SyncServer<C> + 'static, R: Runner>(\n    server: &Rc<S>,\n    \
         runner: &R,\n    ctx: &Rc<C>,\n    method: u16,\n    body: Bytes,\n) -> Result<Bytes, Status> {\n",
    );
    write_match(out, methods, |line| {
        format!(
            "{{\n            let request: {} = method::decode_request(&{constant}, body)?;\n            \
             let (server, ctx) = (Rc::clone(server), Rc::clone(ctx));\n            \
             runner.run(&{constant}, move || server.{}(&ctx, request)).await?\n        }}",
            line.request(),
            line.name(),
            constant = line.constant(),
        )
    });
    out.push_str(
        "}\n\n/// Serves a [`SyncServer`], among other services.\n#[derive(Debug)]\n\
         pub struct SyncService<S, R> {\n    server: Rc<S>,\n    runner: R,\n}\n\n\
         impl<S, R: Runner> SyncService<S, R> {\n    \
         /// `runner` gives the coroutines.\n    pub fn new(server: S, runner: R) -> Self {\n        \
         Self { server: Rc::new(server), runner }\n    }\n}\n\n\
         impl<C: 'static, S: SyncServer<C> + 'static, R: Runner> Dispatch<C> for SyncService<S, R> {\n    \
         fn method(&self, id: u16) -> Option<&'static Method> {\n        method::find(METHODS, id)\n    }\n\n    \
         async fn dispatch(&self, ctx: &Rc<C>, method: u16, body: Bytes) -> Result<Bytes, Status> {\n        \
         dispatch_sync(&self.server, &self.runner, ctx, method, body).await\n    }\n}\n\n",
    );
}

/// `match method` with an arm for each; `call` gives the reply.
fn write_match(out: &mut String, methods: &[Line<'_>], call: impl Fn(&Line<'_>) -> String) {
    out.push_str("    match method {\n");
    for line in methods {
        let call = call(line);
        let arm = if line.options.one_way {
            format!("{{\n            {call};\n            Ok(Bytes::new())\n        }}")
        } else {
            format!("Ok(method::encode(&{call})),")
        };
        let _ = writeln!(out, "        {:#06x} => {arm}", line.options.id);
    }
    let name = methods.first().map_or("", |line| line.service.proto_name.as_str());
    let _ = writeln!(out, "        other => Err(method::unknown(\"{name}\", other)),\n    }}");
}
