//! A queue of tasks: each line of stdin is a task, and each process runs a command for tasks of all processes. Start equal
//! processes, each with the same seeds:
//!
//! ```console
//! $ seq 100 | cargo run -p cloudy-examples --bin worker -- --key cluster.key --bind 127.0.0.1:7401 \
//!     --seed 127.0.0.1:7401 --seed 127.0.0.1:7402 --expect 2 --exec 'read task; echo "task $task, token $TOKEN"'
//! ```
//!
//! A task is done at least once: if a process dies, another runs its task again. Give `$TOKEN` to what the command changes,
//! and let that refuse a token that is smaller than one it has seen for the task.

#[path = "../common/mod.rs"]
mod common;

use std::error::Error;
use std::process::Stdio;

use clap::Parser;
use cloudy_node::recipes::{Claim, Queue};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use common::NodeArgs;

/// A worker for tasks that any process accepts.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    node: NodeArgs,
    /// Command for the shell: it reads a task from stdin, and its success finishes the task
    #[arg(long)]
    exec: String,
}

/// Pushes each line of stdin.
async fn push(queue: &Queue) -> Result<(), Box<dyn Error>> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        queue.push(line).without_timeout().await?;
    }
    Ok(())
}

/// Claims one task after the other. A task whose command fails returns to the queue.
async fn work(queue: &Queue, command: &str) -> Result<(), Box<dyn Error>> {
    loop {
        let claim = queue.claim().without_timeout().await?;
        if !run(command, &claim).await? {
            eprintln!("the command failed for the task {:?}", claim.task());
        } else if !claim.finish().await? {
            eprintln!("a task was given to another worker meanwhile");
        }
    }
}

/// Whether the command succeeds.
async fn run(command: &str, claim: &Claim) -> Result<bool, Box<dyn Error>> {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).env("TOKEN", claim.token().to_string()).stdin(Stdio::piped()).kill_on_drop(true);
    let mut child = shell.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read its task closes the pipe.
        let _ = stdin.write_all(claim.task()).await;
    }
    Ok(child.wait().await?.success())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let node = args.node.start().await?;
    let group = args.node.open(&node, "tasks").await?;
    let queue = Queue::start(group.clone()).await?;
    eprintln!("works");
    let pushes = async {
        push(&queue).await?;
        std::future::pending::<Result<(), Box<dyn Error>>>().await
    };
    tokio::select! {
        failed = pushes => failed?,
        failed = work(&queue, &args.exec) => failed?,
        _ = tokio::signal::ctrl_c() => {}
    }
    group.leave().await?;
    node.shutdown().await;
    Ok(())
}
