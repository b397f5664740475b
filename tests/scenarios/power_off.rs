//! The master loses its power: another machine serves, and nothing acknowledged is lost.

use std::time::Duration;

use lab::{Cluster, Hooks, Result};

const SOON: Duration = Duration::from_secs(30);

fn power_off_of_the_master(hooks: Hooks) -> Result<()> {
    let cluster = Cluster::build().masters(3).hooks(hooks).start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    let off = cluster.power_off("m1")?;
    let taken = cluster.wait_for_serving_other_than("m1", SOON)?;
    load.wait_for_progress(SOON)?;
    let outage = load.outage(off)?;
    let verdict = load.verify()?;
    eprintln!(
        "{} served after {:?}; the client waited {outage:?}; {} acknowledged",
        taken.by,
        taken.at - off,
        verdict.acknowledged
    );
    assert_eq!(cluster.serving(), [taken.by]);
    assert_eq!(verdict.lost, Vec::<String>::new());
    assert_eq!(verdict.failed, Vec::<String>::new());
    Ok(())
}

#[test]
#[ignore = "our mfs-promote is not finished"]
fn power_off_of_the_master_with_our_programs() -> Result<()> {
    power_off_of_the_master(Hooks::ours()?)
}

/// With the shell hooks of the folder named by `LAB_SHELL_HOOKS`, for comparison and to try the lab.
#[test]
#[ignore = "needs LAB_SHELL_HOOKS"]
fn power_off_of_the_master_with_shell_hooks() -> Result<()> {
    let hooks = Hooks::shell_from_environment().expect("LAB_SHELL_HOOKS names the folder of the shell hooks");
    power_off_of_the_master(hooks)
}
