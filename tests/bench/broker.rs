//! A broker process for a benchmark, and what can be seen of it from outside.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use odradek_tests::client::Client;

use crate::process::Process;

/// A broker process, ended with this value.
pub(crate) struct Broker {
    process: Process,
    pub(crate) address: SocketAddr,
    data: PathBuf,
}

impl Broker {
    pub(crate) fn start(data: PathBuf) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let built = || root.join("target/release/odradek");
        let binary = std::env::var_os("BROKER_BIN").map_or_else(built, PathBuf::from);
        let mut command = Command::new(binary);
        command
            .args(["--listen", &address.to_string(), "--log-level", "warn", "--data"])
            .arg(&data)
            .stdout(Stdio::null());
        let process =
            Process::start(&mut command).expect("a broker: build it with cargo build --release");
        Self { process, address, data }
    }

    pub(crate) async fn client(&self) -> Client {
        while tokio::net::TcpStream::connect(self.address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Client::connect(self.address).await
    }

    pub(crate) fn processor_seconds(&self) -> f64 {
        self.process.processor_seconds()
    }

    pub(crate) fn resident_mib(&self) -> f64 {
        self.process.resident_mib()
    }

    /// Bytes of the log that are in use: its files are filled with zeros beforehand, and a record
    /// has no run of them.
    pub(crate) fn log_bytes(&self) -> usize {
        used_bytes(&self.data.join("log"))
    }
}

fn used_bytes(path: &Path) -> usize {
    if path.is_dir() {
        return fs::read_dir(path).unwrap().map(|it| used_bytes(&it.unwrap().path())).sum();
    }
    let bytes = fs::read(path).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Where and with what something was measured.
pub(crate) fn machine() -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let built =
        std::env::var_os("BROKER_BIN").map_or("release build", |_| "as BROKER_BIN names it");
    format!(
        "{}, {} cores, {}, {}, odradek {} ({built}), load {}",
        said("date", &["-u", "+%Y-%m-%d"]),
        said("nproc", &[]),
        said("uname", &["-sr"]),
        said("rustc", &["--version"]),
        env!("CARGO_PKG_VERSION"),
        said("cut", &["-d ", "-f1", "/proc/loadavg"]),
    )
}
