//! tarpc over TCP and bincode, its payload by `serde_bytes`.

use futures::StreamExt as _;
use serde_bytes::ByteBuf;
use tarpc::server::{BaseChannel, Channel as _};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::{client, context, serde_transport};

use crate::load::{Load, drive};
use crate::{Error, ready};

#[tarpc::service]
trait Echo {
    async fn say(payload: ByteBuf) -> ByteBuf;
}

#[derive(Clone)]
struct Server;

impl Echo for Server {
    async fn say(self, _: context::Context, payload: ByteBuf) -> ByteBuf {
        payload
    }
}

pub async fn serve() -> Result<(), Error> {
    let mut incoming = serde_transport::tcp::listen(("127.0.0.1", 0), Bincode::default).await?;
    ready(incoming.local_addr());
    while let Some(transport) = incoming.next().await {
        let Ok(transport) = transport else { continue };
        transport.get_ref().set_nodelay(true)?;
        let channel = BaseChannel::with_defaults(transport);
        tokio::task::spawn_local(channel.execute(Server.serve()).for_each(|response| async move {
            tokio::task::spawn_local(response);
        }));
    }
    Ok(())
}

pub async fn call(load: Load) -> Result<(), Error> {
    let mut clients = Vec::new();
    for _ in 0..load.connections {
        let transport = serde_transport::tcp::connect(load.target, Bincode::default).await?;
        transport.get_ref().set_nodelay(true)?;
        clients.push(EchoClient::new(client::Config::default(), transport).spawn());
    }
    let payload = ByteBuf::from(vec![7; load.payload]);
    drive(&load, clients, move |client: EchoClient| {
        let payload = payload.clone();
        async move {
            let bytes = payload.len();
            let reply = client.say(context::current(), payload).await?;
            if reply.len() == bytes { Ok(()) } else { Err("a reply of another length".into()) }
        }
    })
    .await
}
