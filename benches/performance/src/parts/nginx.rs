//! The protected API of calls through: nginx, which gives 1 KiB to whoever shows a token.

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::runtime::Handle;

use super::{Answered, Protocol, Server, free_port, process::Process};
use crate::{
    bench::Bench,
    error::{Error, cannot, failed},
};

/// A running nginx with one worker.
pub struct Nginx {
    process: Process,
    runtime: Handle,
    port: u16,
    /// How often it was asked for its counters, which count that too.
    looks: AtomicU64,
}

/// What is called.
pub const PATH: &str = "/item";

impl Nginx {
    /// Starts one on the core of the load and waits until it answers.
    pub fn start(bench: &Bench) -> Result<Self, Error> {
        let port = free_port()?;
        let directory = bench.scratch().join(format!("nginx-{port}"));
        fs::create_dir(&directory).map_err(cannot("make a directory for nginx"))?;
        fs::write(directory.join("nginx.conf"), configuration(port)).map_err(cannot("configure nginx"))?;
        let mut command = bench.cores.load("nginx");
        command.arg("-p").arg(&directory).args(["-c", "nginx.conf", "-e", "error.log"]);
        let process = Process::start(&mut command, "nginx")?;
        let runtime = bench.runtime.handle().clone();
        let mut nginx = Self { process, runtime, port, looks: AtomicU64::default() };
        let count = nginx.count_url();
        let runtime = nginx.runtime.clone();
        nginx.process.wait_until(|| runtime.block_on(reqwest::get(&count)).is_ok())?;
        Ok(nginx)
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn count_url(&self) -> String {
        format!("http://127.0.0.1:{}/count", self.port)
    }
}

impl Server for Nginx {
    fn protocol(&self) -> Protocol {
        Protocol::Get(Some("Bearer direct"))
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}{PATH}", self.port)
    }

    fn requests(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }

    /// The third number of `stub_status` counts requests, whatever came of them; h2load tells that.
    fn answered(&self) -> Result<Answered, Error> {
        let text = self.runtime.block_on(async { reqwest::get(self.count_url()).await?.text().await });
        let text = text.map_err(|why| failed(format!("nginx does not count: {why}")))?;
        let all = text.lines().nth(2).and_then(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
        let all = all.ok_or_else(|| failed(format!("nginx says something new: {text}")))?;
        Ok(Answered { well: all - self.looks.fetch_add(1, Ordering::Relaxed), ..Answered::default() })
    }

    fn cpu(&self) -> Result<Duration, Error> {
        self.process.cpu()
    }

    fn stop(self) -> Result<(), Error> {
        self.process.stop()
    }
}

fn configuration(port: u16) -> String {
    let body = "x".repeat(1024);
    format!(
        r#"daemon off;
master_process off;
pid nginx.pid;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    server {{
        listen 127.0.0.1:{port};
        location = /count {{ stub_status; }}
        location = {PATH} {{
            if ($http_authorization !~ "^Bearer ") {{ return 401; }}
            default_type text/plain;
            return 200 "{body}";
        }}
    }}
}}
"#
    )
}
