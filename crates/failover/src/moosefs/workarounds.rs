//! Facts of MooseFS, and of TCP under it, that are worked around. None is needed to understand a promotion; each begins
//! with what breaks without it.

pub(crate) mod drain;
pub(crate) mod metarestore;
pub(crate) mod nudge;
pub(crate) mod restore_dropin;
pub(crate) mod tcp_resets;
