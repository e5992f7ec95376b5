//! A node of a bench, as its first order defines.

use std::process::ExitCode;

use miette::Report;
use tokio::sync::mpsc;

use super::nodes::Running;
use super::orders::{Order, Post, Said, unexpected};
use super::spec::Program;
use super::{baseline, failover, member};
use crate::children::parent;
use crate::output::{EXIT_EQUAL, print_soon};

/// Maximum of lines that wait to be read: there is at most one.
const LINES_MAX: usize = 4;

/// Runs a node as a separate process.
///
/// # Errors
/// Its parent is gone.
pub(crate) async fn run_as_process() -> Result<ExitCode, Report> {
    let (says, mut said) = mpsc::channel::<Said>(LINES_MAX);
    let answers = async {
        while let Some(line) = said.recv().await.and_then(|said| parent::line(&said)) {
            print_soon(&line).await?;
        }
        Ok(ExitCode::from(EXIT_EQUAL))
    };
    tokio::join!(run(Post { orders: parent::orders(), said: says }), answers).1
}

/// Runs a node in the process of its bench.
pub(crate) fn boxed(post: Post) -> Running {
    Box::pin(run(post))
}

/// Runs a node to its end, and reports a failure.
async fn run(mut post: Post) {
    let ended = match post.orders.recv().await {
        Some(Order::Begin(assignment)) => match assignment.program {
            Program::Group => member::run(&assignment, &mut post).await,
            Program::Baseline => baseline::run(&assignment, &mut post).await,
        },
        Some(Order::Serve(part)) => failover::node::run(&part, &mut post).await,
        Some(order) => Err(unexpected(&order)),
        None => return,
    };
    if let Err(report) = ended {
        // A bench that is gone does not need it.
        let _ = post.say(Said::Failed(report.to_string())).await;
    }
}
