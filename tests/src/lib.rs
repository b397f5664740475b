//! Clusters of test machines on this one machine, with real ucarp and real MooseFS in them.
//!
//! A [`Machine`] is a set of namespaces with its own root, a [`switch`](crate::Cluster::cut) joins them, a client keeps
//! writing and notes every acknowledged operation, and afterwards each of them is looked for. Needs root.
//!
//! ```no_run
//! # use std::time::Duration;
//! # fn scenario() -> Result<(), lab::Error> {
//! let cluster = lab::Cluster::build().masters(3).start()?;
//! let load = cluster.client().keep_writing()?;
//! let off = cluster.power_off("m1")?;
//! let taken = cluster.wait_for_serving_other_than("m1", Duration::from_secs(30))?;
//! load.wait_for_progress(Duration::from_secs(30))?;
//! println!("{} serves, clients waited {:?}", taken.by, load.outage(off)?);
//! assert!(load.verify(&cluster.crashes())?.lost.is_empty());
//! # Ok(())
//! # }
//! ```

mod booted;
mod build;
pub mod clock;
mod cluster;
mod error;
pub mod events;
mod faults;
mod groups;
pub mod hooks;
pub mod load;
pub mod log_lines;
mod machine;
mod moosefs;
mod network;
pub mod oplog;
mod picture;
mod probe;
mod process;
pub mod promises;
pub mod random;
mod root;
pub mod rust;
mod single_machine;
mod site;
mod switch;
pub mod timeline;
pub mod trace;
mod watch;
mod work;

pub use booted::Booted;
pub use build::Builder;
pub use clock::Moment;
pub use cluster::{Cluster, Pause, Taken};
pub use error::Error;
pub use events::{Event, EventLog};
pub use hooks::{Hooks, built_programs, debian_package};
pub use load::{Client, LAST_RETRY, Lost, Outage, Verdict, Workload};
pub use machine::{Machine, Role};
pub use probe::Reply;
pub use process::Daemon;
pub use promises::{Between, Overlap};
pub use root::Release;
pub use single_machine::{SingleMachine, SingleMachines, TracedRun};
pub use site::Site;
pub use watch::Answer;
pub use work::sweep;

/// The virtual address that every cluster shares; the name `mfsmaster` resolves to it.
pub const VIP: std::net::Ipv4Addr = std::net::Ipv4Addr::new(172, 16, 0, 99);

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

/// A mutex that a panicking test thread cannot spoil.
fn locked<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
