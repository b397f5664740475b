//! The parts of a MooseFS metadata failover.
//!
//! Each module owns one kind of effect, has its own error type and imports no sibling, except inside `metadata/`
//! and for plain types (`folder::Folder`, `cancel::Cancel`). The programs join them: the order of the lines in
//! their `run` functions is the order of the work.
//!
//! | module | owns |
//! |---|---|
//! | [`address`] | the virtual IP on an interface (rtnetlink) |
//! | [`arp`] | asking the link who else has the virtual IP |
//! | [`carp`] | hearing CARP advertisements |
//! | [`ucarp`] | the ucarp that called us: its identity, its times, making it step down |
//! | [`reach`] | whether anything beyond this machine answers |
//! | [`cancel`] | "stop what you do": a signal turned into a value every wait looks at |
//! | [`config`] | `mfspromote.cfg` and MooseFS's own configuration files |
//! | [`folder`] | file access inside a folder that another user can write |
//! | [`metadata`] | images, change logs, what to make of them, and the clean set for a master to start from |
//! | [`moosefs`] | the generation of the daemons, and asking a running master |
//! | [`service`] | starting and stopping the daemons by whatever manages services here |
//! | [`process`] | child processes with deadlines, and other processes by identity |
//! | [`archive`] | what was set aside, as a verified `metabak.<unix time>.tar.xz` |
//! | [`lock`] | one promotion or demotion at a time; the last hook called wins |
//! | [`state`] | the state folder: the journal of a commit, the records of the last runs |
//! | [`logging`] | syslog and journald, or standard error |

pub mod address;
pub mod archive;
pub mod arp;
pub mod cancel;
pub mod carp;
pub mod config;
mod filter;
pub mod folder;
pub mod leave;
pub mod lock;
pub mod logging;
pub mod metadata;
pub mod moosefs;
mod netlink;
pub mod process;
pub mod reach;
pub mod resets;
pub mod scope;
pub mod service;
pub mod state;
pub mod ucarp;
