//! A switchover under load, there and back.

use std::time::Duration;

use lab::{Cluster, Hooks, LAST_RETRY, Moment, log_lines};

use crate::Result;
use crate::Setup;
use crate::page::{Goal, Section, cell, row, table};
use crate::power_cut::Settings;
use crate::stats::Summary;

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn section(setup: &Setup) -> Result<Section> {
    let ours = Hooks::ours()?;
    let defaults = measure(&Settings::Defaults.cluster(&ours)?, setup.runs)?;
    let recommended = measure(&Settings::Recommended.cluster(&ours)?, setup.runs)?;
    let rows = [
        row(["client without", "seconds, defaults", "seconds, recommended settings"]),
        vec!["metadata operations".to_owned(), cell(defaults.metadata), cell(recommended.metadata)],
        vec!["writes".to_owned(), cell(defaults.writes), cell(recommended.writes)],
    ];
    let goal = |what: &str, summary: Option<Summary>| {
        Goal::at_most(format!("switchover, client without {what}"), 6.5, "s", summary.map(|summary| summary.median))
    };
    let goals = vec![
        goal("metadata operations", defaults.metadata),
        goal("writes", defaults.writes)
            .remark("chunkservers try every 5 s, at a phase of their own: up to 5 s after the master"),
        goal("metadata operations, recommended settings", recommended.metadata),
        goal("writes, recommended settings", recommended.writes),
    ];
    let text = format!(
        "{}\n`mfs-promote {}` on the serving machine, {} times with each, there and back under load. The client's longest\n\
         wait for an acknowledgement. Lost of what was acknowledged: {}.\n",
        table(&rows),
        log_lines::SWITCHOVER,
        setup.runs,
        defaults.lost + recommended.lost
    );
    Ok(Section { title: "Switchover", text, goals, pictures: Vec::new() })
}

/// What the switchovers of one cluster cost its client.
struct Cost {
    metadata: Option<Summary>,
    writes: Option<Summary>,
    lost: usize,
}

fn measure(cluster: &Cluster, runs: u32) -> Result<Cost> {
    let load = cluster.client().keep_writing()?;
    let (mut metadata, mut writes) = (Vec::new(), Vec::new());
    for run in 0..runs {
        let [from, to] = if run % 2 == 0 { ["m1", "m2"] } else { ["m2", "m1"] };
        cluster.wait_for_metalogger_in_step(to, PATIENCE)?;
        load.wait_for_progress(LAST_RETRY)?;
        let (mark, since) = (cluster.mark(), Moment::now());
        cluster.must(from, &["mfs-promote", log_lines::SWITCHOVER])?;
        load.wait_for_progress(LAST_RETRY)?;
        cluster.wait_for_log_since(mark, from, log_lines::DEMOTED, PATIENCE)?;
        cluster.wait_for_log_since(mark, to, log_lines::SERVING, PATIENCE)?;
        let outage = load.outage(since)?;
        println!("  {from} to {to}: metadata {:.2?}, writes {:.2?}", outage.metadata, outage.writes);
        metadata.push(outage.metadata.as_secs_f64());
        writes.push(outage.writes.as_secs_f64());
    }
    let lost = load.verify(&cluster.crashes())?.lost.len();
    let [metadata, writes] = [metadata, writes].map(Summary::of);
    Ok(Cost { metadata, writes, lost })
}
