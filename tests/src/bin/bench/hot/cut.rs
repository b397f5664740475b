//! What a power cut costs a client of a large file system, with a hot standby and with a cold one.

use lab::{Hooks, log_lines};

use super::{RELEASE, STANDBY_COLD, STANDBY_HOT, input};
use crate::bed::{CONFIGURATION, PATIENCE};
use crate::inputs::Input;
use crate::outage;
use crate::page::table;
use crate::power_cut::{self, PowerCut, two_machines};
use crate::{Result, Setup};

const INODES: u64 = 4_000_000;
const QUICK: u64 = 1_000_000;

pub(super) struct Cuts {
    inodes: u64,
    hot: Vec<PowerCut>,
    cold: Vec<PowerCut>,
}

pub(super) fn measure(setup: &Setup) -> Result<Cuts> {
    let mut cuts = Cuts { inodes: if setup.quick { QUICK } else { INODES }, hot: Vec::new(), cold: Vec::new() };
    let input = input(cuts.inodes, 0)?;
    for _ in 0..setup.runs {
        cuts.hot.push(cut(&input, true)?);
        cuts.cold.push(cut(&input, false)?);
    }
    Ok(cuts)
}

/// A new cluster whose master begins with the image, and its power cut.
fn cut(input: &Input, hot: bool) -> Result<PowerCut> {
    let build = two_machines(&Hooks::ours()?).release(RELEASE).image(input.own()?);
    let standby = if hot { STANDBY_HOT } else { STANDBY_COLD };
    let cluster = build.file(CONFIGURATION, standby, 0o644).start()?;
    if hot {
        cluster.wait_for_log("m2", log_lines::HOT, PATIENCE)?;
    }
    let load = cluster.client().keep_writing()?;
    let done = power_cut::measure(&cluster, &[load])?;
    println!("  {:5}  {done}", if hot { "hot" } else { "cold" });
    Ok(done)
}

impl Cuts {
    pub(super) fn text(&self) -> String {
        let rows = outage::times(["hot", "cold", "hot / cold"], &self.hot, &self.cold);
        format!(
            "The power cut of the master under load, as at the top of this page, with {} inodes:\n\n{}\n\
             The steps of the hot promotions:\n\n{}{EXPLANATION}",
            self.inodes,
            table(&rows),
            table(&outage::steps(&self.hot))
        )
    }
}

const EXPLANATION: &str = "
Each time a new cluster of MooseFS 4.57.5, with its defaults and those of ucarp. Its master begins with the tree as its own
metadata, and the metalogger of the other machine downloads it. A hot standby has loaded it before the client's load begins. Hot
and cold runs alternate.
";
