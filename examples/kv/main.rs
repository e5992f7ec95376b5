//! A replicated key-value store with an HTTP interface. Start equal processes, each with the same seeds:
//!
//! ```console
//! $ for n in 1 2 3; do
//!     cargo run -p cloudy-examples --bin kv -- --key cluster.key --bind 127.0.0.1:740$n --http 127.0.0.1:800$n \
//!       --seed 127.0.0.1:7401 --seed 127.0.0.1:7402 --seed 127.0.0.1:7403 --expect 3 --data data-$n &
//!   done
//! $ curl -X PUT -d red http://127.0.0.1:8001/kv/colour
//! $ curl http://127.0.0.1:8002/kv/colour
//! ```

mod api;
#[path = "../common/mod.rs"]
mod common;
mod store;

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use clap::Parser;
use cloudy_node::recipes::Locks;
use cloudy_node::{Node, Replica};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use api::Api;
use common::NodeArgs;
use store::Store;

/// A node of a replicated key-value store.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    node: NodeArgs,
    /// Address of the HTTP interface
    #[arg(long)]
    http: SocketAddr,
}

async fn start(args: &Args, node: &Node) -> Result<Api, Box<dyn Error>> {
    let (kv, locks) = tokio::try_join!(args.node.open(node, "kv"), args.node.open(node, "kv-locks"))?;
    let groups = [kv.clone(), locks.clone()];
    let kv = Replica::start(kv, Store::default()).await?;
    Ok(Api { kv, locks: Locks::start(locks).await?, groups, has_left: Arc::new(Notify::new()) })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let node = args.node.start().await?;
    let api = start(&args, &node).await?;
    let listener = TcpListener::bind(args.http).await?;
    eprintln!("serves http://{}", listener.local_addr()?);
    let has_left = Arc::clone(&api.has_left);
    let server = axum::serve(listener, api::routes(api.clone()));
    let server = server.with_graceful_shutdown(async move { has_left.notified().await });
    tokio::select! {
        served = server => served?,
        _ = tokio::signal::ctrl_c() => {}
        // The supervisor starts the process again.
        reason = api::broken(&api) => return Err(reason.into()),
    }
    node.shutdown().await;
    Ok(())
}
