//! `cloudy top` on a terminal, and without one.
#![cfg(unix)]

mod common;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use common::{Cluster, Running, cloudy, free_port, run, until};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// A terminal: the side of its user, and the side of programs.
struct Terminal {
    user: File,
    program: File,
    shown: Receiver<u8>,
    text: Vec<u8>,
}

impl Terminal {
    fn open() -> Self {
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&user).unwrap();
        unlockpt(&user).unwrap();
        let name = ptsname(&user, Vec::new()).unwrap().into_string().unwrap();
        let program = OpenOptions::new().read(true).write(true).open(name).unwrap();
        tcsetwinsize(&program, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let user = File::from(user);
        let (send, shown) = channel();
        let mut reader = user.try_clone().unwrap();
        thread::spawn(move || {
            let mut bytes = [0; 1024];
            while let Ok(count) = reader.read(&mut bytes) {
                for byte in &bytes[..count] {
                    // The test may have ended.
                    let _ = send.send(*byte);
                }
            }
        });
        Self { user, program, shown, text: Vec::new() }
    }

    fn run(&self, arguments: &[&str]) -> Child {
        let side = || Stdio::from(OwnedFd::from(self.program.try_clone().unwrap()));
        cloudy(arguments).stdin(side()).stdout(side()).stderr(side()).spawn().unwrap()
    }

    /// Waits until the program has written a text.
    fn wait_for(&mut self, text: &str) {
        until(text, || {
            self.text.extend(self.shown.try_iter());
            String::from_utf8_lossy(&self.text).contains(text)
        });
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.program).unwrap().local_modes.contains(LocalModes::ICANON)
    }
}

/// A node with a group and an admin endpoint.
fn node(cluster: &Cluster) -> (Running, String) {
    let (port, admin) = (free_port(), format!("unix:{}", cluster.path("admin").display()));
    let bind = format!("127.0.0.1:{port}");
    let mut command = cloudy(&["join", "orders", "--bind", &bind, "--seed", &bind, "--expect", "1", "--stay"]);
    command.args(["--admin", &admin, "--cluster-key"]).arg(&cluster.key);
    let mut running = Running::start(command);
    running.wait_for("in group");
    (running, admin)
}

#[test]
fn it_follows_a_node_and_restores_the_terminal_at_a_key_and_at_a_signal() {
    let cluster = Cluster::new();
    let (_running, admin) = node(&cluster);
    let mut terminal = Terminal::open();
    let end = |terminal: &mut Terminal, end: &dyn Fn(&mut Terminal, &Child)| {
        terminal.text.clear();
        let mut top = terminal.run(&["top", &admin, "--refresh", "100ms"]);
        terminal.wait_for("cloudy top: 1 of 1 nodes ready");
        terminal.wait_for("group    orders: view 1");
        assert!(terminal.is_raw());
        end(terminal, &top);
        terminal.wait_for("\x1b[?1049l");
        assert_eq!(top.wait().unwrap().code(), Some(0));
        assert!(!terminal.is_raw());
    };
    end(&mut terminal, &|terminal, _| terminal.user.write_all(b"xq").unwrap());
    end(&mut terminal, &|terminal, _| terminal.user.write_all(b"\x03").unwrap());
    let terminate = |_: &mut Terminal, top: &Child| {
        let id = rustix::process::Pid::from_child(top);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    };
    end(&mut terminal, &terminate);
}

#[test]
fn without_a_terminal_it_names_status_and_prints_one_picture() {
    let cluster = Cluster::new();
    let (_running, admin) = node(&cluster);
    run(cloudy(&["top", &admin])).failed_with(&["draws on a terminal", "`cloudy status`", "--once"]);
    until("the node is ready", || {
        let once = run(cloudy(&["top", "--once", &admin]));
        assert_eq!(once.code(), Some(0), "{once:#?}");
        once.stdout.starts_with("cloudy top: 1 of 1 nodes ready\n")
    });
    let absent = format!("unix:{}", cluster.path("absent").display());
    let once = run(cloudy(&["top", "--once", &admin, &absent]));
    assert_eq!(once.code(), Some(1), "{once:#?}");
    assert!(once.stdout.contains("1 of 2 nodes ready") && once.stdout.contains("no node answers"), "{once:#?}");
}
