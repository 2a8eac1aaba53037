//! A consumer that reads through what was written before, as fast as it comes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use odradek_tests::client::Client;

use crate::old::{Place, new_places, read_more};

/// A consumer that catches up again and again, until it is stopped. It has a thread of its own, so
/// that it keeps nobody waiting but by using a processor.
pub(crate) struct CatchUp {
    is_stopped: Arc<AtomicBool>,
    reading: JoinHandle<(f64, Duration)>,
}

impl CatchUp {
    /// Begins to read from a broker.
    pub(crate) fn start(address: SocketAddr) -> Self {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&is_stopped);
        let reading = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(read(address, &stopped))
        });
        Self { is_stopped, reading }
    }

    /// Stops; the bytes of batches that it was sent, and in what time.
    pub(crate) fn stop(self) -> (f64, Duration) {
        self.is_stopped.store(true, Ordering::Relaxed);
        self.reading.join().unwrap()
    }
}

async fn read(address: SocketAddr, is_stopped: &AtomicBool) -> (f64, Duration) {
    let mut client = Client::connect(address).await;
    let mut places = new_places();
    let (began, mut bytes) = (Instant::now(), 0.0);
    while !is_stopped.load(Ordering::Relaxed) {
        bytes += read_more(&mut client, &mut places).await;
        for place in places.iter_mut().filter(|it| it.is_at_end()) {
            *place = Place::default();
        }
    }
    (bytes, began.elapsed())
}
