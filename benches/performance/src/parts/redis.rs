//! A Redis server, and the barest client that there can be of it.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Stdio,
    time::Instant,
};

use super::{free_port, process::Process};
use crate::{
    bench::Bench,
    error::{Error, cannot, failed},
    row::Figure,
};

/// A running `redis-server`.
pub struct Redis {
    _process: Process,
    port: u16,
}

/// How many bytes the bare client reads: about as many as one grant and its token have here.
const SIZE: usize = 512;

impl Redis {
    /// Starts one on the core of the load, as an operator should run it, and waits until it answers.
    pub fn start(bench: &Bench) -> Result<Self, Error> {
        let port = free_port()?;
        let directory = bench.scratch().join(format!("redis-{port}"));
        std::fs::create_dir(&directory).map_err(cannot("make a directory for Redis"))?;
        let mut command = bench.cores.load("redis-server");
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "yes",
            "--dir",
        ]);
        command.arg(directory).stdout(Stdio::null());
        let mut process = Process::start(&mut command, "redis-server")?;
        process.wait_until(|| round_trip(port).is_ok())?;
        Ok(Self { _process: process, port })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The memory that its data takes, in bytes (`used_memory` of INFO).
    pub fn memory(&self) -> Result<f64, Error> {
        let text = info(self.port).map_err(cannot("ask Redis"))?;
        let bytes = text.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok());
        bytes.ok_or_else(|| failed("Redis does not tell its memory"))
    }

    /// The median of so many round trips one after the other, in µs, as a process on the server's core sees it: from
    /// where bearerd sees its own.
    pub fn round_trip(&self, bench: &Bench, requests: u64) -> Result<f64, Error> {
        let mut command = bench.cores.server(bench.itself()?);
        command.args(["ask-redis", &self.port.to_string(), &requests.to_string()]);
        let output = command.stderr(Stdio::inherit()).output().map_err(cannot("ask Redis"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim().parse().map_err(|_| failed(format!("no figure of Redis: {text}")))
    }
}

fn round_trip(port: u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"PING\r\n")?;
    stream.read_exact(&mut [0; 7])
}

fn info(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"INFO memory\r\nQUIT\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Asks, and prints the median in µs; this is what the child process does. It blocks in `read`: no runtime, no parser,
/// nothing that could be left out.
pub fn ask(port: &str, requests: &str) -> Result<(), Error> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| failed(format!("{text} is no number")));
    let port = u16::try_from(number(port)?).map_err(|_| failed("this is no port"))?;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(cannot("connect to Redis"))?;
    stream.set_nodelay(true).map_err(cannot("connect to Redis"))?;
    let value = "x".repeat(SIZE);
    let set = format!("*3\r\n$3\r\nSET\r\n$4\r\nbare\r\n${SIZE}\r\n{value}\r\n");
    exchange(&mut stream, set.as_bytes(), "+OK\r\n".len())?;
    let length = format!("${SIZE}\r\n{value}\r\n").len();
    let times = (0..number(requests)?).map(|_| {
        let began = Instant::now();
        exchange(&mut stream, b"*2\r\n$3\r\nGET\r\n$4\r\nbare\r\n", length)?;
        Ok(began.elapsed().as_secs_f64() * 1e6)
    });
    let median = Figure::of(times.collect::<Result<_, Error>>()?, "µs").median;
    writeln!(std::io::stdout(), "{median}").map_err(cannot("print"))
}

fn exchange(stream: &mut TcpStream, command: &[u8], length: usize) -> Result<(), Error> {
    stream.write_all(command).map_err(cannot("ask Redis"))?;
    stream.read_exact(&mut vec![0; length]).map_err(cannot("hear Redis"))
}
