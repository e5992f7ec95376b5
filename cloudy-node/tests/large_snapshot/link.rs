//! A slow link: it passes the datagrams between one dialling node and one other on, at a rate.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const DATAGRAM_BYTES_MAX: usize = 65_536;
/// A sleep is not shorter: datagrams pass in bursts of this time.
const BURST: Duration = Duration::from_millis(2);

pub(crate) struct Link {
    address: SocketAddr,
    forwarded: Arc<AtomicU64>,
}

impl Link {
    /// A link to a node, with this many bytes a second in each direction. It lasts as long as the process.
    pub(crate) fn start(to: SocketAddr, bytes_per_second: u64) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (front, back) = (UdpSocket::bind(any).unwrap(), UdpSocket::bind(any).unwrap());
        let address = front.local_addr().unwrap();
        let (dialler, forwarded) = (Arc::new(Mutex::new(None)), Arc::new(AtomicU64::new(0)));
        let (front_in, back_out, known) = (front.try_clone().unwrap(), back.try_clone().unwrap(), Arc::clone(&dialler));
        thread::spawn(move || {
            pass(&front_in, bytes_per_second, |bytes, from| {
                *known.lock().unwrap() = Some(from);
                // A full socket loses datagrams, as a router does.
                let _ = back_out.send_to(bytes, to);
            });
        });
        let counted = Arc::clone(&forwarded);
        thread::spawn(move || {
            pass(&back, bytes_per_second, |bytes, _| {
                if let Some(dialler) = *dialler.lock().unwrap() {
                    counted.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    let _ = front.send_to(bytes, dialler);
                }
            });
        });
        Self { address, forwarded }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that passed to the dialling node.
    pub(crate) fn forwarded(&self) -> u64 {
        self.forwarded.load(Ordering::Relaxed)
    }
}

/// Passes datagrams on, at a rate. Those that come faster wait in the socket's buffer, or are lost.
fn pass(from: &UdpSocket, bytes_per_second: u64, mut on: impl FnMut(&[u8], SocketAddr)) {
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    let mut free_at = Instant::now();
    while let Ok((length, sender)) = from.recv_from(&mut datagram) {
        let now = Instant::now();
        free_at = free_at.max(now) + Duration::from_secs_f64(length as f64 / bytes_per_second as f64);
        if free_at > now + BURST {
            // sleep: the time that the datagrams take on the link.
            thread::sleep(free_at - now);
        }
        on(&datagram[..length], sender);
    }
}
