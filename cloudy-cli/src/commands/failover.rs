//! `cloudy bench failover` and `cloudy bench soak`.

use std::process::ExitCode;
use std::time::Duration;

use miette::Report;

use crate::args::{FailoverArgs, SoakArgs};
use crate::bench::failover::catch_up;
use crate::bench::failover::cluster::Make;
use crate::bench::failover::report::{FailoverFindings, SoakFindings, json};
use crate::bench::failover::rounds::{self, Plan};
use crate::bench::failover::soak;
use crate::bench::key::Key;
use crate::bench::machine::Conditions;
use crate::output::{EXIT_EQUAL, print_soon};
use crate::progress::Progress;

/// Runs `cloudy bench failover`.
pub(crate) async fn failover(args: &FailoverArgs) -> Result<ExitCode, Report> {
    let (nodes, size_bytes, rate_per_s) = (usize::from(args.nodes), args.size as usize, args.rate);
    let plan = Plan { kinds: args.failure.clone(), rounds: args.rounds, nodes, size_bytes, rate_per_s };
    let progress = Progress::start();
    let conditions = Conditions::here(&progress);
    let catch_up_time = if args.catch_up > 0 { catch_up::time_for(args.catch_up) } else { Duration::ZERO };
    let time = rounds::time_for(&plan) + catch_up_time;
    progress.line(&format!("{} failures, about {} s", plan.kinds.len() * plan.rounds as usize, time.as_secs()));
    let key = Key::new()?;
    let failures = rounds::all(&plan, &key, &progress).await?;
    let make = Make { nodes, master: false, partitions: false, size_bytes, rate_per_s };
    let catch_up = match args.catch_up {
        0 => None,
        bytes => Some(catch_up::run(make, bytes, &key, &progress).await?),
    };
    drop(progress);
    let findings = FailoverFindings { conditions, nodes, size_bytes, rate_per_s, failures, catch_up };
    print_soon(&if args.json { json(&findings) } else { findings.text() }).await?;
    Ok(ExitCode::from(EXIT_EQUAL))
}

/// Runs `cloudy bench soak`.
pub(crate) async fn soak(args: &SoakArgs) -> Result<ExitCode, Report> {
    let (nodes, size_bytes, rate_per_s) = (usize::from(args.nodes), args.size as usize, args.rate);
    let progress = Progress::start();
    let conditions = Conditions::here(&progress);
    let key = Key::new()?;
    let make = Make { nodes, master: false, partitions: false, size_bytes, rate_per_s };
    let soak = soak::run(make, args.duration, &key, &progress).await?;
    drop(progress);
    let findings = SoakFindings { conditions, nodes, size_bytes, rate_per_s, soak };
    print_soon(&if args.json { json(&findings) } else { findings.text() }).await?;
    Ok(ExitCode::from(EXIT_EQUAL))
}
