//! The status page in a real browser.

use super::common::Cluster;
use crate::common::{run, text, try_run};
use std::process::Command;

/// A browser of this machine that runs without a screen.
fn browser() -> Option<&'static str> {
    let known = ["chromium", "chromium-browser", "google-chrome"];
    known.into_iter().find(|name| {
        let found = try_run(Command::new(name).arg("--version"));
        found.is_ok_and(|output| output.status.success())
    })
}

/// What the page has become after this much of the page's own time.
fn dom(browser: &str, cluster: &Cluster, id: usize) -> String {
    let profile = cluster.dir.path().join("profile");
    let mut command = Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu"]);
    command.args(["--disable-dev-shm-usage", "--no-first-run"]);
    command.args(["--virtual-time-budget=4000", "--dump-dom"]);
    command.arg(format!("--user-data-dir={}", profile.display()));
    text(&run(command.arg(format!("http://{}/", cluster.http(id)))).stdout)
}

#[test]
#[allow(clippy::print_stderr)]
fn the_status_page_shows_every_node_and_who_leads() {
    let Some(browser) = browser() else {
        eprintln!("SKIPPED: no chromium here, so the status page was not looked at in a browser");
        return;
    };
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader();
    let page = dom(browser, &cluster, leader);
    assert!(
        page.contains("data-ready=\"yes\""),
        "its script ran: {page}"
    );
    assert!(
        page.contains(&format!("Node {leader} leads in term")),
        "{page}"
    );
    assert!(page.contains("3 of 3 nodes answer"), "{page}");
    for id in 1..=3 {
        assert!(
            page.contains(&format!("<tr data-node=\"{id}\"")),
            "node {id}: {page}"
        );
    }
    assert_eq!(page.matches(">leader<").count(), 1, "{page}");
    cluster.kill(leader % 3 + 1);
    let page = dom(browser, &cluster, leader);
    assert!(
        page.contains("2 of 3 nodes answer") && page.contains("no answer"),
        "{page}"
    );
}
