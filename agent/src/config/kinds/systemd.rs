//! `kind = "systemd"`: a unit that systemd runs, started and stopped by Baton over D-Bus.

use serde::Serialize;

use super::Kind;
use crate::config::{
    diagnostic::Mistakes,
    reader::{At, Table},
};

/// What can be started and stopped as a service is. Others (mounts, say) have a kind of their own, or none.
const ENDINGS: [&str; 4] = [".service", ".target", ".socket", ".timer"];
/// systemd's own bound (UNIT_NAME_MAX).
const NAME_BYTES_MAX: usize = 255;

/// The keys of a systemd unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Systemd {
    /// The unit's whole name.
    pub unit: String,
}

pub(super) fn read(t: &mut Table<'_, '_>, m: &mut Mistakes<'_>) -> Option<Kind> {
    let unit = t.required(m, "unit", "name the unit: `unit = \"postgresql@15-main.service\"`")?;
    check(&unit, m).then_some(Kind::Systemd(Systemd { unit: unit.value }))
}

fn check(unit: &At<String>, m: &mut Mistakes<'_>) -> bool {
    let name = unit.value.as_str();
    let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let ending = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending));
    let help = if ending.is_some_and(|stem| stem.ends_with('@')) {
        "name an instance of the template: `unit = \"postgresql@15-main.service\"`"
    } else if ending.is_some_and(|stem| !stem.is_empty()) && name.chars().all(plain) && name.len() <= NAME_BYTES_MAX {
        return true;
    } else {
        "write the unit's whole name, ending in .service, .target, .socket or .timer: `unit = \"nginx.service\"`"
    };
    m.error(&unit.span, format!("`unit` is \"{}\", which is no unit that can be started", name.escape_debug()), help);
    false
}
