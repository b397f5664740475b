//! Whole clusters with real ucarp and real MooseFS. Needs root, ucarp and the MooseFS 3.0 packages.
//! Clusters never overlap: the lab holds a lock of the host while one runs.

mod lab_itself;
mod power_off;
