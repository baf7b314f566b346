//! Agents of Debian's resource-agents.

use std::{fs, time::Duration};

use baton::{
    config::kinds::OcfRole,
    resources::{Health, Readiness, Resource as _},
};

use crate::lab::{context, has, isolated, output, text, until};

#[test]
fn dummy_is_started_adopted_and_stopped() {
    isolated(|lab| {
        let state = lab.path("dummy");
        let spec = lab.spec("Dummy", &[("state", text(&state))]);
        let mut resource = lab.resource(&spec);
        lab.settle(resource.attend()).unwrap();
        assert_eq!(lab.settle(resource.readiness()), Ok(Readiness::Ready));
        assert_eq!(lab.settle(resource.probe()), Ok(Health::Stopped));
        lab.stop(&mut resource);
        lab.start(&mut resource);
        assert!(state.exists());
        lab.start(&mut resource);
        drop(resource);
        let mut resource = lab.resource(&spec);
        assert_eq!(lab.settle(resource.probe()), Ok(Health::Running));
        assert_eq!(lab.settle(resource.monitor()), Ok(Health::Running));
        fs::remove_file(&state).unwrap();
        assert_eq!(lab.settle(resource.monitor()), Ok(Health::Stopped));
        lab.start(&mut resource);
        lab.stop(&mut resource);
        assert!(!state.exists());
        lab.stop(&mut resource);
    });
}

#[test]
fn ipaddr2_moves_an_address() {
    isolated(|lab| {
        output("ip", &["link", "set", "lo", "up"]);
        output("ip", &["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
        for device in ["v0", "v1"] {
            output("ip", &["link", "set", device, "up"]);
        }
        let spec = lab.spec("IPaddr2", &[("ip", "192.0.2.10"), ("cidr_netmask", "24"), ("nic", "v0")]);
        let mut resource = lab.resource(&spec);
        lab.start(&mut resource);
        has(&output("ip", &["-4", "addr", "show", "v0"]), &["192.0.2.10/24"]);
        assert_eq!(lab.settle(resource.monitor()), Ok(Health::Running));
        output("ip", &["addr", "del", "192.0.2.10/24", "dev", "v0"]);
        assert_eq!(lab.settle(resource.monitor()), Ok(Health::Stopped));
        lab.start(&mut resource);
        lab.stop(&mut resource);
        assert!(!output("ip", &["-4", "addr", "show", "v0"]).contains("192.0.2.10"));
        // What the agent says itself.
        let spec = lab.spec("IPaddr2", &[("ip", "192.0.2.999"), ("cidr_netmask", "24"), ("nic", "v0")]);
        lab.refused(
            &mut lab.resource(&spec),
            &["start of net/agent: ocf:heartbeat:IPaddr2: `start`: ", "correct `parameters`"],
        );
    });
}

#[test]
fn parameters_are_checked_before_anything_is_started() {
    isolated(|lab| {
        let spec = lab.spec("IPaddr2", &[("ipp", "192.0.2.10"), ("arp_count", "many")]);
        let mut resource = lab.resource(&spec);
        let words = [
            "ocf:heartbeat:IPaddr2 has no parameter `ipp` (did you mean \"ip\"?)",
            "the parameter `arp_count` of ocf:heartbeat:IPaddr2 is \"many\", but must be a whole number",
            "ocf:heartbeat:IPaddr2 needs the parameter `ip`",
        ];
        lab.refused(&mut resource, &words);
        has(&lab.settle(resource.attend()).unwrap_err().to_string(), &words);
        let Ok(Readiness::NotReady(why)) = lab.settle(resource.readiness()) else { panic!("it is ready") };
        has(&why, &words);
        let mut missing = lab.resource(&lab.spec("NoSuchAgent", &[]));
        lab.refused(&mut missing, &["ocf:heartbeat:NoSuchAgent", "No such file", "install"]);
        assert_eq!(lab.settle(missing.probe()), Ok(Health::Stopped));
    });
}

#[test]
fn anything_runs_a_process_that_outlives_the_agents_call() {
    isolated(|lab| {
        let pidfile = lab.path("pid");
        let spec =
            lab.spec("anything", &[("binfile", "/bin/sleep"), ("cmdline_options", "600"), ("pidfile", text(&pidfile))]);
        let mut resource = lab.resource(&spec);
        lab.start(&mut resource);
        let pid = fs::read_to_string(&pidfile).unwrap().trim().to_owned();
        has(&fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap(), &["sleep"]);
        output("kill", &["-9", &pid]);
        until(|| lab.settle(resource.monitor()) != Ok(Health::Running), "it is called well although it was killed");
        lab.start(&mut resource);
        lab.stop(&mut resource);
        assert_eq!(lab.settle(resource.probe()), Ok(Health::Stopped));
    });
}

#[test]
fn stateful_is_promoted_and_demoted() {
    isolated(|lab| {
        let state = lab.path("stateful");
        let mut spec = lab.spec("Stateful", &[("state", text(&state))]);
        spec.role = OcfRole::Promoted;
        let mut resource = lab.resource(&spec);
        lab.start(&mut resource);
        has(&fs::read_to_string(&state).unwrap(), &["master"]);
        lab.start(&mut resource);
        assert_eq!(lab.settle(resource.monitor()), Ok(Health::Running));
        fs::write(&state, "slave\n").unwrap();
        assert_eq!(lab.settle(resource.monitor()), Ok(Health::Failed("it runs, but is not promoted".into())));
        lab.start(&mut resource);
        lab.stop(&mut resource);
        assert!(!state.exists());
        let mut spec = lab.spec("Dummy", &[]);
        spec.role = OcfRole::Promoted;
        lab.refused(&mut lab.resource(&spec), &["the agent has no action `promote`"]);
    });
}

#[test]
fn delay_is_cut_off_at_the_limit() {
    isolated(|lab| {
        let spec = lab.spec("Delay", &[("startdelay", "600"), ("stopdelay", "0"), ("mondelay", "0")]);
        let mut resource = lab.within(&spec, Duration::from_secs(5));
        lab.refused(&mut resource, &["`start` did not end within 5s, and was killed with all that it started"]);
        lab.settle(lab.resource(&spec).stop(&context())).unwrap();
    });
}
