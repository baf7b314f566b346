//! What a device is, asked by netlink: the programs read Ethernet headers, and XDP runs before the gate, so that a program
//! of somebody else's on a front is a bypass.

use std::io;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkLayerType, LinkMessage, LinkXdp},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// A device as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Its MAC address; `None` when its frames have no Ethernet headers.
    pub(super) mac: Option<[u8; 6]>,
    /// The number of its XDP program, whatever the mode.
    pub(super) xdp: Option<u32>,
}

/// Looks at a device of this thread's network namespace (rtnetlink(7), RTM_GETLINK).
///
/// # Errors
/// The device does not exist, or netlink cannot be used.
pub(super) fn look(ifindex: u32) -> io::Result<Seen> {
    let mut request = LinkMessage::default();
    request.header.index = ifindex;
    let mut message =
        NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(RouteNetlinkMessage::GetLink(request)));
    message.header.flags = NLM_F_REQUEST;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);

    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
            let ethernet = link.header.link_layer_type == LinkLayerType::Ether;
            Ok(Seen { mac: mac(&link).filter(|_| ethernet), xdp: xdp(&link) })
        }
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::Error::other("netlink answered with another message than was asked for")),
    }
}

fn mac(link: &LinkMessage) -> Option<[u8; 6]> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    })
}

fn xdp(link: &LinkMessage) -> Option<u32> {
    let attributes = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(attributes) => Some(attributes),
        _ => None,
    })?;
    attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => Some(*id),
        _ => None,
    })
}
