//! `cloudy top`: nodes and their groups, on a terminal, while they run.

mod picture;
mod screen;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cloudy_node::admin::AdminAddress;
use miette::{IntoDiagnostic, Report};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::admin_client::fetch;
use crate::args::TopArgs;
use crate::output::{EXIT_EQUAL, failure, print};
use picture::{Sample, picture};
use screen::{Order, Orders, Screen};

/// The shortest time between two pictures.
const REFRESH_MIN: Duration = Duration::from_millis(100);

/// Runs the command.
pub(crate) async fn run(args: TopArgs) -> Result<ExitCode, Report> {
    if args.once {
        let samples = ask(&args.targets, args.answer_timeout).await;
        print(&picture(&samples, &[]))?;
        let all = samples.iter().all(|sample| sample.answer.is_ok());
        return Ok(if all { ExitCode::from(EXIT_EQUAL) } else { ExitCode::FAILURE });
    }
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(failure(
            "`cloudy top` draws on a terminal, and standard input or output is none",
            "use `cloudy status` or `cloudy top --once` in scripts",
        ));
    }
    let screen = Screen::enter().into_diagnostic()?;
    let ended = show(&args, &screen).await;
    drop(screen);
    ended.into_diagnostic()?;
    Ok(ExitCode::from(EXIT_EQUAL))
}

/// Draws until a key or a signal ends it.
async fn show(args: &TopArgs, screen: &Screen) -> std::io::Result<()> {
    let mut orders = Orders::start()?;
    let mut ticks = interval(args.refresh.max(REFRESH_MIN));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut before, mut samples) = (Vec::new(), Vec::new());
    loop {
        let order = tokio::select! {
            order = orders.next() => order,
            asked = async {
                ticks.tick().await;
                ask(&args.targets, args.answer_timeout).await
            } => {
                before = std::mem::replace(&mut samples, asked);
                Order::Draw
            }
        };
        match order {
            Order::Quit => return Ok(()),
            Order::Draw => screen.draw(&picture(&samples, &before))?,
        }
    }
}

/// Asks all nodes at once. The samples have the order of the targets.
async fn ask(targets: &[AdminAddress], limit: Duration) -> Vec<Sample> {
    let mut asked = JoinSet::new();
    for (at, target) in targets.iter().cloned().enumerate() {
        asked.spawn(async move {
            let answer = fetch(&target, limit).await.map(|(_, status)| status).map_err(|error| error.to_string());
            (at, Sample { target: target.to_string(), at: Instant::now(), answer })
        });
    }
    let mut samples = asked.join_all().await;
    samples.sort_by_key(|(at, _)| *at);
    samples.into_iter().map(|(_, sample)| sample).collect()
}
