//! One file a purpose: the maps, access to packets, the backplane's programs, the gate's, steering, and ends of
//! processes.

mod backplane;
mod blank;
mod exit;
mod flow;
mod frame;
mod gate;
mod maps;
mod neighbour;
mod policy;
mod socket;
mod steer;
mod vip;
