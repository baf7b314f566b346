//! Checks what the configuration tells an agent against what the agent says that it takes.

use super::metadata::{MetaData, Parameter};
use crate::config::{did_you_mean, kinds::Ocf};

/// What an agent takes as true and false (ocf_is_true).
const BOOLEANS: [&str; 12] = ["yes", "true", "1", "on", "ja", "no", "false", "0", "off", "nein", "y", "n"];

/// All mistakes, each a sentence; empty when there is none.
pub fn mistakes(spec: &Ocf, meta: &MetaData) -> Vec<String> {
    let agent = spec.full_name();
    let mut found = Vec::new();
    for (name, value) in &spec.parameters {
        match meta.parameters.iter().find(|p| p.name == *name) {
            Some(parameter) => found.extend(
                wrong(parameter, value)
                    .map(|wanted| format!("the parameter `{name}` of {agent} is \"{value}\", but must be {wanted}")),
            ),
            None => {
                let known: Vec<&str> = meta.parameters.iter().map(|p| p.name.as_str()).collect();
                let hint = did_you_mean(name, known.iter().copied());
                let known = known.join(", ");
                found.push(format!("{agent} has no parameter `{name}`{hint}; it has: {known}"));
            }
        }
    }
    for parameter in meta.parameters.iter().filter(|p| p.required && !spec.parameters.contains_key(&p.name)) {
        found.push(format!("{agent} needs the parameter `{}`", parameter.name));
    }
    found
}

fn wrong(parameter: &Parameter, value: &str) -> Option<String> {
    match parameter.kind.as_str() {
        "integer" if value.parse::<i64>().is_err() => Some("a whole number".to_owned()),
        "boolean" if !BOOLEANS.contains(&value.to_ascii_lowercase().as_str()) => Some("true or false".to_owned()),
        "select" if !parameter.options.is_empty() && !parameter.options.iter().any(|o| o == value) => {
            Some(format!("one of {}", parameter.options.join(", ")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::kinds::{GivenTimes, OcfRole};

    #[test]
    fn unknown_missing_and_wrong_parameters_are_named() {
        let parameter = |name: &str, required, kind: &str| Parameter {
            name: name.to_owned(),
            required,
            kind: kind.to_owned(),
            options: if kind == "select" { vec!["a".to_owned(), "b".to_owned()] } else { Vec::new() },
        };
        let meta = MetaData {
            parameters: vec![
                parameter("ip", true, "string"),
                parameter("count", false, "integer"),
                parameter("flag", false, "boolean"),
                parameter("mode", false, "select"),
            ],
            actions: Vec::new(),
        };
        let spec = |given: &[(&str, &str)]| Ocf {
            provider: "p".into(),
            agent: "X".into(),
            ocf_root: "/".into(),
            parameters: given.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>(),
            role: OcfRole::Started,
            given: GivenTimes::default(),
        };
        assert_eq!(mistakes(&spec(&[("ip", "x"), ("count", "-3"), ("flag", "Yes"), ("mode", "b")]), &meta), [""; 0]);
        let found = mistakes(&spec(&[("cuont", "3"), ("count", "many"), ("flag", "maybe"), ("mode", "c")]), &meta);
        assert_eq!(
            found,
            [
                "the parameter `count` of ocf:p:X is \"many\", but must be a whole number",
                "ocf:p:X has no parameter `cuont` (did you mean \"count\"?); it has: ip, count, flag, mode",
                "the parameter `flag` of ocf:p:X is \"maybe\", but must be true or false",
                "the parameter `mode` of ocf:p:X is \"c\", but must be one of a, b",
                "ocf:p:X needs the parameter `ip`",
            ]
        );
    }
}
