//! Whole lives of a pool as scripts of events, with a hand-turned clock: one file for each file of decisions. Random ones
//! are in `random`.

mod drain;
mod life;
mod limits;
mod mold;
mod random;
mod recycle;
mod rollout;
mod scale;
mod serving;
mod unkillable;
mod upgrade;
