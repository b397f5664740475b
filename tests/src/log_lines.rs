//! What our programs say, as far as scenarios depend on it: each line by its meaning, in this one place.
//!
//! All are regular expressions for [`crate::Cluster::wait_for_log`]; those without special characters are also looked for
//! as they are. Some name a machine of the lab: m1 is 172.16.0.11, m2 is 172.16.0.12, the address is 172.16.0.99.

// Runs.
/// A promotion has begun.
pub const PROMOTION_BEGUN: &str = "promotion begun";
/// A demotion has begun.
pub const DEMOTION_BEGUN: &str = "demotion begun";
/// `vip-up` has started a promotion.
pub const PROMOTION_STARTED: &str = "promotion started";
/// `vip-down` has started a demotion.
pub const DEMOTION_STARTED: &str = "vip-down.*demotion started";
/// A hook has started a run; captures its process id.
pub const RUN_STARTED: &str = r"(?:promotion|demotion) started \(pid ([0-9]+)\)";
/// A demotion cannot take the lock. It stops the master in any case.
pub const WITHOUT_LOCK: &str = "; demoting without the lock";
/// A promotion has ended; its outcome follows.
pub const PROMOTION_ENDED: &str = "promotion ended: ";
/// A demotion has ended; its outcome follows.
pub const DEMOTION_ENDED: &str = "demotion ended: ";
/// Outcome: this machine serves.
pub const SERVING: &str = "promotion ended: serving";
/// Outcome: the master was serving before the run.
pub const ALREADY_SERVING: &str = "promotion ended: already serving";
/// Either of the two.
pub const SERVING_OR_ALREADY: &str = "promotion ended: (already )?serving";
/// Outcome: ucarp stepped down once.
pub const STEPPED_DOWN: &str = "promotion ended: stepped down";
/// Outcome: a later call of a hook decided.
pub const SUPERSEDED: &str = "promotion ended: superseded";
/// Outcome: ucarp was stopped.
pub const UCARP_STOPPED: &str = "promotion ended: stopped";
/// Outcome: the master was stopped.
pub const DEMOTED: &str = "demotion ended: demoted";
/// Outcome: no master was running.
pub const NOTHING_TO_DEMOTE: &str = "demotion ended: nothing to demote";
/// Outcome of a rehearsal that made way for a promotion.
pub const REHEARSAL_CANCELLED: &str = "rehearsal ended: cancelled";
/// A run was killed, and the supervisor has started it again.
pub const KILLED_AND_RESTARTED: &str = "was killed; restarting it";
// Steps of a promotion.
/// The image is copied.
pub const PREPARED: &str = "prepare: ";
/// The hold-off is over, or another MASTER was heard.
pub const SETTLE: &str = "settle: ";
/// The hold-off is over.
pub const SETTLED: &str = "settle: no other MASTER for";
/// It was over sooner, since heartbeats told enough of each other machine.
pub const SETTLED_SOONER: &str = "settle: .*; by their heartbeats all other machines stand by or were silent";
/// The metalogger is stopped.
pub const METALOGGER_STOPPED: &str = "metalogger: stopped";
/// The files to serve are staged.
pub const STAGED: &str = "stage: ";
/// Before the version that the staged files reach, in the same line.
pub const STAGED_TO: &str = " to version ";
/// Before the version that they will be served as, in the same line.
pub const SERVED_AS: &str = " (served as ";
/// The staged files are those of the machine's own master.
pub const STAGED_OWN: &str = "stage: own";
/// The staged files are a metalogger's copy of the new history.
pub const STAGED_COPY: &str = "stage: ml, image metadata_ml.mfs.back of version [1-9][0-9]{12} ";
/// The staged files are in place.
pub const COMMITTED: &str = "commit: ";
/// The master is started.
pub const MASTER_STARTED: &str = "start: mfsmaster started";
/// A step and the time it took; captures its name, the number and the unit.
pub const STEP: &str = r"^mfs-promote\[\d+\]: ([a-z]+): .*\(([0-9.]+) (ms|s)\)$";
/// The master serves the planned version.
pub const PROVED: &str = "prove: ";
/// The master serves the planned version, with its number.
pub const PROVED_VERSION: &str = "prove: .* answers with version";
/// Before the version that the master serves, in the same line.
pub const WITH_VERSION: &str = " answers with version ";
/// The same, on Debian 13.
pub const PROVED_4_57: &str = "prove: MooseFS 4.57.5 answers with version .* of metaid 0x";
/// The same, on the newest release: one whose idle daemons do not notice that their master is gone.
pub const PROVED_NEWEST: &str =
    r"prove: MooseFS (4\.(5[89]|[6-9][0-9])|[5-9])\.[0-9.]+ answers with version .* of metaid 0x";
/// The same, on MooseFS 1.6.
pub const PROVED_1_6: &str = "prove: MooseFS 1.6.27 answers";
/// The master was watched for its first seconds.
pub const WATCHED: &str = "watch: ";
/// Stale connections of clients were reset.
pub const CLIENTS_RESET: &str = "clients: stale connections ended by TCP RST: [0-9]+";
/// A run that was killed is undone by the next one.
pub const INTERRUPTED_ROLLED_BACK: &str = "was interrupted: every file is where it was";
/// The roll-back is done.
pub const ROLLED_BACK: &str = "roll-back: every file is where it was";
/// A change was made for the metaloggers' sake.
pub const CHANGE_MADE: &str = "no changes since a metalogger connected: opened and closed a session";
/// The archive is written.
pub const ARCHIVED: &str = "archive: .* read back and compared";
/// A promotion cancels a rehearsal.
pub const REHEARSAL_TOLD: &str = "stopping the running rehearsal";
// Steps of a demotion.
/// The demotion waits for the address to come back.
pub const GRACE_BEGUN: &str = "waiting .* before stopping the master, in case ucarp is only restarting";
/// The wait is over.
pub const GRACE_OVER: &str = "grace: ";
/// The address has come back.
pub const ADDRESS_BACK: &str = "grace: .* is back; the master was not touched|promotion ended: already serving";
/// The master is stopped.
pub const MASTER_STOPPED: &str = "stop: mfsmaster stopped";
/// A machine has left the address, and stops its master now: m1 or m2 has everything.
pub const PEER_WAITS: &str = "grace: 172.16.0.1[12] (is being promoted with|serves) version [0-9]+: it lacks nothing";
// Failures of a promotion.
/// A promotion failed; the reason follows.
pub const PROMOTION_FAILED: &str = "promotion failed: ";
/// The master cannot be started.
pub const CANNOT_START: &str = "promotion failed: cannot start .*mfsmaster";
/// The master exited while it started.
pub const ENDED_WHILE_STARTING: &str = "promotion failed: mfsmaster exited while it was starting";
/// The master exited in its first seconds.
pub const ENDED_AFTER_PROOF: &str = "promotion failed: mfsmaster exited .* after it began to serve";
/// The master does not answer.
pub const DOES_NOT_ANSWER: &str = "promotion failed: mfsmaster is running but did not answer on port 9421";
/// The master serves less than planned.
pub const SERVES_LESS: &str = "promotion failed: mfsmaster serves version .* it did not replay the staged change log";
/// The files cannot be served.
pub const NO_PLAN: &str = "promotion failed: no promotion from the files here";
/// They belong to different file systems.
pub const NO_PLAN_METAID: &str = "promotion failed: no promotion from the files here.*metaid";
/// The copy is stale.
pub const STALE: &str = "promotion failed: the copy here is stale: version [0-9]+ was served at ";
/// Nothing beyond the machine answers.
pub const ISOLATED: &str = "promotion failed: this machine is isolated";
/// What `--check`, `--dry-run` and `--rehearse` say where only the other machine proves the network.
pub const CHECK_NETWORK: &str = "no other machine proves that the network of this one works";
/// A machine that stands by has found that its copy lacks changes.
pub const COPY_IS_STALE: &str = "the copy here is stale: the master on";
/// A metalogger that had to be killed may not have written everything.
pub const MAY_LACK_CHANGES: &str = "promotion failed: mfsmetalogger did not stop and was killed";
/// A copy that may lack changes, and no better one took over.
pub const LAST_RESORT_UNKNOWN: &str = "its copy may lack changes, .* this one is served as a last resort";
/// The copy is stale, and no better one took over.
pub const LAST_RESORT: &str = "the copy here is stale: .* this one is served as a last resort";
/// The run was killed three times.
pub const KILLED_TOO_OFTEN: &str = "promotion failed: killed 3 times";
/// Flapping, with `FLAP_LIMIT = 2`.
pub const ROLE_CHANGES_2: &str = "flapping: 2 role changes within";
/// The same, as the reason of a failure.
pub const FLAPPING_2: &str = "promotion failed: flapping: 2 role changes within";
/// The same, with `FLAP_LIMIT = 3`.
pub const FLAPPING_3: &str = "promotion failed: flapping: 3 role changes within";
/// The master on m1 is alive, or another machine has the address.
pub const M1_ALIVE_OR_ADDRESS_TAKEN: &str =
    "promotion failed: .*(alive on 172.16.0.11 at version|answers for 172.16.0.99)";
/// m3 has the address.
pub const ADDRESS_TAKEN_BY_M3: &str = r"another machine \(02:00:00:00:00:0d\) answers for 172.16.0.99";
/// The master on m1 is alive and has what is known here.
pub const M1_ALIVE_WAITING: &str =
    "the master on 172.16.0.11 has the same version as this machine; waiting for it to stop";
/// A stale master runs here, the living one is on m1.
pub const STALE_MASTER_M1_ALIVE: &str = "stopped serving: a master is alive on 172.16.0.11 at version";
/// The master on m1 is hung.
pub const M1_HUNG: &str = "the master on 172.16.0.11 hangs \\(accepts connections, no reply\\); ignoring it";
/// The configuration has an unknown key.
pub const UNKNOWN_KEY: &str = "unknown key NONSENSE";
/// A step took too long and is cancelled.
pub const STEP_TIMED_OUT: &str = r#"step "prepare" has taken .*; cancelling it.*state D"#;
/// The cancelled step does not stop.
pub const STEP_DOES_NOT_STOP: &str = r#"step "prepare" has taken .*, and does not stop"#;
/// A restore took too long.
pub const RESTORE_TIMED_OUT: &str = "mfsmaster was not done after 2[.0]* s .*state R, [0-9.]+ s of processor time";
/// The metalogger had to be killed.
pub const METALOGGER_KILLED: &str = "ignored TERM for .*sending KILL.*mfsmetalogger [0-9]+ state T";
/// The master was serving before the run, on MooseFS 1.6.
pub const LEFT_ALONE: &str = "mfsmaster is already serving here; left alone";
/// The same, of a release that tells its version.
pub const LEFT_ALONE_AT: &str = "mfsmaster is already serving version [0-9]+ here; left alone";
/// A master of an unknown release runs here.
pub const UNKNOWN_RELEASE: &str = "mfsmaster 5.1.4 runs here, a release that is not known to this program";
/// A master of an unknown release was promoted.
pub const NOT_PROVED: &str = "MooseFS 5.1.4 is not known to this program, so it cannot be proved";
/// A master that does not answer is waited for.
pub const MASTER_WAITED_FOR: &str = "mfsmaster is running and does not answer .* It is waited for, for [0-9]";
/// A promotion waits for the demotion before it.
pub const DEMOTION_WAITED_FOR: &str = "stopping the running demotion .*; waiting for it for [0-9.]+ [a-z]+ at most";
// ucarp and the address.
/// ucarp has become MASTER.
pub const UCARP_MASTER: &str = "ucarp.*Switching to state: MASTER";
/// ucarp has become BACKUP.
pub const UCARP_BACKUP: &str = "ucarp.*Switching to state: BACKUP";
/// ucarp is BACKUP, or reports that it is.
pub const UCARP_BACKUP_ANY: &str = "ucarp.*BACKUP";
/// ucarp was stopped.
pub const NO_MORE_ELECTIONS: &str = "takes no part in elections until ucarp is started again";
/// ucarp had to be killed.
pub const UCARP_KILLED: &str = "ignored TERM and was killed; start it again";
/// The address was removed.
pub const ADDRESS_REMOVED: &str = "172.16.0.99 removed from eth0";
// While a machine serves.
/// m1 is remembered as the MASTER.
pub const M1_REMEMBERED: &str = "172.16.0.11 is in this group; it will be asked";
/// m2 is remembered as a standby.
pub const M2_REMEMBERED: &str = "172.16.0.12 is in this group; it will be asked";
/// The same of cs1, which has a ucarp of its own.
pub const CS1_REMEMBERED: &str = "172.16.0.41 is in this group; it will be asked";
/// The address was removed by another program, and restored.
pub const ADDRESS_PUT_BACK: &str = "another program removed 172.16.0.99 from eth0; restored";
/// The same, too often.
pub const ADDRESS_REMOVED_AGAIN: &str = "172.16.0.99 was removed from eth0 4 times in ";
/// ucarp was killed and left the address behind.
pub const UCARP_GONE: &str = "ucarp .* exited without removing 172.16.0.99";
/// ucarp is stopped by a signal and leaves the address behind.
pub const UCARP_SUSPENDED: &str = "ucarp .* is stopped by a signal and manages 172.16.0.99 no more";
/// The address is released, since m2 advertises.
pub const ADDRESS_RELEASED_TO_M2: &str = "releasing 172.16.0.99: 172.16.0.12 advertises it";
/// No other machine takes over, so this one keeps serving.
pub const NO_SUCCESSOR: &str = "no other machine took over; continuing to serve 172.16.0.99 without ucarp";
/// m2 announces the address, too, and was answered.
pub const M2_ANNOUNCES: &str = "02:00:00:00:00:0c also announces 172.16.0.99; re-sending gratuitous ARP";
/// The serving master has exited.
pub const MASTER_EXITED: &str = "stopped serving: mfsmaster exited and has not been running";
/// The serving master does not respond.
pub const MASTER_SILENT: &str = "stopped serving: mfsmaster is running but has not responded";
/// What a hung process does: it is stopped by a signal.
pub const MASTER_STATE_T: &str = "mfsmaster [0-9]+ state T";
/// This machine stopped serving because another one does.
pub const STOPPED_SERVING_OR_PEER_ALIVE: &str = "stopped serving: |mfsmaster runs here at version .*, and one on ";
/// The same, and the other one is m2.
pub const STOPPED_SERVING_OR_M2_ALIVE: &str =
    "stopped serving: |mfsmaster runs here at version .*, and one on 172.16.0.12";
/// What this machine has that no served history has; the first and the last version, their number and the machine that
/// serves follow.
pub const NOT_SERVED: &str = "not in the served history: ";
/// The line of `--status` about it.
pub const STATUS_NOT_SERVED: &str = "not served     ";
/// The same; captures the first and the last version, and their number.
pub const NOT_SERVED_NUMBERS: &str = r"not in the served history: versions ([0-9]+) to ([0-9]+) \(([0-9]+) changes?\)";
/// A key of an earlier release.
pub const KEY_RETIRED: &str = "EPOCH_JUMP is ignored";
// Names that scenarios use.
/// The verb of a switchover.
pub const SWITCHOVER: &str = "--switchover";
/// The key that names ping nodes.
pub const PING_NODES: &str = "PING_NODES";
/// The process that supervises a run.
pub const SUPERVISOR: &str = "mfs-supervisor";
/// The field of `--check --json` with the time at which the copy was last in sync.
pub const IN_SYNC_FIELD: &str = "in_sync";
/// In the data folder while a promotion runs.
pub const RUN_FOLDER: &str = "mfs-promote/";
/// In it, while a machine stands by.
pub const SECOND_NAMES: &str = "mfs-promote/logs/";
/// In the folder of a run, beside the files that it moves.
pub const JOURNAL: &str = "journal.json";
/// In the data folder while a rehearsal runs.
pub const REHEARSAL_FOLDER: &str = "mfs-rehearsal";
/// In the data folder: what is kept of a hot standby.
pub const HOT_FOLDER: &str = "mfs-promote/hot";
/// In it: what its master was fed.
pub const HOT_LOG: &str = "mfs-promote/hot/changelog.0.mfs";
/// In it: how far a run has fed it that has left it to the next one.
pub const HOT_LEFT: &str = "mfs-promote/hot/left.json";
/// The variable in the environment of its master: the name of a file in that folder as long as it waits.
pub const HOT_MARK: &str = "MFS_PROMOTE_WAITS";
/// In the data folder while it is started: its image.
pub const HOT_IMAGE: &str = "metadata.mfs-promote";
/// And how the names of its logs begin.
pub const HOT_GATE: &str = "changelog.9700000";
/// In the folder of the lock: what is known of it.
pub const HOT_REPORT: &str = "hot.json";
/// In the folder of the lock while a rehearsal runs.
pub const REHEARSAL_CONFIG: &str = "rehearsal.cfg";

// Words of the reports and of `NOTIFY`.
/// `--status` about the outcome of a run.
pub const OUTCOME_ALREADY_SERVING: &str = "already serving";
/// The same.
pub const OUTCOME_STOPPED: &str = "stopped";
/// A row of `--status`.
pub const STATUS_SERVING: &str = "  promotion  serving ";
/// `--status` and `--dry-run` about an interrupted run.
pub const INTERRUPTED_MOVING: &str = "while moving files";
/// The same, when its journal cannot be read.
pub const JOURNAL_DAMAGED: &str = "cannot be read";
/// The same, when its journal is gone.
pub const JOURNAL_LOST: &str = "its journal is gone";
/// A switchover that was done; the address of the other machine comes before it.
pub const SWITCHED_OVER: &str = " serves on 172.16.0.99; no master answered for ";
/// A switchover on a machine that does not serve.
pub const NOT_SERVING: &str = "this machine does not serve on 172.16.0.99";
/// A switchover without another machine.
pub const NO_STANDBY: &str = "no metalogger of another machine is connected";
/// A rehearsal's progress on a terminal.
pub const RESTORING: &str = "restoring: 1 s";
/// The unit without its settings.
pub const VIP_NOT_SET: &str = "VIP is not set in /etc/default/moosefs-ucarp";
/// The unit with a password that ucarp refuses.
pub const PASSWORD_TOO_LONG: &str = "the password in /etc/mfs/ucarp.pass has 20 bytes, and ucarp takes 1 to 19";
/// The unit before its interface is there.
pub const WAITING_FOR_INTERFACE: &str = "waiting for the interface eth0";
/// An image that another user has put where a master looks for one.
pub const FORGED_IMAGE: &str = "user 65534 has put metadata.mfs.emergency into /tmp";
/// `MASTER_SERVICE` with a spelling mistake.
pub const NO_SUCH_UNIT: &str = "there is no systemd unit named moosefs-mastr for mfsmaster";
/// The unit of ucarp is stopped instead of its process.
pub const UNIT_STOPPED: &str = "stop ordered";
/// The unit beside a ucarp that was started in another way.
pub const ANOTHER_UCARP: &str = "calls its hooks. End that ucarp";
/// `--check`: other machines use our vhid.
pub const CHECK_FOREIGN_GROUP: &str = "172.16.0.61 advertises vhid 10 too";
/// `--check`
pub const CHECK_UCARP: &str = "ok: running, pid ";
/// `--dry-run`
pub const WOULD_SUCCEED: &str = "a promotion would succeed";
/// `--rehearse`
pub const WOULD_SERVE: &str = "a promotion would serve";
/// `--rehearse`
pub const AS_PLANNED: &str = "as planned";
/// `--status` after a rehearsal.
pub const REHEARSED: &str = "rehearsal  would serve";
/// `--dry-run` about a torn last line.
pub const TORN: &str = "torn last line of 12 bytes";
/// The log about a torn last line.
pub const TORN_LOGGED: &str = "torn.*12 bytes";
/// On a standby: nothing of ours works on the MASTER.
pub const ABANDONED: &str = "mfs-promote does not work any more on 172.16.0.11, whose ucarp is MASTER";
/// `--dry-run`: the plan starts from a copy of a promoted master.
pub const NEW_HISTORY: &str = "(ml, version 200000000000";
/// `--dry-run` about a hard link.
pub const SECOND_NAME: &str = "metadata.mfs.back.7 is a hard link to a file of another user";
/// A program was started by another user.
pub const NOT_ROOT: &str = "must run as root";
/// The advice about files that others can write.
pub const CHOWN_ADVICE: &str = "run: chown root";
/// A run by hand without the address.
pub const ADDRESS_MISSING: &str = "172.16.0.99 is not on eth0";
/// The advice for a demotion by hand.
pub const STOP_UCARP_INSTEAD: &str = "stop ucarp";
/// A switchover that failed.
pub const SERVES_AGAIN: &str = "this machine serves again";
/// The advice of `--dry-run` where changes are missing.
pub const LOSS_ADVICE: &str = "mfs-promote --allow-data-loss";
/// The cut came between a change of a write and its answer.
pub const LOCKS_RELEASED: &str = "chunk locks of writes interrupted in the last second";
/// A promotion in spite of missing changes.
pub const LOSS_WARNED: &str = "warn: plan: lost: ";
/// `--check`
pub const NO_UCARP: &str = "critical: not running: this machine will not take over; start ucarp";
/// `--check`
pub const IN_SYNC: &str = "ok: in sync with 172.16.0.99:9421 at version ";
/// `--check`
pub const CHECK_WOULD_SERVE: &str = "ok: would serve version 2000";
/// `--check`
pub const LACKS: &str = "critical: lacks ";
/// `--check --nagios`
pub const NAGIOS_CRITICAL: &str = "MFS-PROMOTE CRITICAL - standby, ";
/// `--check --nagios`
pub const NAGIOS_LACKS: &str = "copy: lacks ";
/// `--check` of a machine that is as it should be after a reboot.
pub const CHECK_BOOT: &str = "the metalogger starts at boot, the master does not";
/// `--check` about a wrapper around the hook.
pub const WRAPPED_HOOK: &str = "calls /usr/bin/slow, which is not vip-up";
/// The command of `NOTIFY` took too long.
pub const NOTIFY_TIMED_OUT: &str = "notify: /usr/local/bin/tell was not done after 30[.0]* s";
/// The event and the reason that `NOTIFY` got: this machine is isolated.
pub const NOTIFIED_ISOLATED: &str = "step-down: this machine is isolated";
/// The same: another master is alive.
pub const NOTIFIED_PEER_ALIVE: &str = "step-down: a master is alive";
/// The same: ucarp stepped down for another one.
pub const NOTIFIED_LEFT: &str = "demotion: ";
/// The arguments of `NOTIFY` after ucarp was stopped.
pub const NOTIFIED_STOP: &str = "stop stop m2 eth0 172.16.0.99";
/// The arguments of `NOTIFY` after a demotion.
pub const NOTIFIED_DEMOTION: &str = "demotion demotion m2 eth0 172.16.0.99 ";
/// The reason that `NOTIFY` got.
pub const NOTIFIED_STALE_COPY: &str = "no promotion from the files here: metadata_y is not a regular file";

// Metaloggers and chunkservers that follow.
/// A standby has ended the connection of its metalogger to a master that is gone.
pub const CONNECTION_ENDED: &str =
    "ended the connection of the metalogger here to .*: it leads to a master that is gone";
/// The metalogger has connected again.
pub const METALOGGER_FOLLOWS: &str = "the metalogger here is connected to .* now";
/// A metalogger takes the master for one of before 1.6.18.
pub const OLD_MASTER: &str = "mfsmetalogger.*old master detected";
/// A standby restarts its metalogger, because the copy stays incomplete.
pub const METALOGGER_RESTARTED: &str = "the copy here is incomplete: .*; restarting the metalogger";
/// That has helped.
pub const COPY_COMPLETE_AGAIN: &str = "the copy here is complete again, at version ";
/// It has not.
pub const COPY_STILL_INCOMPLETE: &str = "the copy here is still incomplete after the metalogger was restarted: ";
/// The run that did it was killed meanwhile.
pub const RESTART_FINISHED: &str = "a run was killed while it restarted the metalogger; restarting it";
/// The serving machine names what has not come; the names follow.
pub const NOT_CONNECTED: &str = "not connected .* after the takeover: ";
/// The serving machine misses nothing.
pub const ALL_CONNECTED: &str = "all are connected .* after the takeover";
/// `--check` of a standby whose metalogger has a connection that leads nowhere.
pub const CHECK_NOT_FOLLOWING: &str = "connected to a master that is gone";
/// A file system on which no file can be moved safely.
pub const NO_SAFE_RENAME: &str = "can neither rename a file without replacing another one";
/// An archive that would take the room of the serving master.
pub const NO_ROOM_TO_ARCHIVE: &str = "the files set aside stay in .*not enough space for an archive in ";
/// `vip-down` cannot write its call.
pub const TOLD_TO_END: &str = r"telling the promotion of pid [0-9]+ to end instead";

// Several ucarps on a machine.
/// A second address for one file system.
pub const SECOND_ADDRESS: &str = "another ucarp of this machine .* moves 172.16.0.99 for the instance without a name";
/// An instance without a configuration.
pub const NO_CONFIGURATION: &str = "cannot read /etc/mfs/mfspromote-b.cfg";
/// Two instances with one data folder.
pub const SAME_FOLDER: &str = "the same DATA_PATH /var/lib/mfs as the instance without a name";
/// An XPARAM that is no name.
pub const BAD_NAME: &str = "the XPARAM \"../b\" is not a name";
/// A machine that could not serve lets the others win first.
pub const STANDS_BACK: &str = "this machine could not serve, so it stands back in elections";
/// And no longer.
pub const STANDS_BACK_NO_LONGER: &str = "this machine could serve again, so it stands back no longer";
/// A metalogger hears of another history.
pub const LOGS_DROPPED: &str = "some changes lost: .* download metadata again";
/// A standby has loaded its copy and follows.
pub const HOT: &str = "hot standby: mfsmaster .* has loaded version";
/// A promotion has let the hot standby serve.
pub const LET_GO: &str = "hot: the waiting master begins to serve";
/// A release whose master is not safe after it has waited.
pub const COLD_RELEASE: &str = "no hot standby for now: MooseFS 3.0.* is too old, 4.56.5 or later is needed";
/// A copy that no master can load.
pub const CANNOT_REPLAY: &str = "the copy here cannot be replayed, so this machine could not serve";
