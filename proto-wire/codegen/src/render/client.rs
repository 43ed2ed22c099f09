//! The caller's side: an async client, and its twin for coroutines.

use std::fmt::Write;

use super::Line;

pub fn write_async(out: &mut String, methods: &[Line<'_>]) {
    out.push_str(
        "/// Calls this service over a channel.\n#[derive(Debug, Clone)]\npub struct Client<T>(pub T);\n\n\
         impl<T: Channel> Client<T> {\n",
    );
    for (at, line) in methods.iter().enumerate() {
        if at > 0 {
            out.push('\n');
        }
        let constant = line.constant();
        line.write_docs(1, out);
        let _ = writeln!(
            out,
            "    pub async fn {}(\n        &self,\n        options: CallOptions,\n        request: &{},\n    ) -> \
             Result<{}, Status> {{",
            line.name(),
            line.request(),
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
    out.push_str("}\n\n");
}

/// The async client is waited for: what it needs of a stack is not the coroutine's.
pub fn write_sync(out: &mut String, methods: &[Line<'_>]) {
    out.push_str(
        "/// Calls this service from a coroutine, as if the call blocked. `W` is how to wait.\n\
         #[derive(Debug, Clone)]\npub struct SyncClient<T, W> {\n    client: Client<T>,\n    wait: W,\n}\n\n\
         impl<T: Channel, W: Wait> SyncClient<T, W> {\n    \
         /// Calls over `channel`.\n    pub fn new(channel: T, wait: W) -> Self {\n        \
         Self { client: Client(channel), wait }\n    }\n",
    );
    for line in methods {
        out.push('\n');
        line.write_docs(1, out);
        let _ = writeln!(
            out,
            "    pub fn {name}(&self, options: CallOptions, request: &{}) -> Result<{}, Status> {{\n        \
             self.wait.wait(self.client.{name}(options, request))?\n    }}",
            line.request(),
            line.reply(),
            name = line.name(),
        );
    }
    out.push_str("}\n");
}
