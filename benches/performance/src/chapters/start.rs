//! How long after its start bearerd answers its first call, beside the bare echo.

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use prost::Message;

use crate::{
    bench::Bench,
    error::{Error, failed},
    pair::take_turns,
    parts::{
        How, Sizes,
        echo::{Allocator, Echo, say},
        replica::{Home, get_token, token_of},
        settings::{Settings, static_secret},
    },
    row::{Goal, Row},
};

/// How often a server is looked for.
const LOOK: Duration = Duration::from_micros(100);

/// When it is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// The table.
pub fn run(bench: &Bench) -> Result<Vec<Row>, Error> {
    let credential = static_secret();
    let home = Home::make(bench, &Settings { redis: None, tls: None, cache: "", credential: &credential })?;
    let (_, sizes) = bearerd(bench, &home)?;
    let ours = || bearerd(bench, &home).map(|(time, _)| time);
    let pairs = take_turns(4 * bench.rounds, ours, || echo(bench, sizes))?;
    let row = Row::of("from exec to the first answer", "bare tonic echo", &pairs, "ms", |time| *time);
    Ok(vec![row.with_goal(Goal::AtMost(3.0))])
}

/// Until the first `GetToken` is answered, in ms, and how long its messages were.
fn bearerd(bench: &Bench, home: &Home) -> Result<(f64, Sizes), Error> {
    let began = Instant::now();
    let process = home.serve(bench, &How::Plainly)?;
    let address = format!("127.0.0.1:{}", home.grpc);
    listens(&address, began)?;
    let answer = bench.runtime.block_on(async { get_token(connect(&address).await?, "").await })?;
    let time = began.elapsed();
    process.stop()?;
    let sizes = Sizes { request: token_of("").encoded_len(), response: answer.encoded_len() };
    Ok((time.as_secs_f64() * 1e3, sizes))
}

/// Until the first text is answered, in ms. It is looked for in the same way, though it would say when it listens.
fn echo(bench: &Bench, sizes: Sizes) -> Result<f64, Error> {
    let began = Instant::now();
    let echo = Echo::start(bench, &How::Plainly, Allocator::System, sizes, None)?;
    let address = echo.address().replace("http://", "");
    listens(&address, began)?;
    bench.runtime.block_on(async { say(connect(&address).await?, sizes).await })?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

fn listens(address: &str, began: Instant) -> Result<(), Error> {
    while TcpStream::connect(address).is_err() {
        if began.elapsed() > PATIENCE {
            return Err(failed(format!("nobody listens at {address}")));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

async fn connect(address: &str) -> Result<tonic::transport::Channel, Error> {
    let endpoint = tonic::transport::Endpoint::new(format!("http://{address}"));
    let endpoint = endpoint.map_err(|why| failed(why.to_string()))?;
    endpoint.connect().await.map_err(|why| failed(format!("cannot connect to {address}: {why:?}")))
}
