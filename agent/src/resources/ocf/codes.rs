//! The exit codes of OCF agents (OCF Resource Agent API 1.1, and Pacemaker's two for degraded resources), in words.

use crate::process::Ended;

/// An exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// 0: done, or running.
    Success,
    /// 7: not running.
    NotRunning,
    /// 8: running, and promoted.
    Promoted,
    /// 9: promoted, and failed.
    FailedPromoted,
    /// 190: running, less well than it could.
    Degraded,
    /// 191: the same, and promoted.
    DegradedPromoted,
    /// Anything else, also a signal.
    Error(Ended),
}

impl Code {
    /// That of a program's end.
    pub fn of(ended: Ended) -> Self {
        match ended {
            Ended::Code(0) => Self::Success,
            Ended::Code(7) => Self::NotRunning,
            Ended::Code(8) => Self::Promoted,
            Ended::Code(9) => Self::FailedPromoted,
            Ended::Code(190) => Self::Degraded,
            Ended::Code(191) => Self::DegradedPromoted,
            other => Self::Error(other),
        }
    }

    /// Whether something runs in the promoted role.
    pub fn is_promoted(self) -> bool {
        matches!(self, Self::Promoted | Self::FailedPromoted | Self::DegradedPromoted)
    }

    /// What it means, and what to do.
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Success => ("it runs", "see why it is not stopped"),
            Self::NotRunning => ("it does not run (7)", "see why it ended"),
            Self::Promoted => ("it runs promoted (8)", "demote it by hand if it should not"),
            Self::FailedPromoted => ("it has failed while promoted (9)", "see its log"),
            Self::Degraded => ("it runs degraded (190)", "see its log"),
            Self::DegradedPromoted => ("it runs promoted and degraded (191)", "see its log"),
            Self::Error(Ended::Code(1)) => ("it failed (1, generic error)", "see its log"),
            Self::Error(Ended::Code(2)) => {
                ("its parameters do not fit this machine (2, invalid arguments)", "correct `parameters`")
            }
            Self::Error(Ended::Code(3)) => (
                "the agent does not know this action (3, unimplemented)",
                "choose an agent that has it, or another `role`",
            ),
            Self::Error(Ended::Code(4)) => {
                ("the agent lacks a permission (4)", "run Baton as root, and see what its unit forbids")
            }
            Self::Error(Ended::Code(5)) => ("something that it needs is not installed (5)", "install it on this node"),
            Self::Error(Ended::Code(6)) => {
                ("the configuration is wrong on every node (6, not configured)", "correct `parameters`")
            }
            Self::Error(Ended::Code(126 | 127)) => {
                ("the agent, or what it calls, cannot be run", "see that it is executable, and its first line")
            }
            Self::Error(Ended::Code(_)) => ("it ended with a code that OCF does not know", "see the agent's own text"),
            Self::Error(Ended::Signal(_) | Ended::Unknown) => ("the agent was killed", "see who killed it, and dmesg"),
        }
    }
}

/// Why the agent says that it failed (ocf_exit_reason), out of its last words.
pub fn reason(output: &str) -> Option<&str> {
    let (_, reason) = output.rsplit_once("ocf-exit-reason:")?;
    let line = reason.lines().next().unwrap_or(reason);
    Some(line.split(" | ").next().unwrap_or(line).trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_words_and_the_agents_reason_is_found() {
        for code in (0..=9).chain([126, 127, 190, 191, 77]) {
            let (words, remedy) = Code::of(Ended::Code(code)).words();
            assert!(!words.is_empty() && !remedy.is_empty());
        }
        assert!(Code::of(Ended::Code(191)).is_promoted() && !Code::of(Ended::Code(0)).is_promoted());
        assert_eq!(Code::of(Ended::Signal(9)).words().0, "the agent was killed");
        assert_eq!(reason("x | ocf-exit-reason:no such file | y"), Some("no such file"));
        assert_eq!(reason("ocf-exit-reason:a\nocf-exit-reason:b c\n"), Some("b c"));
        assert_eq!(reason("nothing"), None);
    }
}
