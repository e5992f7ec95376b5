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
mod store;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use cloudy_node::recipes::Locks;
use cloudy_node::{DataDir, Durability, Node, Replica, key_file};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use api::Api;
use store::Store;

/// How long the processes may take to start.
const OPEN_TIMEOUT: Duration = Duration::from_secs(300);

/// A node of a replicated key-value store.
#[derive(Debug, Parser)]
struct Args {
    /// File with the cluster's key, the same at all nodes; it is created if it is missing
    #[arg(long)]
    key: PathBuf,
    /// Address of this node for other nodes
    #[arg(long)]
    bind: SocketAddr,
    /// Address of the HTTP interface
    #[arg(long)]
    http: SocketAddr,
    /// HOST:PORT of a node; give the same seeds to all nodes
    #[arg(long = "seed")]
    seeds: Vec<String>,
    /// Create the groups once this number of nodes run
    #[arg(long)]
    expect: Option<usize>,
    /// Keep the data in this directory; without it, in memory
    #[arg(long)]
    data: Option<PathBuf>,
}

async fn start_node(args: &Args) -> Result<Node, Box<dyn Error>> {
    let keys = key_file::load_or_create(&args.key)?;
    let builder = Node::builder().bind(args.bind);
    let builder = match &args.data {
        Some(directory) => {
            let data = DataDir::open(directory, true)?;
            builder.identity(data.identity(keys.primary())?).data_dir(data)
        }
        None => builder.cluster_key(keys.primary()),
    };
    Ok(builder.cluster_keys(&keys).start().await?)
}

async fn start(args: &Args, node: &Node) -> Result<Api, Box<dyn Error>> {
    let open = |name| {
        let durability = if args.data.is_some() { Durability::Disk } else { Durability::Memory };
        let group = node.group(name).seeds(&args.seeds).durability(durability);
        let group = group.on_progress(move |event| eprintln!("{name}: {event}"));
        match args.expect {
            Some(expect) => group.bootstrap_expect(expect),
            None => group,
        }
    };
    let (kv, locks) =
        tokio::try_join!(open("kv").open().timeout(OPEN_TIMEOUT), open("kv-locks").open().timeout(OPEN_TIMEOUT))?;
    let groups = [kv.clone(), locks.clone()];
    let kv = Replica::start(kv, Store::default()).await?;
    Ok(Api { kv, locks: Locks::start(locks).await?, groups, has_left: Arc::new(Notify::new()) })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let node = start_node(&args).await?;
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
