//! The environment of an OCF agent's action: what the API says, and what agents look at of a cluster manager's.

use std::time::Duration;

use crate::{
    config::kinds::{Ocf, OcfRole},
    resources::Common,
};

/// Where agents keep what must not outlive a boot (HA_RSCTMP).
pub const SCRATCH: &str = "/run/resource-agents";
/// The feature set of Pacemaker 2.1, which some agents compare before they use what is newer.
const FEATURE_SET: &str = "3.16.2";

/// What an action is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The action.
    pub action: &'static str,
    /// Between two of it; 0 for one that is not repeated.
    pub interval: Duration,
    /// Its limit.
    pub timeout: Duration,
}

/// All variables of an action.
pub fn variables(common: &Common, spec: &Ocf, call: Call) -> Vec<(String, String)> {
    let milliseconds = |d: Duration| d.as_millis().to_string();
    let promotable = spec.role == OcfRole::Promoted;
    let mut list: Vec<(&str, String)> = vec![
        ("OCF_ROOT", spec.ocf_root.display().to_string()),
        ("OCF_RA_VERSION_MAJOR", "1".into()),
        ("OCF_RA_VERSION_MINOR", "1".into()),
        ("OCF_RESOURCE_INSTANCE", common.plain_name()),
        ("OCF_RESOURCE_TYPE", spec.agent.clone()),
        ("OCF_RESOURCE_PROVIDER", spec.provider.clone()),
        ("OCF_EXIT_REASON_PREFIX", "ocf-exit-reason:".into()),
        ("OCF_RESKEY_crm_feature_set", FEATURE_SET.into()),
        ("OCF_RESKEY_CRM_meta_name", call.action.into()),
        ("OCF_RESKEY_CRM_meta_interval", milliseconds(call.interval)),
        ("OCF_RESKEY_CRM_meta_timeout", milliseconds(call.timeout)),
        ("OCF_RESKEY_CRM_meta_on_node", common.node.clone()),
        ("OCF_RESKEY_CRM_meta_on_node_uuid", common.node.clone()),
        ("OCF_CHECK_LEVEL", "0".into()),
        ("HA_RSCTMP", SCRATCH.into()),
        ("HA_debug", "0".into()),
        ("HA_LOGFACILITY", "none".into()),
        ("LC_ALL", "C".into()),
        ("HOME", "/root".into()),
        ("USER", "root".into()),
    ];
    if promotable {
        // As Pacemaker tells a clone of one instance, under its old and its new names.
        for (name, value) in [
            ("OCF_RESKEY_CRM_meta_clone", "0"),
            ("OCF_RESKEY_CRM_meta_clone_max", "1"),
            ("OCF_RESKEY_CRM_meta_clone_node_max", "1"),
            ("OCF_RESKEY_CRM_meta_promoted_max", "1"),
            ("OCF_RESKEY_CRM_meta_promoted_node_max", "1"),
            ("OCF_RESKEY_CRM_meta_master_max", "1"),
            ("OCF_RESKEY_CRM_meta_master_node_max", "1"),
            ("OCF_RESKEY_CRM_meta_promotable", "true"),
            ("OCF_RESKEY_CRM_meta_globally_unique", "false"),
            ("OCF_RESKEY_CRM_meta_notify", "false"),
        ] {
            list.push((name, value.into()));
        }
        if call.action == "monitor" && !call.interval.is_zero() {
            list.push(("OCF_RESKEY_CRM_meta_role", "Promoted".into()));
        }
    }
    let own = list.into_iter().map(|(name, value)| (name.to_owned(), value));
    let parameters = spec.parameters.iter().map(|(name, value)| (format!("OCF_RESKEY_{name}"), value.clone()));
    parameters.chain(own).collect()
}
