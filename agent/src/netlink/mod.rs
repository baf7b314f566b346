//! The kernel's network configuration: addresses, links, routes and rules by raw netlink, announcements by packet sockets.
//!
//! What a takeover needs is prepared in advance (requests encoded, frames built, sockets open), so that the critical path is
//! a few system calls without allocation, fork or task switch. Everything but [`watch`] is synchronous and bounded in time.

pub mod address;
pub mod announce;
pub mod batch;
pub mod error;
pub mod frame;
pub mod link;
pub mod membership;
pub mod packet;
pub mod route;
pub mod rule;
pub mod socket;
pub mod sockets;
pub mod sysctl;
pub mod watch;
pub mod wire;

pub use error::NetlinkError;
pub use socket::RequestSocket;
