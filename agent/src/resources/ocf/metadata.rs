//! What an OCF agent says of itself (`meta-data`, OCF Resource Agent API 1.1): its parameters, and the times that it advises.

use std::{io, time::Duration};

use crate::{config::kinds::Ocf, process};

/// The agent has so long to say it.
const LIMIT: Duration = Duration::from_secs(15);

/// What an agent says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetaData {
    /// Its parameters.
    pub parameters: Vec<Parameter>,
    /// Its actions.
    pub actions: Vec<Action>,
}

/// One of its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The name.
    pub name: String,
    /// Whether it must be given.
    pub required: bool,
    /// "string", "integer", "boolean" and others.
    pub kind: String,
    /// What it may be, where that is a list.
    pub options: Vec<String>,
}

/// One of its actions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// The name.
    pub name: String,
    /// For which role it is meant, in the words of OCF 1.1.
    pub role: Option<String>,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// How often it should be done.
    pub interval: Option<Duration>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum MetaDataError {
    /// The agent cannot be run.
    #[error("it cannot be run: {0}")]
    Run(#[from] io::Error),
    /// It says no.
    #[error("`meta-data` {0}")]
    Refused(String),
    /// What it says is no XML of the kind.
    #[error("what `meta-data` says cannot be read: {0}")]
    Xml(String),
}

impl MetaData {
    /// Asks the agent. Blocks until it answers.
    ///
    /// # Errors
    /// [`MetaDataError`]; `NotFound` when there is no such agent.
    pub fn ask(spec: &Ocf) -> Result<Self, MetaDataError> {
        let path = spec.path();
        std::fs::metadata(&path)?;
        // In an environment of its own, as its other actions have.
        let root = format!("OCF_ROOT={}", spec.ocf_root.display());
        let [program, action] = [&path.display().to_string(), "meta-data"].map(str::to_owned);
        let search = format!("PATH={}", process::PATH);
        let words = ["-i".to_owned(), search, "LC_ALL=C".to_owned(), root, program, action];
        let done = process::run(std::path::Path::new("/usr/bin/env"), &words, LIMIT)?;
        if !done.success {
            let said = crate::resources::call::said(done.output.as_bytes());
            return Err(MetaDataError::Refused(format!("{}: {said}", done.status)));
        }
        Self::parse(&done.output)
    }

    /// Reads the XML, whatever the agent said around it.
    ///
    /// # Errors
    /// [`MetaDataError::Xml`].
    pub fn parse(text: &str) -> Result<Self, MetaDataError> {
        let begin =
            text.find("<resource-agent").ok_or_else(|| MetaDataError::Xml("there is no XML in it".to_owned()))?;
        let end = text.rfind("</resource-agent>").map_or(text.len(), |at| at + "</resource-agent>".len());
        let body = text.get(begin..end).unwrap_or_default();
        let document = roxmltree::Document::parse(body).map_err(|e| MetaDataError::Xml(e.to_string()))?;
        let named = |tag: &'static str| document.root().descendants().filter(move |n| n.has_tag_name(tag));
        let parameters = named("parameter").filter_map(|node| {
            let content = node.children().find(|n| n.has_tag_name("content"));
            let options = content.iter().flat_map(|c| c.children().filter(|n| n.has_tag_name("option")));
            Some(Parameter {
                name: node.attribute("name")?.to_owned(),
                required: node.attribute("required").is_some_and(|r| matches!(r, "1" | "true" | "yes")),
                kind: content.and_then(|c| c.attribute("type")).unwrap_or("string").to_ascii_lowercase(),
                options: options.filter_map(|o| o.attribute("value").map(str::to_owned)).collect(),
            })
        });
        let actions = named("action").filter_map(|node| {
            let time = |name| node.attribute(name).and_then(duration);
            let role = node.attribute("role").map(|role| match role.to_ascii_lowercase().as_str() {
                "master" | "promoted" => "promoted".to_owned(),
                "slave" | "unpromoted" => "unpromoted".to_owned(),
                other => other.to_owned(),
            });
            Some(Action {
                name: node.attribute("name")?.to_owned(),
                role,
                timeout: time("timeout"),
                interval: time("interval"),
            })
        });
        Ok(Self { parameters: parameters.collect(), actions: actions.collect() })
    }

    /// An action, for a role if the agent distinguishes.
    pub fn action(&self, name: &str, promoted: bool) -> Option<&Action> {
        let of = |role: Option<&str>| self.actions.iter().find(move |a| a.name == name && a.role.as_deref() == role);
        let role = if promoted { "promoted" } else { "unpromoted" };
        of(Some(role)).or_else(|| of(None)).or_else(|| self.actions.iter().find(|a| a.name == name))
    }
}

/// "20s", "20", "2m", "500ms"; a number alone means seconds.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let milliseconds = match text[digits..].trim() {
        "" | "s" | "sec" => 1_000,
        "ms" | "msec" => 1,
        "m" | "min" => 60_000,
        "h" | "hr" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_advice_are_read_and_words_around_them_are_not() {
        let text = "a warning\n<?xml version=\"1.0\"?>\n<!DOCTYPE resource-agent SYSTEM \"ra-api-1.dtd\">\n\
            <resource-agent name=\"X\"><parameters>\n\
            <parameter name=\"ip\" required=\"1\"><content type=\"string\" default=\"\"/></parameter>\n\
            <parameter name=\"mode\"><content type=\"select\"><option value=\"a\"/><option value=\"b\"/></content></parameter>\n\
            </parameters><actions><action name=\"start\" timeout=\"2m\"/>\n\
            <action name=\"monitor\" timeout=\"20\" interval=\"10s\" role=\"Master\"/>\n\
            <action name=\"monitor\" timeout=\"500ms\" interval=\"11s\" role=\"Slave\"/></actions></resource-agent>\nmore";
        let meta = MetaData::parse(text).unwrap();
        assert_eq!(meta.parameters[0].name, "ip");
        assert!(meta.parameters[0].required && !meta.parameters[1].required);
        assert_eq!(meta.parameters[1].options, ["a", "b"]);
        assert_eq!(meta.action("start", true).unwrap().timeout, Some(Duration::from_secs(120)));
        assert_eq!(meta.action("monitor", true).unwrap().interval, Some(Duration::from_secs(10)));
        assert_eq!(meta.action("monitor", false).unwrap().timeout, Some(Duration::from_millis(500)));
        assert_eq!(meta.action("promote", true), None);
        assert!(matches!(MetaData::parse("no"), Err(MetaDataError::Xml(_))));
        assert!(matches!(MetaData::parse("<resource-agent><a></resource-agent>"), Err(MetaDataError::Xml(_))));
    }
}
