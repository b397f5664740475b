//! A planned hand-over under load, there and back.

use std::time::Duration;

use lab::{Cluster, LAST_RETRY, Moment};

use crate::page::{Goal, Section, cell, row, table};
use crate::stats::Summary;
use crate::{Result, Setup};

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn section(setup: &Setup) -> Result<Section> {
    let cluster = Cluster::build().unjudged().masters(2).skew("m2", 0).start()?;
    let load = cluster.client().keep_writing()?;
    let (mut metadata, mut writes) = (Vec::new(), Vec::new());
    for turn in 0..setup.runs {
        let [from, to] = if turn % 2 == 0 { ["m1", "m2"] } else { ["m2", "m1"] };
        cluster.wait_for_metalogger_in_step(to, PATIENCE)?;
        load.wait_for_progress(LAST_RETRY)?;
        let (mark, since) = (cluster.mark(), Moment::now());
        cluster.must(from, &["mfs-promote", "--hand-over"])?;
        load.wait_for_progress(LAST_RETRY)?;
        cluster.wait_for_log_since(mark, from, "demotion ended: demoted", PATIENCE)?;
        cluster.wait_for_log_since(mark, to, "promotion ended: serving", PATIENCE)?;
        let outage = load.outage(since)?;
        println!("  {from} to {to}: metadata {:.2?}, writes {:.2?}", outage.metadata, outage.writes);
        metadata.push(outage.metadata.as_secs_f64());
        writes.push(outage.writes.as_secs_f64());
    }
    let lost = load.verify(&cluster.crashes())?.lost.len();
    let [metadata, writes] = [metadata, writes].map(Summary::of);
    let rows = [
        row(["client without", "seconds"]),
        vec!["metadata operations".to_owned(), cell(metadata)],
        vec!["writes".to_owned(), cell(writes)],
    ];
    let goal = |what, summary: Option<Summary>| Goal::at_most(what, 6.5, "s", summary.map(|summary| summary.median));
    let goals = vec![
        goal("planned hand-over, client without metadata operations", metadata),
        goal("planned hand-over, client without writes", writes),
    ];
    let text = format!(
        "{}\n`mfs-promote --hand-over` on the serving machine, {} times, there and back under load, defaults. The client's longest\n\
         wait for an acknowledgement. Lost of what was acknowledged: {lost}.\n",
        table(&rows),
        setup.runs
    );
    Ok(Section { title: "Planned hand-over", text, goals, pictures: Vec::new() })
}
