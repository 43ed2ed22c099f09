//! tarpc over TCP and bincode, its payload by `serde_bytes`.

use std::net::SocketAddr;

use futures::StreamExt as _;
use futures::future::try_join_all;
use serde_bytes::ByteBuf;
use tarpc::server::{BaseChannel, Channel as _};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::{client, context, serde_transport};

use crate::load::{Load, drive};
use crate::{Error, LEAVES, ready};

#[tarpc::service]
trait Echo {
    async fn say(payload: ByteBuf) -> ByteBuf;
    async fn gather(payload: ByteBuf) -> ByteBuf;
}

#[derive(Clone)]
struct Server {
    leaf: Option<EchoClient>,
}

impl Echo for Server {
    async fn say(self, _: context::Context, payload: ByteBuf) -> ByteBuf {
        payload
    }

    /// Nothing, when there is no leaf or one does not answer: the caller sees that the length is another.
    async fn gather(self, _: context::Context, payload: ByteBuf) -> ByteBuf {
        let Some(leaf) = &self.leaf else { return ByteBuf::new() };
        let calls = (0..LEAVES).map(|_| leaf.say(context::current(), payload.clone()));
        try_join_all(calls).await.ok().and_then(|mut replies| replies.pop()).unwrap_or_default()
    }
}

async fn connect(to: SocketAddr) -> Result<EchoClient, Error> {
    let transport = serde_transport::tcp::connect(to, Bincode::default).await?;
    transport.get_ref().set_nodelay(true)?;
    Ok(EchoClient::new(client::Config::default(), transport).spawn())
}

pub async fn serve(leaf: Option<SocketAddr>) -> Result<(), Error> {
    let leaf = if let Some(leaf) = leaf { Some(connect(leaf).await?) } else { None };
    let server = Server { leaf };
    let mut incoming = serde_transport::tcp::listen(("127.0.0.1", 0), Bincode::default).await?;
    ready(incoming.local_addr());
    while let Some(transport) = incoming.next().await {
        let Ok(transport) = transport else { continue };
        transport.get_ref().set_nodelay(true)?;
        let channel = BaseChannel::with_defaults(transport);
        tokio::task::spawn_local(channel.execute(server.clone().serve()).for_each(|response| async move {
            tokio::task::spawn_local(response);
        }));
    }
    Ok(())
}

pub async fn call(load: Load) -> Result<(), Error> {
    let mut clients = Vec::new();
    for _ in 0..load.connections {
        clients.push(connect(load.target).await?);
    }
    let (payload, gather) = (ByteBuf::from(vec![7; load.payload]), load.gather);
    drive(&load, clients, move |client: EchoClient| {
        let payload = payload.clone();
        async move {
            let bytes = payload.len();
            let context = context::current();
            let reply = if gather {
                client.gather(context, payload).await?
            } else {
                client.say(context, payload).await?
            };
            if reply.len() == bytes { Ok(()) } else { Err("a reply of another length".into()) }
        }
    })
    .await
}
