//! The two hooks as ucarp and as people run them, on the real kernel and under real ucarp.

mod machine;
mod units;
mod vip_down;
mod vip_up;
