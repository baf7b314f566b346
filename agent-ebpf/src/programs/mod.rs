//! One file a purpose: the maps, access to packets, the backplane's programs, the gate's.

mod backplane;
mod frame;
mod gate;
mod maps;
mod neighbour;
