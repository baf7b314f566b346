//! The lab: clusters of network namespaces for tests, demo and benches.
//!
//! One call ([`topology::Lab::new`]) makes the networks, the machines and the clients of a cluster; dropping it removes
//! them. Faults ([`topology::Lab::wires`], [`process::Proc`]), observers ([`probe`], [`wire`], [`addresses`], [`stall`])
//! and the systems under test ([`system::System`]) all work on such a lab, so that Baton and its peers meet the same
//! faults and the same eyes.

pub mod addresses;
pub mod baton;
pub mod burn;
pub mod faults;
pub mod force;
pub mod freeze;
pub mod garbage;
pub mod gates;
pub mod haproxy;
pub mod home;
pub mod http;
pub mod keepalived;
pub mod load;
pub mod lock;
pub mod metrics;
pub mod netns;
pub mod overlap;
pub mod pacemaker;
pub mod packet;
pub mod probe;
pub mod process;
pub mod realtime;
pub mod records;
pub mod replay;
pub mod responder;
pub mod scene;
pub mod stall;
pub mod system;
pub mod topology;
pub mod trial;
pub mod vm;
pub mod wait;
pub mod wire;
