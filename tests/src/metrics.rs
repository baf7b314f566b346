//! A scrape of an agent's `/metrics`, and the numbers in it.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::topology::Machine;

/// The address of the agents' HTTP port, inside their namespaces.
pub const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9420);
const LIMIT: Duration = Duration::from_secs(5);

/// The text of a scrape.
#[derive(Clone, Debug)]
pub struct Scrape(String);

impl Scrape {
    /// Asks the agent on a machine.
    pub fn of(machine: &Machine) -> Result<Self> {
        machine.ns.run(|| {
            let mut stream = TcpStream::connect_timeout(&ADDRESS, LIMIT).context("no agent serves metrics")?;
            stream.set_read_timeout(Some(LIMIT))?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            ensure!(text.starts_with("HTTP/1.1 200"), "the agent refused a scrape: {text}");
            Ok(Self(text))
        })?
    }

    /// The sum of all samples of a family whose labels hold `label` (`reason="forged"`; empty for any).
    pub fn sum(&self, family: &str, label: &str) -> f64 {
        sum(&self.0, family, label)
    }
}

fn sum(text: &str, family: &str, label: &str) -> f64 {
    let samples = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        (name == family && labels.contains(label)).then(|| value.parse::<f64>().ok()).flatten()
    });
    samples.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_a_family_are_added_up() {
        let text = "HTTP/1.1 200 OK\n# TYPE a counter\na_total{x=\"1\",y=\"2\"} 3\na_total{x=\"2\"} 4\nb 5\na 6\n";
        assert_eq!(sum(text, "a_total", ""), 7.0);
        assert_eq!(sum(text, "a_total", "x=\"2\""), 4.0);
        assert_eq!((sum(text, "b", ""), sum(text, "c", "")), (5.0, 0.0));
    }
}
