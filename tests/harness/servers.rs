//! Servers of S3 and DynamoDB as processes of their own, on free ports, gone with the value that
//! stands for them.
//!
//! `MINIO_BIN` names MinIO's binary, `DYNAMODB_LIBS` the folder with the jars of DynamoDB Local;
//! `tests/run` installs both.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::process::free_address;

/// A server and its data.
#[derive(Debug)]
pub struct Server {
    process: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Server {
    /// MinIO, empty.
    pub async fn minio() -> Self {
        let address = free_address();
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(variable("MINIO_BIN"));
        command
            .args(["server", "--quiet", "--address", &address.to_string()])
            .arg(folder.path().join("data"))
            .env("MINIO_ROOT_USER", variable("AWS_ACCESS_KEY_ID"))
            .env("MINIO_ROOT_PASSWORD", variable("AWS_SECRET_ACCESS_KEY"));
        Self::start(command, address, folder).await
    }

    /// DynamoDB Local, empty, in memory.
    pub async fn dynamodb() -> Self {
        let address = free_address();
        let folder = tempfile::tempdir().unwrap();
        let libs = variable("DYNAMODB_LIBS");
        let mut command = Command::new("java");
        command
            .current_dir(folder.path())
            .arg(format!("-Dsqlite4java.library.path={libs}"))
            .args(["-cp", &format!("{libs}/*")])
            .arg("software.amazon.dynamodb.services.local.main.ServerRunner")
            .args(["-inMemory", "-sharedDb", "-port", &address.port().to_string()]);
        Self::start(command, address, folder).await
    }

    async fn start(mut command: Command, address: SocketAddr, folder: TempDir) -> Self {
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut server = Self { process: process.unwrap(), address, _folder: folder };
        while TcpStream::connect(address).await.is_err() {
            assert_eq!(server.process.try_wait().unwrap(), None, "{command:?} ended");
            sleep(Duration::from_millis(50)).await;
        }
        server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The options of a location that is at this server.
    pub fn options(&self) -> String {
        options(self.address)
    }
}

/// The options of a location that is at this address.
pub fn options(address: SocketAddr) -> String {
    format!("endpoint=http://{address}&region=us-east-1&create=true")
}

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already is what is wanted.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: use tests/run backends"))
}
