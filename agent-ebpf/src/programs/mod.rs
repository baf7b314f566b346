//! One file a purpose: the maps, access to packets, the backplane's programs, the gate's, and steering.

mod backplane;
mod blank;
mod flow;
mod frame;
mod gate;
mod maps;
mod neighbour;
mod policy;
mod socket;
mod steer;
mod vip;
