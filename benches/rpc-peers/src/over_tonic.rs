//! tonic over a current-thread runtime, everything else as it comes.

use std::net::SocketAddr;

use bytes::Bytes;
use futures::future::try_join_all;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

use crate::load::{Load, drive};
use crate::{Error, LEAVES, ready};

mod plain {
    include!(concat!(env!("OUT_DIR"), "/vec/echo.rs"));
}

mod shared {
    include!(concat!(env!("OUT_DIR"), "/bytes/echo.rs"));
}

struct Echo {
    leaf: Option<Channel>,
}

impl Echo {
    async fn new(leaf: Option<SocketAddr>) -> Result<Self, Error> {
        Ok(Self { leaf: if let Some(leaf) = leaf { Some(connect(leaf).await?) } else { None } })
    }
}

async fn connect(to: SocketAddr) -> Result<Channel, Error> {
    Ok(Endpoint::from_shared(format!("http://{to}"))?.tcp_nodelay(true).connect().await?)
}

macro_rules! both_sides {
    ($module:ident, $serve:ident, $call:ident, $payload:ty) => {
        #[tonic::async_trait]
        impl $module::echo_server::Echo for Echo {
            async fn say(
                &self,
                request: Request<$module::SayRequest>,
            ) -> Result<Response<$module::SayReply>, Status> {
                Ok(Response::new($module::SayReply { payload: request.into_inner().payload }))
            }

            async fn gather(
                &self,
                request: Request<$module::SayRequest>,
            ) -> Result<Response<$module::SayReply>, Status> {
                let leaf = self.leaf.as_ref().ok_or_else(|| Status::unavailable("no --leaf was given"))?;
                let request = request.into_inner();
                let calls = (0..LEAVES).map(|_| {
                    let mut client = $module::echo_client::EchoClient::new(leaf.clone());
                    let request = request.clone();
                    async move { client.say(request).await }
                });
                try_join_all(calls).await?.pop().ok_or_else(|| Status::internal("nobody was asked"))
            }
        }

        pub async fn $serve(leaf: Option<SocketAddr>) -> Result<(), Error> {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            ready(listener.local_addr()?);
            let incoming = tokio_stream::StreamExt::map(TcpListenerStream::new(listener), |stream| {
                stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            });
            let service = $module::echo_server::EchoServer::new(Echo::new(leaf).await?);
            Ok(Server::builder().add_service(service).serve_with_incoming(incoming).await?)
        }

        pub async fn $call(load: Load) -> Result<(), Error> {
            let mut clients = Vec::new();
            for _ in 0..load.connections {
                clients.push($module::echo_client::EchoClient::new(connect(load.target).await?));
            }
            let (payload, gather) = (<$payload>::from(vec![7; load.payload]), load.gather);
            drive(&load, clients, move |mut client| {
                let payload = payload.clone();
                async move {
                    let bytes = payload.len();
                    let request = $module::SayRequest { payload };
                    let reply = if gather { client.gather(request).await } else { client.say(request).await };
                    let reply = reply?.into_inner();
                    if reply.payload.len() == bytes {
                        Ok(())
                    } else {
                        Err("a reply of another length".into())
                    }
                }
            })
            .await
        }
    };
}

both_sides!(plain, serve, call, Vec<u8>);
both_sides!(shared, serve_bytes, call_bytes, Bytes);
