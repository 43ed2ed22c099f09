//! tonic over a current-thread runtime, everything else as it comes.

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};

use crate::load::{Load, drive};
use crate::{Error, ready};

mod plain {
    include!(concat!(env!("OUT_DIR"), "/vec/echo.rs"));
}

mod shared {
    include!(concat!(env!("OUT_DIR"), "/bytes/echo.rs"));
}

struct Echo;

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
        }

        pub async fn $serve() -> Result<(), Error> {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            ready(listener.local_addr()?);
            let incoming = tokio_stream::StreamExt::map(TcpListenerStream::new(listener), |stream| {
                stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            });
            let service = $module::echo_server::EchoServer::new(Echo);
            Ok(Server::builder().add_service(service).serve_with_incoming(incoming).await?)
        }

        pub async fn $call(load: Load) -> Result<(), Error> {
            let mut clients = Vec::new();
            for _ in 0..load.connections {
                let endpoint = Endpoint::from_shared(format!("http://{}", load.target))?.tcp_nodelay(true);
                clients.push($module::echo_client::EchoClient::new(endpoint.connect().await?));
            }
            let payload = <$payload>::from(vec![7; load.payload]);
            drive(&load, clients, move |mut client| {
                let payload = payload.clone();
                async move {
                    let bytes = payload.len();
                    let reply = client.say($module::SayRequest { payload }).await?.into_inner();
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
