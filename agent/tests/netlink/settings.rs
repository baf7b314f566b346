//! The kernel's settings, in a namespace of their own.

use baton::netlink::sysctl::{self, BACKPLANE, FRONT};

use crate::lab;

#[test]
fn what_is_wrong_is_found_and_set() {
    lab::run(|_| {
        lab::write_sysctl("ipv4/conf/front/arp_ignore", "0");
        lab::write_sysctl("ipv4/conf/all/arp_ignore", "0");
        lab::write_sysctl("ipv4/conf/front/rp_filter", "1");
        let found: Vec<_> =
            [sysctl::check(&FRONT, "front").unwrap(), sysctl::check(&BACKPLANE, "front").unwrap()].concat();
        let paths: Vec<_> = found.iter().map(sysctl::Finding::path).collect();
        for path in ["ipv4/conf/front/arp_ignore", "ipv4/conf/front/rp_filter", "ipv4/ip_nonlocal_bind"] {
            assert!(paths.iter().any(|p| p == path), "{paths:?}");
        }
        for finding in &found {
            finding.apply().unwrap();
        }
        assert_eq!(sysctl::check(&FRONT, "front").unwrap(), []);
        assert_eq!(sysctl::check(&BACKPLANE, "front").unwrap(), []);
        assert_eq!(sysctl::read("ipv4/conf/front/arp_ignore").unwrap(), 1);
    });
}

#[test]
fn a_larger_value_for_all_devices_is_told() {
    lab::run(|_| {
        lab::write_sysctl("ipv4/conf/all/proxy_arp", "1");
        let found = sysctl::check(&FRONT, "front").unwrap();
        let proxy = found.iter().find(|f| f.path().ends_with("proxy_arp")).expect("found");
        assert!(proxy.apply().unwrap_err().to_string().contains("conf.all outweighs"));
    });
}

#[test]
fn a_device_that_is_not_there_is_named() {
    lab::run(|_| {
        let missing = sysctl::check(&FRONT, "nosuch").unwrap_err().to_string();
        assert!(missing.contains("device nosuch"), "{missing}");
        assert!(sysctl::read("ipv4/conf/nosuch/arp_ignore").is_err());
        let refused = sysctl::write("ipv4/conf/nosuch/arp_ignore", 1).unwrap_err().to_string();
        assert!(refused.contains("net.ipv4.conf.nosuch.arp_ignore"), "{refused}");
    });
}
