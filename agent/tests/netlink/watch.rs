//! The watch: it sees what happens, and ends right when it could not keep up.

use std::net::IpAddr;

use baton::netlink::{
    RequestSocket,
    address::{Address, AddressSet},
    watch::{Event, Watch},
};

use crate::lab;

const VIP: &str = "192.0.2.10";

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

async fn until(watch: &mut Watch, what: &str, wanted: impl Fn(&Event) -> bool) -> Event {
    let seen = tokio::time::timeout(lab::PATIENCE, async {
        loop {
            let event = watch.next().await.unwrap();
            if wanted(&event) {
                return event;
            }
        }
    });
    seen.await.unwrap_or_else(|_| panic!("not seen: {what}"))
}

#[test]
fn links_and_addresses_that_change_are_seen() {
    lab::run(|lab| {
        block_on(async {
            lab::ip(&format!("address add {VIP}/32 dev front"));
            let mut watch = Watch::open().unwrap();
            let front = watch.link("front").cloned().expect("known at once");
            let vip: IpAddr = VIP.parse().unwrap();
            assert!(front.ready() && watch.has_address(front.index, vip));

            lab::ip(&format!("address del {VIP}/32 dev front"));
            let gone = until(&mut watch, "the address goes", |e| matches!(e, Event::AddressGone(_))).await;
            assert!(matches!(gone, Event::AddressGone(p) if p.ip == vip && p.index == front.index));
            assert!(!watch.has_address(front.index, vip));

            lab::ip(&format!("address add {VIP}/32 dev front"));
            until(&mut watch, "the address comes", |e| matches!(e, Event::Address(p) if p.ip == vip)).await;

            // The far end goes down: the carrier is lost, the device stays switched on.
            lab.there(|| lab::ip("link set peer down"));
            until(
                &mut watch,
                "the carrier goes",
                |e| matches!(e, Event::Link { now, before: Some(before) } if before.ready() && now.up && !now.ready()),
            )
            .await;
            lab.there(|| lab::ip("link set peer up"));
            until(&mut watch, "the carrier comes", |e| matches!(e, Event::Link { now, .. } if now.ready())).await;

            lab::ip("link del front");
            until(&mut watch, "the device goes", |e| matches!(e, Event::LinkGone(l) if l.index == front.index)).await;
            assert!(watch.link("front").is_none() && !watch.has_address(front.index, vip));
            lab::ip("link add front type veth peer name other");
            let new =
                until(&mut watch, "the device comes", |e| matches!(e, Event::Link { now, .. } if now.name == "front"));
            assert!(matches!(new.await, Event::Link { now, before: None } if now.index != front.index));
        });
    });
}

#[test]
fn an_overflow_is_survived_by_reading_everything_afresh() {
    lab::run(|_| {
        block_on(async {
            let vip: IpAddr = VIP.parse().unwrap();
            lab::ip(&format!("address add {VIP}/32 dev front"));
            let mut watch = Watch::open().unwrap();
            let front = lab::link();
            let many = (0..1_000u16)
                .map(|i| Address::vip([198, 51, (i >> 8) as u8, i as u8].into(), 32, "front", front.index));
            let mut set = AddressSet::new(many.collect()).unwrap();
            let mut requests = RequestSocket::open().unwrap();
            // More than the queue holds: nothing is read meanwhile.
            for _ in 0..30 {
                assert!(set.add(&mut requests).unwrap().failures.is_empty());
                assert!(set.delete(&mut requests).unwrap().failures.is_empty());
            }
            // These come after the overflow, so their own messages are lost.
            lab::ip(&format!("address del {VIP}/32 dev front"));
            lab::ip("link set front down");
            until(&mut watch, "the address is gone", |e| matches!(e, Event::AddressGone(p) if p.ip == vip)).await;
            if watch.link("front").is_some_and(|l| l.up) {
                until(&mut watch, "the link is down", |e| matches!(e, Event::Link { now, .. } if !now.up)).await;
            }
            until(&mut watch, "the resync is told", |e| *e == Event::Resynced).await;
            assert!(watch.resyncs() > 0, "the test did not overflow the queue");
            assert!(!watch.has_address(front.index, vip));
        });
    });
}
