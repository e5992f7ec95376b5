//! What `cloudy top` shows, as lines of text.

use std::fmt::Write as _;
use std::time::Instant;

use cloudy_node::admin::{GroupStatus, NodeStatus};

use crate::commands::status::{members, shown};

/// The answer of a node.
pub(super) struct Sample {
    pub(super) target: String,
    pub(super) at: Instant,
    /// Its status, or why there is none.
    pub(super) answer: Result<NodeStatus, String>,
}

/// The nodes, their groups, and rates since the samples before.
pub(super) fn picture(samples: &[Sample], before: &[Sample]) -> String {
    let ready = samples.iter().filter(|sample| sample.answer.as_ref().is_ok_and(|status| status.ready)).count();
    let mut text = format!("cloudy top: {ready} of {} nodes ready\n", samples.len());
    for (at, sample) in samples.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = match &sample.answer {
            Ok(status) => write!(text, "\n{}", of_node(status, |group| rate(sample, before.get(at)?, group))),
            Err(error) => writeln!(text, "\nnode     {}: {}", shown(&sample.target), shown(error)),
        };
    }
    text
}

fn of_node(status: &NodeStatus, rate: impl Fn(&GroupStatus) -> Option<f64>) -> String {
    let state = if status.ready { "ready" } else { "not ready" };
    let mut text = format!("node     {} at {}, {state}\n", short(&status.node), status.address);
    for reason in &status.reasons {
        // As above.
        let _ = writeln!(text, "         {}", shown(reason));
    }
    for group in &status.groups {
        let view = group.view.as_ref().map_or("none yet".to_owned(), |view| view.id.to_string());
        let rate = rate(group).map_or(String::new(), |rate| format!(", {rate:.0} messages/s"));
        // As above.
        let _ = writeln!(
            text,
            "group    {}: view {view}, feature level {}, index {}{rate}, lag {}, {} own slots wait",
            shown(&group.name),
            group.feature_level,
            group.index,
            group.lag,
            group.pending_slots
        );
        if let Some(wait) = &group.waits_for {
            // As above.
            let _ = writeln!(text, "  {}", shown(&wait.text));
        }
        text.push_str(&members(group));
    }
    text
}

/// Messages per second of a group between two samples of the same process; none if they do not show it.
fn rate(sample: &Sample, before: &Sample, group: &GroupStatus) -> Option<f64> {
    let (now, earlier) = (sample.answer.as_ref().ok()?, before.answer.as_ref().ok()?);
    let former = earlier.groups.iter().find(|former| former.id == group.id && now.node == earlier.node)?;
    let seconds = sample.at.duration_since(before.at).as_secs_f64();
    let messages = group.index.checked_sub(former.index)?;
    (seconds > 0.0).then(|| messages as f64 / seconds)
}

fn short(id: &str) -> String {
    id.chars().take(8).collect()
}

/// The part of a text that fits a terminal. Without space for all lines, the last one gives the number of missing
/// lines.
pub(super) fn fitted(text: &str, columns: usize, rows: usize) -> Vec<String> {
    use unicode_width::UnicodeWidthChar;

    let lines: Vec<&str> = text.lines().collect();
    let cut = |line: &&str| {
        let mut width = 0;
        let fits = |c: &char| {
            width += c.width().unwrap_or(0);
            width <= columns
        };
        line.chars().take_while(fits).collect::<String>()
    };
    if lines.len() <= rows || rows == 0 {
        return lines.iter().take(rows).map(cut).collect();
    }
    let more = format!("{} more lines: enlarge the window", lines.len() + 1 - rows);
    lines.iter().take(rows - 1).map(cut).chain([cut(&more.as_str())]).collect()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use cloudy_node::admin::{AdminAddress, AdminListener};
    use cloudy_node::{ClusterKey, GroupConfig, Node};

    use super::*;
    use crate::admin_client::fetch;

    #[test]
    fn lines_are_cut_to_the_terminal_and_the_rest_is_counted() {
        let text = "one line\ngrößer\n\u{8282}\u{70b9}\u{8282}\nfour\n";
        assert_eq!(fitted(text, 5, 9), ["one l", "größe", "\u{8282}\u{70b9}", "four"]);
        assert_eq!(fitted(text, 80, 3), ["one line", "größer", "2 more lines: enlarge the window"]);
        assert!(fitted(text, 80, 0).is_empty());
    }

    #[test]
    fn a_node_that_does_not_answer_is_named_with_the_cause() {
        let silent =
            Sample { target: "10.0.0.1:7401".to_owned(), at: Instant::now(), answer: Err("no\x1b".to_owned()) };
        let expected = "cloudy top: 0 of 1 nodes ready\n\nnode     10.0.0.1:7401: no\u{fffd}\n";
        assert_eq!(picture(&[silent], &[]), expected);
    }

    /// The status of a node with a group.
    async fn status() -> NodeStatus {
        let key = ClusterKey::generate().expect("a key");
        let node = Node::builder().cluster_key(&key).start().await.expect("starts");
        let _group = node.create_group("orders", 1, GroupConfig::default()).await.expect("created");
        let any = AdminAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = AdminListener::bind(&any).expect("binds");
        let address = listener.address().expect("an address");
        node.serve_admin(listener).expect("serves");
        let (_, status) = fetch(&address, Duration::from_secs(30)).await.expect("answers");
        node.shutdown().await;
        status
    }

    #[tokio::test]
    async fn rates_are_between_samples_of_one_node() {
        let (begun, status) = (Instant::now(), status().await);
        let sample = |seconds, node: &str, index| {
            let mut status = status.clone();
            status.node = node.to_owned();
            status.groups[0].index = index;
            let at = begun + Duration::from_secs(seconds);
            Sample { target: "t".to_owned(), at, answer: Ok(status) }
        };
        let shown = |before: Sample| picture(&[sample(2, "a", 300)], &[before]);
        let with_rate = shown(sample(0, "a", 100));
        assert!(
            with_rate.contains("group    orders: view 1, feature level 7, index 300, 100 messages/s, lag"),
            "{with_rate}"
        );
        assert!(with_rate.contains("this node"), "{with_rate}");
        assert!(shown(sample(0, "b", 100)).contains("index 300, lag"), "another node");
        assert!(shown(sample(0, "a", 400)).contains("index 300, lag"), "a group that began again");
        assert!(shown(sample(2, "a", 100)).contains("index 300, lag"), "no time between them");
    }
}
