//! Load like h2load's, but each call is about another subject, which h2load cannot vary: the least that a client of HTTP/2
//! does for a unary rpc.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use h2::client::SendRequest;
use http::Request;
use prost::{Message, bytes::Bytes};
use tokio::{net::TcpStream, task::JoinSet};

use crate::{
    error::{Error, cannot, failed},
    load::framed,
    parts::replica::token_of,
};

/// Connections, and calls under way on each, as in the chapter about tokens from memory.
const CONNECTIONS: u64 = 10;
const STREAMS: u64 = 10;

/// Asks so many times for tokens of these subjects, in an order that jumps about, and tells the calls a second.
pub async fn flood(address: &str, subjects: &Arc<Vec<String>>, requests: u64) -> Result<f64, Error> {
    let next = Arc::new(AtomicU64::default());
    let mut tasks = JoinSet::new();
    let authority = address.trim_start_matches("http://");
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(connect(authority).await?);
    }
    let began = Instant::now();
    for connection in connections {
        for _ in 0..STREAMS {
            let (connection, next, subjects) = (connection.clone(), Arc::clone(&next), Arc::clone(subjects));
            let url = format!("{address}/bearerd.v1.TokenService/GetToken");
            tasks.spawn(async move {
                while let Some(turn) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|turn| *turn < requests) {
                    call(connection.clone(), &url, chosen(&subjects, turn)).await?;
                }
                Ok::<_, Error>(())
            });
        }
    }
    tasks.join_all().await.into_iter().collect::<Result<(), _>>()?;
    Ok(requests as f64 / began.elapsed().as_secs_f64())
}

/// Neighbours in the list, which were stored one after the other, are far apart in time.
fn chosen(subjects: &[String], turn: u64) -> &str {
    let length = u64::try_from(subjects.len()).unwrap_or(1).max(1);
    let index = usize::try_from(turn.wrapping_mul(0x9E37_79B9_7F4A_7C15) % length).unwrap_or_default();
    subjects.get(index).map_or("", String::as_str)
}

async fn connect(authority: &str) -> Result<SendRequest<Bytes>, Error> {
    let stream = TcpStream::connect(authority).await.map_err(cannot("connect to bearerd"))?;
    stream.set_nodelay(true).map_err(cannot("connect to bearerd"))?;
    let (connection, driver) = h2::client::handshake(stream).await.map_err(broken)?;
    // It ends with the connection, and whoever calls then hears of it.
    tokio::spawn(driver);
    Ok(connection)
}

async fn call(connection: SendRequest<Bytes>, url: &str, subject: &str) -> Result<(), Error> {
    let body = framed(&token_of(subject).encode_to_vec())?;
    let request = Request::post(url).header("content-type", "application/grpc").header("te", "trailers").body(());
    let request = request.map_err(|why| failed(why.to_string()))?;
    let mut connection = connection.ready().await.map_err(broken)?;
    let (answer, mut sending) = connection.send_request(request, false).map_err(broken)?;
    sending.send_data(Bytes::from(body), true).map_err(broken)?;
    let mut body = answer.await.map_err(broken)?.into_body();
    while let Some(data) = body.data().await {
        let length = data.map_err(broken)?.len();
        body.flow_control().release_capacity(length).map_err(broken)?;
    }
    let trailers = body.trailers().await.map_err(broken)?;
    match trailers.as_ref().and_then(|trailers| trailers.get("grpc-status")) {
        Some(status) if status == "0" => Ok(()),
        Some(_) | None => Err(failed(format!("bearerd gives no token: {trailers:?}"))),
    }
}

fn broken(why: h2::Error) -> Error {
    failed(format!("a connection to bearerd broke: {why}"))
}
