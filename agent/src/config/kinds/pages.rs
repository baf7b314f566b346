//! The examples of the reference pages are good configurations.

use std::path::Path;

use super::*;
use crate::{
    cluster::ids::GroupId,
    config::{ClusterKey, Config, Fence, check},
};

/// The configuration of a page's example, beside the shipped one.
fn example(page: &str) -> Config {
    let (_, rest) = page.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("cluster.key");
    ClusterKey::generate(&key).unwrap();
    let shipped =
        include_str!("../../../../config/lb-pair.toml").replace("/etc/baton/cluster.key", key.to_str().unwrap());
    let loaded = check(&dir.path().join("x.toml"), &format!("{shipped}\n{example}"), None).unwrap();
    assert!(loaded.warnings.is_none(), "{:?}", loaded.config.warnings);
    loaded.config
}

#[test]
fn the_page_of_filesystems_is_right() {
    let config = example(include_str!("../../../../docs/resources/filesystem.md"));
    let group = &config.shared.groups[&GroupId::new("files")];
    assert_eq!(group.fence, [Fence::Local]);
    let [Kind::Filesystem(data), Kind::Filesystem(pictures)] = [&group.resources[0].kind, &group.resources[1].kind]
    else {
        panic!("{group:?}")
    };
    assert_eq!((data.device.as_str(), data.mount.as_path()), ("/dev/vg0/data", Path::new("/srv/data")));
    assert_eq!((data.fsck, data.busy, data.create, data.monitor_write), (Fsck::Preen, Busy::Kill, false, true));
    assert_eq!(data.options, ["noatime", "errors=remount-ro"]);
    assert!(!data.is_network() && pictures.is_network() && pictures.fsck == Fsck::Never && pictures.create);
    assert_eq!(group.resources[0].stop_timeout_ns, 120 * SECOND);
}

#[test]
fn the_page_of_ocf_agents_is_right() {
    let config = example(include_str!("../../../../docs/resources/ocf.md"));
    let group = &config.shared.groups[&GroupId::new("net")];
    let [Kind::Ocf(address), Kind::Ocf(state)] = [&group.resources[0].kind, &group.resources[1].kind] else {
        panic!("{group:?}")
    };
    assert_eq!(address.path(), Path::new("/usr/lib/ocf/resource.d/heartbeat/IPaddr2"));
    assert_eq!(address.parameters["cidr_netmask"], "24");
    let expected = GivenTimes { interval: true, ..GivenTimes::default() };
    assert_eq!((address.given, state.given), (expected, GivenTimes::default()));
    assert_eq!((address.role, state.role), (OcfRole::Started, OcfRole::Promoted));
}
