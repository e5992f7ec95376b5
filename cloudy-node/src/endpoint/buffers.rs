//! The system's buffers for a socket, and the advice if they are smaller than requested.

use std::io;
use std::sync::Once;

use socket2::Socket;

use super::SOCKET_BUFFER_BYTES;

/// The size of the system's buffers for a socket, in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Buffers {
    receive: usize,
    send: usize,
}

/// Requests large buffers, and warns once in the life of the process if the system grants less.
pub(crate) fn enlarge(socket: &Socket) {
    static SAID: Once = Once::new();
    // The system may grant less with an error or without: the size is read back.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    if let Some(advice) = granted(socket).ok().and_then(|buffers| advice(buffers, SOCKET_BUFFER_BYTES)) {
        SAID.call_once(|| tracing::warn!("{advice}"));
    }
}

fn granted(socket: &Socket) -> io::Result<Buffers> {
    // Linux doubles the requested size for its own overhead, and reports the double.
    let share = if cfg!(target_os = "linux") { 2 } else { 1 };
    Ok(Buffers { receive: socket.recv_buffer_size()? / share, send: socket.send_buffer_size()? / share })
}

/// The missing size with the remedy; none if nothing is missing.
fn advice(granted: Buffers, asked: usize) -> Option<String> {
    let each = [("receive", "rmem_max", granted.receive), ("send", "wmem_max", granted.send)];
    let short: Vec<_> = each.into_iter().filter(|(.., granted)| *granted < asked).collect();
    if short.is_empty() {
        return None;
    }
    let held: Vec<_> = short.iter().map(|(way, _, granted)| format!("{} KiB to {way}", granted >> 10)).collect();
    let remedy = if cfg!(target_os = "linux") {
        let settings: Vec<_> = short.iter().map(|(_, name, _)| format!("net.core.{name}={asked}")).collect();
        format!("`sysctl -w {}`, and start the node again", settings.join(" "))
    } else {
        format!("let sockets have {} KiB in the system's settings, and start the node again", asked >> 10)
    };
    let asked = asked >> 10;
    Some(format!(
        "the system buffers {} in place of the requested {asked} KiB, so bursts lose datagrams, which only reduces the speed; {remedy}",
        held.join(" and ")
    ))
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Type};

    use super::*;

    #[test]
    fn the_granted_buffer_sizes_are_read_back() {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
        socket.set_recv_buffer_size(32 << 10).expect("less than any system's bound");
        socket.set_send_buffer_size(48 << 10).expect("less than any system's bound");
        assert_eq!(granted(&socket).expect("read"), Buffers { receive: 32 << 10, send: 48 << 10 });
        enlarge(&socket);
        let enlarged = granted(&socket).expect("read");
        assert!(enlarged.receive > 32 << 10 && enlarged.send > 48 << 10, "{enlarged:?}");
    }

    #[test]
    fn a_small_buffer_is_reported_with_its_remedy() {
        let enough = Buffers { receive: 4 << 20, send: 5 << 20 };
        assert_eq!(advice(enough, 4 << 20), None);
        let receive = advice(Buffers { receive: 208 << 10, ..enough }, 4 << 20).expect("too little");
        assert!(
            receive.contains("the system buffers 208 KiB to receive in place of the requested 4096 KiB"),
            "{receive}"
        );
        let both = advice(Buffers { receive: 208 << 10, send: 100 << 10 }, 4 << 20).expect("too little");
        assert!(both.contains("208 KiB to receive and 100 KiB to send"), "{both}");
        if cfg!(target_os = "linux") {
            assert!(receive.ends_with("`sysctl -w net.core.rmem_max=4194304`, and start the node again"), "{receive}");
            assert!(both.contains("`sysctl -w net.core.rmem_max=4194304 net.core.wmem_max=4194304`"), "{both}");
        }
    }
}
