//! `haproxy -c`: whether HAProxy accepts its configuration, in its own words.

use std::{ffi::OsString, io, path::Path, time::Duration};

use crate::process;

/// The longest that a check may take: it resolves names, and reads certificates and maps.
pub const CHECK_LIMIT: Duration = Duration::from_secs(10);
/// More lines of HAProxy's are not repeated.
const LINES_MAX: usize = 8;

/// Checks a file. `peer` is the name that HAProxy is started with, if any.
///
/// # Errors
/// HAProxy's own message, or why it could not be run.
pub fn check(binary: &Path, config: &Path, peer: Option<&str>) -> Result<(), String> {
    let mut arguments: Vec<OsString> = vec!["-c".into(), "-f".into(), config.into()];
    arguments.extend(peer.into_iter().flat_map(|p| ["-L".into(), p.into()]));
    match process::run(binary, &arguments, CHECK_LIMIT) {
        Ok(done) if done.success => Ok(()),
        Ok(done) => Err(format!("HAProxy refuses {}: {}", config.display(), message(&done.output, &done.status))),
        Err(e) if e.kind() == io::ErrorKind::TimedOut => {
            Err(format!("HAProxy did not finish to check {} within {CHECK_LIMIT:?}", config.display()))
        }
        Err(e) => Err(format!("{} cannot be run: {e}", binary.display())),
    }
}

/// The lines that say what is wrong, without their heads; everything when there are none.
pub fn message(output: &str, otherwise: &str) -> String {
    let alerts: Vec<&str> = output.lines().filter_map(|l| l.strip_prefix("[ALERT]")).map(after_head).collect();
    let lines = if alerts.is_empty() { output.lines().map(str::trim).collect() } else { alerts };
    let lines: Vec<&str> = lines.into_iter().filter(|l| !l.is_empty()).take(LINES_MAX).collect();
    if lines.is_empty() { otherwise.to_owned() } else { lines.join("; ") }
}

/// What stands after `    (1234) : `, or after the date and number of earlier versions: ` 327/132239 (1234) : `.
fn after_head(line: &str) -> &str {
    line.split_once(") : ").map_or(line, |(_, rest)| rest).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wrong_is_repeated() {
        let output = "[NOTICE]   (25) : haproxy version is 2.6.12\n[ALERT]    (25) : config : parsing [x:1]: unknown\n\
                      [ALERT] 327/132239 (25) : config : Fatal\n";
        assert_eq!(message(output, "exited with 1"), "config : parsing [x:1]: unknown; config : Fatal");
        assert_eq!(message("\n", "exited with 1"), "exited with 1");
        assert_eq!(message("odd\n", "exited with 1"), "odd");
    }
}
