//! The `vip` resource: a group's addresses as one unit.

use std::net::IpAddr;

use baton::{
    cluster::ids::GroupId,
    netlink::{
        RequestSocket, address,
        link::{self, Mac},
        watch::{Event, Watch},
    },
    resources::{
        Context, Health, Operation, Resource, ResourceError, Work,
        vip::{INLINE_IPV6_MAX, Vip, VipSpec},
    },
};

use crate::lab;

const V4: &str = "192.0.2.10";
const V6: &str = "2001:db8::ff:10";

fn specs(devices: [&str; 2]) -> Vec<VipSpec> {
    [V4, V6].iter().zip(devices).map(|(ip, device)| VipSpec::host(ip.parse().unwrap(), device)).collect()
}

fn context() -> Context {
    Context { group: GroupId::new("web"), epoch: 7 }
}

/// VIP work never goes on as a future: that is what the critical path relies on.
fn done<T>(work: Work<'_, T>) -> Result<T, ResourceError> {
    match work {
        Work::Done(result) => result,
        Work::Pending(_) => panic!("the work of a vip is done at once"),
    }
}

fn has(device: &str, ip: &str) -> bool {
    let mut socket = RequestSocket::open().unwrap();
    let index = baton::netlink::link::by_name(&mut socket, device).unwrap().index;
    let ip: IpAddr = ip.parse().unwrap();
    address::list(&mut socket, index).unwrap().iter().any(|p| p.ip == ip && !p.unusable)
}

#[test]
fn starts_and_stops_as_a_unit_over_several_devices() {
    lab::run(|lab| {
        lab::ip("link add second type veth peer name third");
        lab::ip("link set second up");
        lab::ip("link set third up");
        let mut vip = Vip::new("web-vip", specs(["front", "second"])).unwrap();
        assert_eq!(done(vip.probe()), Ok(Health::Stopped));
        assert!(vip.missing().is_empty());
        for _ in 0..2 {
            done(vip.start(&context())).unwrap();
            assert!(has("front", V4) && has("second", V6));
            assert_eq!(done(vip.monitor()), Ok(Health::Running));
        }
        assert!(vip.milestones().iter().all(|m| m.at > 0));
        lab.resolve(V4.parse().unwrap(), lab::link().mac.unwrap());
        for _ in 0..2 {
            done(vip.stop(&context())).unwrap();
            assert!(!has("front", V4) && !has("second", V6));
            assert_eq!(done(vip.monitor()), Ok(Health::Stopped));
        }
    });
}

#[test]
fn probe_tells_a_part_from_the_whole() {
    lab::run(|_| {
        let mut vip = Vip::new("web-vip", specs(["front", "front"])).unwrap();
        lab::ip(&format!("address add {V4}/32 dev front"));
        let Ok(Health::Failed(text)) = done(vip.probe()) else { panic!("not noticed") };
        assert!(text.contains("1 of 2") && text.contains(V6), "{text}");
        assert!(!has("front", V6), "a probe changes nothing");
    });
}

#[test]
fn a_start_that_fails_names_the_address_and_a_later_one_works() {
    lab::run(|_| {
        let mut vip = Vip::new("web-vip", specs(["front", "later"])).unwrap();
        assert_eq!(vip.missing(), ["later"]);
        let error = done(vip.start(&context())).unwrap_err();
        assert!(matches!(error, ResourceError::Network { operation: Operation::Start, .. }));
        assert!(
            error.to_string().contains("start of web-vip") && error.to_string().contains("device later"),
            "{error}"
        );
        assert!(has("front", V4), "the other device's address is there all the same");
        lab::ip("link add later type veth peer name other");
        lab::ip("link set later up");
        done(vip.start(&context())).unwrap();
        assert!(has("later", V6));
        // The device is made again: another index, no event delivered.
        lab::ip("link del later");
        lab::ip("link add later type veth peer name other");
        lab::ip("link set later up");
        done(vip.start(&context())).unwrap();
        assert!(has("later", V6));
        lab::ip("link del later");
        done(vip.stop(&context())).unwrap();
    });
}

#[test]
fn a_device_without_the_gate_gets_no_address() {
    lab::run(|_| {
        lab::ip("link add gated type veth peer name other");
        lab::ip("link set gated up");
        let find = |device| link::by_name(&mut RequestSocket::open().unwrap(), device).unwrap();
        let mut vip = Vip::new("web-vip", specs(["front", "gated"])).unwrap();
        vip.confine(&[find("front").index, find("gated").index].into());
        done(vip.start(&context())).unwrap();
        assert!(has("gated", V6));
        // The device is made again under its name: the programs of the gate went with the former one.
        lab::ip("link del gated");
        lab::ip("link add gated type veth peer name other");
        lab::ip("link set gated up");
        let error = done(vip.on_network(&Event::Link { now: find("gated"), before: None })).unwrap_err();
        assert!(error.to_string().contains("the gate is not on it"), "{error}");
        done(vip.monitor()).unwrap_err();
        done(vip.start(&context())).unwrap_err();
        assert!(has("front", V4) && !has("gated", V6));
        done(vip.stop(&context())).unwrap();
        assert!(!has("front", V4));
    });
}

#[test]
fn what_is_lost_comes_back_by_events_and_by_the_monitor() {
    lab::run(|_| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut watch = Watch::open().unwrap();
            let mut vip = Vip::new("web-vip", specs(["front", "front"])).unwrap();
            done(vip.start(&context())).unwrap();

            for ip in [V4, V6] {
                lab::ip(&format!("address del {ip}{} dev front", if ip == V4 { "/32" } else { "/128" }));
                follow(&mut watch, &mut vip, |_| has("front", ip)).await;
            }
            assert_eq!(vip.repairs(), 2);

            // Switched off, the device loses its IPv6 address; it comes back with the link.
            lab::ip("link set front down");
            lab::ip("link set front up");
            follow(&mut watch, &mut vip, |e| matches!(e, Event::Link { now, .. } if now.ready()) && has("front", V6))
                .await;

            // Made again, as another device of the same name.
            lab::ip("link del front");
            lab::ip("link add front type veth peer name other");
            lab::ip("link set other up");
            lab::ip("link set front up");
            follow(&mut watch, &mut vip, |e| {
                matches!(e, Event::Link { now, .. } if now.name == "front" && now.ready())
                    && has("front", V4)
                    && has("front", V6)
            })
            .await;

            // Lost in an overflow of the watch: no event of its own.
            lab::ip(&format!("address del {V4}/32 dev front"));
            done(vip.on_network(&Event::Resynced)).unwrap();
            assert!(has("front", V4));

            // Without events the monitor finds it.
            lab::ip(&format!("address del {V4}/32 dev front"));
            assert_eq!(done(vip.monitor()), Ok(Health::Running));
            assert!(has("front", V4));

            // Stopped, it leaves the addresses of others alone and puts nothing back.
            done(vip.stop(&context())).unwrap();
            lab::ip(&format!("address add {V4}/32 dev front"));
            lab::ip(&format!("address del {V4}/32 dev front"));
            lab::ip("link set front down");
            follow(&mut watch, &mut vip, |e| matches!(e, Event::Link { now, .. } if now.name == "front" && !now.up))
                .await;
            assert!(!has("front", V4));
        });
    });
}

/// Feed events to the resource until a condition holds.
async fn follow(watch: &mut Watch, vip: &mut Vip, enough: impl Fn(&Event) -> bool) {
    let work = async {
        loop {
            let event = watch.next().await.unwrap();
            done(vip.on_network(&event)).unwrap();
            if enough(&event) {
                return;
            }
        }
    };
    tokio::time::timeout(lab::PATIENCE, work).await.expect("the condition came about");
}

fn many() -> Vec<VipSpec> {
    let v6 = |i: u16| -> IpAddr { [0x2001, 0xdb8, 0, 0, 0, 0, 0xff, i].into() };
    let v4: IpAddr = V4.parse().unwrap();
    let count = u16::try_from(INLINE_IPV6_MAX).unwrap() + 40;
    (0..count).map(v6).chain([v4]).map(|ip| VipSpec::host(ip, "front")).collect()
}

fn present() -> usize {
    let index = lab::link().index;
    let there = address::list(&mut RequestSocket::open().unwrap(), index).unwrap();
    there.iter().filter(|p| !p.unusable && many().iter().any(|spec| spec.ip == p.ip)).count()
}

#[test]
fn many_ipv6_addresses_are_accepted_at_once_and_follow_in_turns() {
    lab::run(|_| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let all = many().len();
        let mut vip = Vip::new("web-vip", many()).unwrap();
        let context = context();
        {
            let Work::Pending(rest) = vip.start(&context) else { panic!("all done in one call") };
            let routes = lab::ip("-6 route show table local");
            assert!(many().iter().filter(|s| s.ip.is_ipv6()).all(|s| routes.contains(&format!("local {} ", s.ip))));
            assert!(has("front", V4));
            assert!(present() < all);
            runtime.block_on(rest).unwrap();
        }
        assert_eq!(present(), all);
        assert_eq!(done(vip.monitor()), Ok(Health::Running));

        // A stop that ran into its time limit is made good by the next one.
        assert!(matches!(vip.stop(&context), Work::Pending(_)), "dropped at once");
        assert!(present() > 0);
        runtime.block_on(vip.stop(&context).within(lab::PATIENCE, "web-vip", Operation::Stop)).unwrap();
        assert_eq!(present(), 0);
        assert!(!lab::ip("-6 route show table local").contains("2001:db8::ff:"));

        // What the monitor misses it puts back, in turns as well.
        runtime.block_on(vip.start(&context).within(lab::PATIENCE, "web-vip", Operation::Start)).unwrap();
        lab::ip("-6 address flush dev front scope global");
        let health = runtime.block_on(vip.monitor().within(lab::PATIENCE, "web-vip", Operation::Monitor));
        assert_eq!(health, Ok(Health::Running));
        assert_eq!(present(), all);
    });
}

#[test]
fn a_stop_removes_the_address_whatever_its_prefix() {
    lab::run(|_| {
        let mut vip = Vip::new("web-vip", specs(["front", "front"])).unwrap();
        done(vip.start(&context())).unwrap();
        lab::ip(&format!("address add {V4}/24 dev front"));
        done(vip.stop(&context())).unwrap();
        assert!(!has("front", V4) && !has("front", V6));
        assert!(has("front", "192.0.2.1"), "the node's own address stays");
    });
}

#[test]
fn a_changed_ethernet_address_is_announced() {
    lab::run(|lab| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut watch = Watch::open().unwrap();
            let mut vip = Vip::new("web-vip", specs(["front", "front"])).unwrap();
            done(vip.start(&context())).unwrap();
            let vips = [V4, V6].map(|ip| ip.parse().unwrap());
            for ip in vips {
                lab.resolve(ip, lab::link().mac.unwrap());
            }
            let new = Mac([2, 0, 0, 0, 0xba, 0x11]);
            lab::ip(&format!("link set front address {new}"));
            follow(&mut watch, &mut vip, |e| matches!(e, Event::Link { now, .. } if now.mac == Some(new))).await;
            for ip in vips {
                lab::until("the neighbour follows", || lab.neighbour(ip).contains(&new.to_string()));
            }
        });
    });
}

#[test]
fn work_that_takes_too_long_is_ended_and_named() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let endless: Work<'_, ()> = Work::pending(std::future::pending());
    let limit = std::time::Duration::from_millis(1);
    let error = runtime.block_on(endless.within(limit, "web-vip", Operation::Start)).unwrap_err();
    assert_eq!(error, ResourceError::TimedOut { resource: "web-vip".into(), operation: Operation::Start, limit });
    assert!(error.to_string().contains("start of web-vip took longer than 1ms"), "{error}");
}

#[test]
fn a_vip_has_no_roles() {
    lab::run(|_| {
        let mut vip = Vip::new("web-vip", specs(["front", "front"])).unwrap();
        assert!(matches!(
            done(vip.promote(&context())),
            Err(ResourceError::NoRoles { operation: Operation::Promote, .. })
        ));
    });
}

#[test]
fn during_a_planned_move_the_addresses_stand_on_loopback() {
    lab::run(|_| {
        lab::ip("link set lo up");
        let mut vip = Vip::new("web-vip", specs(["front", "front"])).unwrap();
        let on = |device: &str| [V4, V6].map(|ip| has(device, ip));
        // The target: nobody is told before the start.
        for _ in 0..2 {
            done(vip.receive(&context())).unwrap();
            assert_eq!((on("lo"), on("front")), ([true; 2], [false; 2]));
        }
        assert!(matches!(done(vip.probe()), Ok(Health::Failed(_))), "an agent that starts finds and removes them");
        done(vip.start(&context())).unwrap();
        assert_eq!(on("front"), [true; 2]);
        // The old owner.
        done(vip.drain(&context())).unwrap();
        assert_eq!((on("lo"), on("front")), ([true; 2], [false; 2]));
        // What is lost on the front while it drains is not put back.
        assert!(!vip.started());
        done(vip.stop(&context())).unwrap();
        assert_eq!((on("lo"), on("front")), ([false; 2], [false; 2]));
        assert_eq!(done(vip.probe()), Ok(Health::Stopped));
    });
}
