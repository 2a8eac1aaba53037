//! A store that misbehaves, for suites in other languages: see `odradek_tests::fault_proxy`.
//!
//! Says on one line where it listens, then runs until it is killed. Faults are set and counts are
//! read under the path `/__proxy/` of the same port.

use std::net::SocketAddr;

use anyhow::Context as _;
use clap::Parser;
use odradek_tests::fault_proxy::FaultProxy;

/// An HTTP proxy before an S3 or DynamoDB server that loses, repeats, delays and refuses requests.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen; port 0 for a free one.
    #[arg(long)]
    listen: SocketAddr,
    /// The server to stand before.
    #[arg(long)]
    upstream: SocketAddr,
    /// Decides which requests meet which faults.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { listen, upstream, seed } = Arguments::parse();
    let proxy = FaultProxy::listen(listen, upstream, seed).with_context(|| listen.to_string())?;
    println!("fault_proxy ready on {} before {upstream}, seed {seed}", proxy.address());
    tokio::signal::ctrl_c().await?;
    Ok(())
}
