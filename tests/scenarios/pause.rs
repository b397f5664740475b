//! A serving machine is paused, like a virtual machine, and continues later without knowing it.

use lab::{Cluster, LAST_RETRY, Result, log_lines};

use crate::SOON;

#[test]
fn a_paused_master_finds_that_another_one_serves() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    cluster.wait_for_log("m1", log_lines::M2_REMEMBERED, SOON)?;
    cluster.freeze("m1")?;
    cluster.wait_for_serving("m2", SOON)?;
    cluster.wait_for_log("m2", log_lines::SERVING, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    let mark = cluster.mark();
    cluster.thaw("m1")?;
    // By the time that has passed it was cut off, or another machine knows more: whichever it sees first.
    cluster.wait_for_log_since(mark, "m1", log_lines::STOPPED_SERVING_OR_M2_ALIVE, SOON)?;
    cluster.expect("m1 to stop its master", SOON, || cluster.master_pid("m1").is_none().then_some(()))?;
    cluster.wait_for_serving("m2", SOON)?;
    cluster.expect("the address to be on m2 alone", SOON, || {
        (cluster.holds_vip("m2") && !cluster.holds_vip("m1")).then_some(())
    })?;
    load.wait_for_progress(LAST_RETRY)?;
    assert_eq!(cluster.serving(), ["m2"]);
    let verdict = load.verify(&cluster.crashes())?;
    assert_eq!((verdict.lost, verdict.failed), (vec![], vec![]));
    Ok(())
}
