//! Workarounds for facts of MooseFS and of TCP. You need none of them to understand a promotion or a demotion: skip
//! them until you need one. Each file begins with the damage that it prevents.
//!
//! | workaround | without it |
//! |---|---|
//! | [`tcp_resets`] | clients wait up to two seconds longer after a failover |
//! | [`silent_clients`] | clients that send nothing just then notice a failover up to three seconds late, or never |
//! | [`drain`] | a busy master loses a change that it acknowledged, in about one of twenty failovers by `vip-down` |
//! | [`nudge`] | a standby whose metalogger missed a failover can serve the old history at the next one |
//! | [`silent_death`] | a standby keeps the old history after a power cut, and the next failover serves it (MooseFS 4.58 and later) |
//! | [`old_master`] | a standby whose metalogger was disconnected while it downloaded lacks changes, and cannot take over, until the metalogger is restarted |
//! | [`adoption`] | systemd knows nothing of the master of a hot standby that serves |
//! | [`restore_dropin`] | a master under systemd does not start after a promotion |
//! | [`metarestore`] | no machine with MooseFS 1.x can be promoted |
//! | `metadata::chunks` | a program whose write the crash cut in two hangs for two minutes; after a split, a file is read from a chunk of another one |
//! | `metadata::emergency` | an image that a master saved elsewhere, because its data folder was full, is overlooked |
//! | the epoch jump (`metadata::version`) | a metalogger with changes that were lost mixes them with the new history |

pub(crate) mod adoption;
pub(crate) mod drain;
pub(crate) mod metarestore;
pub(crate) mod nudge;
pub(crate) mod old_master;
pub(crate) mod restore_dropin;
pub(crate) mod silent_clients;
pub(crate) mod silent_death;
pub(crate) mod tcp_resets;
