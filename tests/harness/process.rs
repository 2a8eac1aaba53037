//! The broker as a process of its own, as users run it, and what can be seen of a process from
//! outside: for whoever measures.

use std::ffi::OsStr;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::client::Client;

/// Pause before something that does not listen yet is tried again.
const CONNECT_INTERVAL: Duration = Duration::from_millis(1);

/// An address at which nobody listens.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The broker that is measured: `BROKER_BIN`, or what `cargo build --release` makes.
pub fn built() -> PathBuf {
    let by_cargo = || {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let target = std::env::var_os("CARGO_TARGET_DIR");
        target.map_or_else(|| root.join("target"), PathBuf::from).join("release/odradek")
    };
    std::env::var_os("BROKER_BIN").map_or_else(by_cargo, PathBuf::from)
}

/// How that was built, for a report.
pub fn how_built() -> &'static str {
    std::env::var_os("BROKER_BIN").map_or("release build", |_| "as BROKER_BIN names it")
}

/// A process, killed with this value.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts what the command says.
    ///
    /// # Errors
    ///
    /// There is no such program.
    pub fn start(command: &mut Command) -> std::io::Result<Self> {
        command.spawn().map(Self)
    }

    /// Processor time so far, in seconds.
    pub fn processor_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11..13].iter().map(|it| it.parse::<f64>().unwrap()).sum::<f64>() / 100.0
    }

    /// Resident memory, in MiB.
    pub fn resident_mib(&self) -> f64 {
        self.status_mib("VmRSS:")
    }

    /// The most there was of it so far.
    pub fn resident_mib_most(&self) -> f64 {
        self.status_mib("VmHWM:")
    }

    fn status_mib(&self, field: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        let kib: f64 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        kib / 1024.0
    }

    /// Ends it with SIGTERM.
    ///
    /// # Panics
    ///
    /// If it does not end well.
    pub fn stop(mut self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already is what is wanted.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A broker process, killed with this value.
#[derive(Debug)]
pub struct BrokerProcess {
    /// What the kernel knows of it.
    pub process: Process,
    /// Where it listens for clients.
    pub address: SocketAddr,
    metrics: SocketAddr,
}

impl BrokerProcess {
    /// Starts the broker that was built, with these flags beside its addresses.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn start<F: AsRef<OsStr>>(flags: impl IntoIterator<Item = F>) -> Self {
        Self::start_as(&mut Command::new(built()), flags)
    }

    /// The same with its data in a folder.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn in_folder(folder: &Path, further: &[&str]) -> Self {
        let data = [OsStr::new("--data"), folder.as_os_str()];
        Self::start(data.into_iter().chain(further.iter().map(OsStr::new)))
    }

    /// The same of a program that takes the flags of a broker.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn start_as<F: AsRef<OsStr>>(
        command: &mut Command,
        flags: impl IntoIterator<Item = F>,
    ) -> Self {
        let (address, metrics) = (free_address(), free_address());
        command
            .args(["--listen", &address.to_string(), "--metrics-listen", &metrics.to_string()])
            .args(["--log-level", "warn"])
            .args(flags)
            .stdout(Stdio::null());
        let process = Process::start(command).unwrap_or_else(|_| {
            let program = Path::new(command.get_program()).display();
            panic!("no broker at {program}: build it with cargo build --release")
        });
        Self { process, address, metrics }
    }

    /// A connection to it, as soon as it listens.
    pub async fn client(&self) -> Client {
        while TcpStream::connect(self.address).await.is_err() {
            sleep(CONNECT_INTERVAL).await;
        }
        Client::connect(self.address).await
    }

    /// Its page of metrics, as soon as there is one.
    pub async fn metrics(&self) -> MetricsPage {
        let mut stream = loop {
            match TcpStream::connect(self.metrics).await {
                Ok(stream) => break stream,
                Err(_) => sleep(CONNECT_INTERVAL).await,
            }
        };
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        MetricsPage(answer)
    }
}

/// What a broker says of itself.
#[derive(Debug)]
pub struct MetricsPage(String);

impl MetricsPage {
    /// The sum of the samples of a metric; with a brace and labels behind its name, of those of
    /// them that begin so.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn sum(&self, metric: &str) -> f64 {
        let is_asked_for = |line: &&str| {
            let rest = line.strip_prefix(metric);
            rest.is_some_and(|rest| metric.contains('{') || rest.starts_with([' ', '{']))
        };
        let samples = self.0.lines().filter(is_asked_for);
        let values = samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap());
        let values: Vec<f64> = values.collect();
        assert!(!values.is_empty(), "the page has no {metric}");
        values.iter().sum()
    }
}
