//! Batches of addresses, routes and rules.

use std::net::IpAddr;

use baton::netlink::{
    NetlinkError, RequestSocket,
    address::{self, Address, AddressSet, Outcome},
    link,
    route::Route,
    rule::Rule,
};
use rustix::io::Errno;

use crate::lab;

fn vips(index: u32) -> Vec<Address> {
    let ips: [IpAddr; 3] =
        ["192.0.2.10".parse().unwrap(), "192.0.2.11".parse().unwrap(), "2001:db8::ff:10".parse().unwrap()];
    ips.iter().map(|ip| Address::vip(*ip, if ip.is_ipv4() { 32 } else { 128 }, "front", index)).collect()
}

fn present(socket: &mut RequestSocket, index: u32) -> Vec<IpAddr> {
    address::list(socket, index).unwrap().iter().map(|p| p.ip).collect()
}

#[test]
fn adding_and_deleting_twice_is_success() {
    lab::run(|_| {
        let mut socket = RequestSocket::open().unwrap();
        let index = lab::link().index;
        let mut set = AddressSet::new(vips(index)).unwrap();
        assert_eq!(set.add(&mut socket).unwrap(), Outcome::default());
        assert_eq!(set.add(&mut socket).unwrap(), Outcome { unchanged: 3, failures: vec![] });
        let there = present(&mut socket, index);
        assert!(set.addresses().iter().all(|a| there.contains(&a.ip)), "{there:?}");

        assert_eq!(set.delete(&mut socket).unwrap(), Outcome::default());
        assert_eq!(set.delete(&mut socket).unwrap(), Outcome { unchanged: 3, failures: vec![] });
        let there = present(&mut socket, index);
        assert!(!set.addresses().iter().any(|a| there.contains(&a.ip)), "{there:?}");
    });
}

#[test]
fn a_refused_address_is_named_and_the_others_are_added() {
    lab::run(|_| {
        let mut socket = RequestSocket::open().unwrap();
        let index = lab::link().index;
        let mut all = vips(index);
        all[1].index = 4_000;
        all[1].device = "ghost".into();
        let outcome = AddressSet::new(all).unwrap().add(&mut socket).unwrap();
        let [failure] = &outcome.failures[..] else { panic!("{outcome:?}") };
        assert_eq!(failure.errno(), Some(Errno::NODEV));
        let text = failure.to_string();
        assert!(text.contains("192.0.2.11/32 on ghost") && text.contains("ip link"), "{text}");
        let there = present(&mut socket, index);
        assert!(there.contains(&"192.0.2.10".parse().unwrap()) && there.contains(&"2001:db8::ff:10".parse().unwrap()));
    });
}

#[test]
fn what_cannot_be_an_address_is_refused_before_the_kernel_sees_it() {
    for (ip, prefix) in [("192.0.2.10", 33), ("2001:db8::1", 129), ("0.0.0.0", 32), ("ff02::1", 128)] {
        let refused = AddressSet::new(vec![Address::vip(ip.parse().unwrap(), prefix, "front", 1)]);
        assert!(matches!(refused, Err(NetlinkError::Invalid { .. })), "{ip}/{prefix}");
    }
    let mut labelled = Address::vip("192.0.2.10".parse().unwrap(), 32, "front", 1);
    labelled.label = Some("a-label-that-is-too-long".into());
    assert!(AddressSet::new(vec![labelled]).is_err());
}

#[test]
fn ipv6_works_when_the_batch_is_done() {
    lab::run(|_| {
        // The device would look for duplicates; the VIP must not wait for that.
        lab::write_sysctl("ipv6/conf/front/accept_dad", "1");
        lab::write_sysctl("ipv6/conf/front/dad_transmits", "10");
        let mut socket = RequestSocket::open().unwrap();
        let index = lab::link().index;
        let vip: IpAddr = "2001:db8::ff:10".parse().unwrap();
        let mut set = AddressSet::new(vec![Address::vip(vip, 128, "front", index)]).unwrap();
        assert!(set.add(&mut socket).unwrap().failures.is_empty());
        let there = address::list(&mut socket, index).unwrap();
        assert!(there.iter().any(|p| p.ip == vip && !p.unusable), "{there:?}");
        assert!(lab::ip("-6 route show table local").contains("local 2001:db8::ff:10 "));

        assert!(set.delete(&mut socket).unwrap().failures.is_empty());
        let left = lab::ip("-6 route show table local");
        assert!(!left.contains("2001:db8::ff:10"), "{left}");
    });
}

#[test]
fn label_scope_and_preference_reach_the_kernel() {
    lab::run(|_| {
        let mut socket = RequestSocket::open().unwrap();
        let mut all = vips(lab::link().index);
        all[0].label = Some("front:vip".into());
        all[0].scope = address::Scope::Link;
        all[2].preferred = false;
        assert_eq!(AddressSet::new(all).unwrap().add(&mut socket).unwrap(), Outcome::default());
        let v4 = lab::ip("-4 address show dev front to 192.0.2.10");
        assert!(v4.contains("front:vip") && v4.contains("scope link"), "{v4}");
        let v6 = lab::ip("-6 address show dev front to 2001:db8::ff:10");
        assert!(v6.contains("deprecated") && v6.contains("nodad") && v6.contains("noprefixroute"), "{v6}");
    });
}

#[test]
fn a_thousand_addresses_in_one_batch() {
    lab::run(|_| {
        let mut socket = RequestSocket::open().unwrap();
        let index = lab::link().index;
        let ip = |i: u16| -> IpAddr {
            if i.is_multiple_of(2) {
                [198, 51, (i >> 8) as u8, i as u8].into()
            } else {
                [0x2001, 0xdb8, 0, 0, 0, 0, 0xff, i].into()
            }
        };
        let all: Vec<_> = (0..1_500)
            .map(|i| Address::vip(ip(i), if i.is_multiple_of(2) { 32 } else { 128 }, "front", index))
            .collect();
        let mut set = AddressSet::new(all).unwrap();
        assert_eq!(set.add(&mut socket).unwrap(), Outcome::default());
        let there = address::list(&mut socket, index).unwrap();
        assert_eq!(there.iter().filter(|p| set.addresses().iter().any(|a| a.ip == p.ip) && !p.unusable).count(), 1_500);
        // All of them refused: the queue must hold 1,500 refusals.
        assert_eq!(set.add(&mut socket).unwrap(), Outcome { unchanged: 1_500, failures: vec![] });
        assert_eq!(set.delete(&mut socket).unwrap(), Outcome::default());
        assert_eq!(set.delete(&mut socket).unwrap(), Outcome { unchanged: 1_500, failures: vec![] });
    });
}

#[test]
fn links_are_found_by_name_index_and_mac() {
    lab::run(|_| {
        let mut socket = RequestSocket::open().unwrap();
        let front = lab::link();
        assert!(front.ready() && front.mac.is_some() && front.complaint().is_none());
        assert_eq!(link::by_index(&mut socket, front.index).unwrap().name, "front");
        assert_eq!(link::by_mac(&mut socket, front.mac.unwrap()).unwrap(), [front]);
        let missing = link::by_name(&mut socket, "nosuch").unwrap_err();
        assert_eq!(missing.errno(), Some(Errno::NODEV));
        assert!(missing.to_string().contains("device nosuch"), "{missing}");
        lab::ip("link set front down");
        assert!(lab::link().complaint().unwrap().contains("switched off"));
    });
}

#[test]
fn routes_and_rules_come_and_go() {
    lab::run(|_| {
        let mut socket = RequestSocket::open().unwrap();
        for (net, prefix, gateway) in [("203.0.113.0", 24, "192.0.2.2"), ("2001:db8:1::", 48, "2001:db8::2")] {
            let mut route = Route::to(net.parse().unwrap(), prefix);
            route.gateway = Some(gateway.parse().unwrap());
            route.table = 1_000;
            for _ in 0..2 {
                route.add(&mut socket).unwrap();
            }
            let family = if route.destination.is_ipv4() { "-4" } else { "-6" };
            assert!(
                lab::ip(&format!("{family} route show table 1000")).contains(&format!("{net}/{prefix} via {gateway}"))
            );
            for _ in 0..2 {
                route.delete(&mut socket).unwrap();
            }
            assert_eq!(lab::ip(&format!("{family} route show table 1000")), "");

            let rule = Rule {
                ipv6: family == "-6",
                priority: 77,
                table: 1_000,
                from: Some((net.parse().unwrap(), prefix)),
                to: None,
                device: Some("front".into()),
                mark: Some(5),
            };
            for _ in 0..2 {
                rule.add(&mut socket).unwrap();
            }
            let shown = lab::ip(&format!("{family} rule show"));
            assert_eq!(shown.matches("lookup 1000").count(), 1, "{shown}");
            for _ in 0..2 {
                rule.delete(&mut socket).unwrap();
            }
            assert!(!lab::ip(&format!("{family} rule show")).contains("lookup 1000"));
        }
        let mut far = Route::to("203.0.113.0".parse().unwrap(), 24);
        far.gateway = Some("198.51.100.1".parse().unwrap());
        let refused = far.add(&mut socket).unwrap_err();
        assert_eq!(refused.errno(), Some(Errno::NETUNREACH), "{refused}");
    });
}
