//! Agents that do not do what they should.

use std::{fs, time::Duration};

use baton::resources::{Health, Resource as _};

use crate::lab::{context, has, isolated, until};

#[test]
fn exit_codes_are_put_into_words_with_the_agents_own_reason() {
    isolated(|lab| {
        for (code, words) in [
            (1, "generic error"),
            (2, "invalid arguments"),
            (3, "does not know this action"),
            (4, "lacks a permission"),
            (5, "not installed"),
            (6, "wrong on every node"),
            (9, "failed while promoted"),
            (77, "a code that OCF does not know"),
        ] {
            let body = format!("[ $1 = start ] && {{ echo ocf-exit-reason:because of {code} >&2; exit {code}; }}");
            lab.refused(&mut lab.resource(&lab.broken(&body)), &["`start`: ", words, &format!(": because of {code};")]);
        }
        let body = "[ $1 = monitor ] && { echo ill >&2; exit 1; }";
        let Ok(Health::Failed(why)) = lab.settle(lab.resource(&lab.broken(body)).monitor()) else { panic!("well") };
        has(&why, &["generic error", "ill"]);
        for code in [190, 191] {
            let health = lab.settle(lab.resource(&lab.broken(&format!("[ $1 = monitor ] && exit {code}"))).monitor());
            assert_eq!(health == Ok(Health::Running), code == 190, "{health:?}");
        }
    });
}

#[test]
fn starts_and_stops_that_only_claim_to_have_worked_are_found_out() {
    isolated(|lab| {
        lab.refused(&mut lab.resource(&lab.broken("[ $1 = start ] && exit 0")), &["it was started, and does not run"]);
        let mut resource = lab.resource(&lab.broken("[ $1 = stop ] && exit 0"));
        lab.start(&mut resource);
        let error = lab.settle(resource.stop(&context())).unwrap_err().to_string();
        has(&error, &["`stop` says that it is done, but `monitor` afterwards: it runs"]);
    });
}

#[test]
fn what_an_agent_leaves_hanging_is_killed_with_its_children() {
    isolated(|lab| {
        let pid = lab.path("pid");
        let body = format!("[ $1 = start ] && {{ sleep 600 & echo $! >{}; wait; }}", pid.display());
        let mut resource = lab.resource(&lab.broken(&body));
        assert!(lab.give_up(resource.start(&context()), Duration::from_secs(2)).is_none());
        lab.stop(&mut resource);
        let pid = fs::read_to_string(pid).unwrap().trim().to_owned();
        // Whoever inherits it takes its status in time, or not: what counts is that it runs no more.
        let ended = || match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat.rsplit(") ").next().unwrap().starts_with(['Z', 'X']),
            Err(_) => true,
        };
        until(ended, "the agent's child lives");
    });
}

#[test]
fn the_agents_advice_counts_where_the_configuration_says_nothing() {
    isolated(|lab| {
        let mut spec = lab.broken("");
        let mut resource = lab.resource(&spec);
        lab.settle(resource.attend()).unwrap();
        assert_eq!(resource.timeouts().start, crate::lab::PATIENCE, "what is set counts");
        spec.given = baton::config::kinds::GivenTimes::default();
        let mut resource = lab.resource(&spec);
        lab.settle(resource.attend()).unwrap();
        let times = resource.timeouts();
        let seconds = [times.start, times.stop, times.monitor, times.probe].map(|t| t.as_secs());
        assert_eq!((seconds, resource.monitor_interval()), ([7, 8, 9, 9], Some(Duration::from_secs(33))));
    });
}

#[test]
fn an_agent_sees_the_whole_environment_and_nothing_of_batons() {
    isolated(|lab| {
        let file = lab.path("environment");
        let mut spec = lab.broken(&format!("[ $1 = monitor ] && env >{}", file.display()));
        spec.parameters.insert("x".into(), "7".into());
        let mut resource = lab.resource(&spec);
        lab.settle(resource.monitor()).unwrap();
        let seen = fs::read_to_string(&file).unwrap();
        for line in [
            "OCF_RESKEY_x=7",
            "OCF_RA_VERSION_MAJOR=1",
            "OCF_RESOURCE_INSTANCE=net@agent",
            "OCF_RESOURCE_TYPE=Broken",
            "OCF_RESOURCE_PROVIDER=test",
            "OCF_RESKEY_CRM_meta_name=monitor",
            "OCF_RESKEY_CRM_meta_interval=10000",
            "OCF_RESKEY_CRM_meta_timeout=60000",
            "OCF_RESKEY_CRM_meta_on_node=n1",
            "HA_RSCTMP=/run/resource-agents",
        ] {
            assert!(seen.lines().any(|l| l == line), "no {line} in {seen}");
        }
        assert!(!seen.contains("CARGO") && !seen.contains("BATON_TEST"), "{seen}");
        lab.settle(resource.probe()).unwrap();
        has(&fs::read_to_string(&file).unwrap(), &["OCF_RESKEY_CRM_meta_interval=0\n"]);
    });
}

#[test]
fn meta_data_that_is_none_is_refused_and_does_not_stop_a_stop() {
    isolated(|lab| {
        let mut resource = lab.resource(&lab.broken("[ $1 = meta-data ] && { echo '<resource-agent><x>'; exit 0; }"));
        lab.refused(&mut resource, &["what `meta-data` says cannot be read"]);
        lab.stop(&mut resource);
        let mut resource = lab.resource(&lab.broken("[ $1 = meta-data ] && { echo no >&2; exit 1; }"));
        lab.refused(&mut resource, &["`meta-data` exited with 1: no"]);
    });
}
