//! Mistakes in a configuration file: what is wrong, where, and what would be right; all of them shown at once.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use miette::{Diagnostic, GraphicalReportHandler, LabeledSpan, NamedSource, Severity, SourceCode};

/// More mistakes than this are counted, not shown.
const SHOWN_MAX: usize = 100;

/// One mistake (or, in a list of warnings, one doubt).
#[derive(Clone, Debug)]
pub struct Mistake {
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: String,
    /// Where: bytes of the file. `None` when no place in the file is to blame.
    pub span: Option<Range<usize>>,
    /// The line of `span`, from 1; 0 without a span.
    pub line: usize,
    /// Whether this is only a warning.
    pub warning: bool,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Mistake {}

impl Diagnostic for Mistake {
    fn severity(&self) -> Option<Severity> {
        Some(if self.warning { Severity::Warning } else { Severity::Error })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        (!self.help.is_empty()).then(|| Box::new(&self.help) as Box<dyn fmt::Display>)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.span.clone()?;
        Some(Box::new(std::iter::once(LabeledSpan::underline(span))))
    }
}

/// All mistakes of one file.
#[derive(Debug)]
pub struct ConfigError {
    file: PathBuf,
    source: Box<NamedSource<String>>,
    mistakes: Vec<Mistake>,
}

impl ConfigError {
    /// The error of a file with this text. The mistakes are sorted by place.
    pub(super) fn new(file: &Path, text: &str, mut mistakes: Vec<Mistake>) -> Box<Self> {
        mistakes.sort_by_key(|m| m.span.as_ref().map_or(usize::MAX, |s| s.start));
        let source = Box::new(NamedSource::new(file.display().to_string(), text.to_owned()).with_language("TOML"));
        Box::new(Self { file: file.to_owned(), source, mistakes })
    }

    /// The mistakes, in the order of the file.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }

    /// A report for people, with the lines of the file; colours only if asked for.
    pub fn render(&self, colour: bool) -> String {
        let theme = if colour { miette::GraphicalTheme::unicode() } else { miette::GraphicalTheme::none() };
        let mut out = String::new();
        let handler = GraphicalReportHandler::new_themed(theme).with_width(110).with_links(false).with_context_lines(1);
        match handler.render_report(&mut out, self) {
            Ok(()) => out,
            Err(fmt::Error) => self.to_string(),
        }
    }
}

impl fmt::Display for ConfigError {
    /// A head line; then one line a mistake, `file:line: what is wrong; what would be right`, when asked for by `{:#}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = self.mistakes.iter().filter(|m| !m.warning).count();
        let warnings = self.mistakes.len() - errors;
        let file = self.file.display();
        match (errors, warnings) {
            (0, n) => write!(f, "{file}: {n} {}", plural(n, "warning"))?,
            (n, _) => write!(f, "{file}: {n} {}", plural(n, "mistake"))?,
        }
        if f.alternate() {
            for m in self.mistakes.iter().take(SHOWN_MAX) {
                write!(f, "\n{file}:{}: {}; {}", m.line, m.message, m.help)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl Diagnostic for ConfigError {
    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self.source.as_ref())
    }

    fn severity(&self) -> Option<Severity> {
        let only_warnings = self.mistakes.iter().all(|m| m.warning);
        Some(if only_warnings { Severity::Warning } else { Severity::Error })
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.mistakes.iter().take(SHOWN_MAX).map(|m| m as &dyn Diagnostic)))
    }
}

fn plural(n: usize, word: &str) -> String {
    if n == 1 { word.to_owned() } else { format!("{word}s") }
}

/// The mistakes found so far in one text.
pub(super) struct Mistakes<'t> {
    text: &'t str,
    list: Vec<Mistake>,
}

impl<'t> Mistakes<'t> {
    /// None yet.
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, list: Vec::new() }
    }

    /// An error at a place.
    pub(super) fn error(&mut self, span: &Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        self.push(Some(span.clone()), message.into(), help.into(), false);
    }

    /// A warning at a place.
    pub(super) fn warning(&mut self, span: &Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        self.push(Some(span.clone()), message.into(), help.into(), true);
    }

    /// A warning that no place in the file is to blame for.
    pub(super) fn warning_nowhere(&mut self, message: impl Into<String>, help: impl Into<String>) {
        self.push(None, message.into(), help.into(), true);
    }

    /// An error that no place in the file is to blame for.
    pub(super) fn error_nowhere(&mut self, message: impl Into<String>, help: impl Into<String>) {
        self.push(None, message.into(), help.into(), false);
    }

    fn push(&mut self, span: Option<Range<usize>>, message: String, help: String, warning: bool) {
        // A span may end past the text when the parser blames the end of the file.
        let span = span.map(|s| s.start.min(self.text.len())..s.end.min(self.text.len()));
        let line = span.as_ref().map_or(0, |s| line_of(self.text, s.start));
        self.list.push(Mistake { message, help, span, line, warning });
    }

    /// Whether any of them is more than a warning.
    pub(super) fn any_error(&self) -> bool {
        self.list.iter().any(|m| !m.warning)
    }

    /// The lines that are blamed already.
    pub(super) fn lines(&self) -> Vec<usize> {
        self.list.iter().map(|m| m.line).collect()
    }

    /// Whether the line in which a span starts is blamed already.
    pub(super) fn blames_line_of(&self, span: &Range<usize>) -> bool {
        let line = line_of(self.text, span.start);
        self.list.iter().any(|m| m.line == line)
    }

    /// Drops what was found since `from`, keeping what `keep` says.
    pub(super) fn retain_since(&mut self, from: usize, keep: impl Fn(&Mistake) -> bool) {
        let mut at = 0;
        self.list.retain(|m| {
            at += 1;
            at <= from || keep(m)
        });
    }

    /// The list.
    pub(super) fn into_list(self) -> Vec<Mistake> {
        self.list
    }
}

/// The line of a byte, from 1.
fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|&b| b == b'\n').count()
}

/// ` (did you mean "x"?)` when a known name is close to the given one, else nothing.
pub(crate) fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    closest(given, known).map_or_else(String::new, |k| format!(" (did you mean \"{k}\"?)"))
}

/// The known name that is closest to the given one, if any is close: at most a third of the letters differ.
fn closest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let letters = given.chars().count();
    known
        .into_iter()
        .map(|k| (distance(given, k), k))
        .filter(|(d, k)| *d > 0 && *d * 3 <= letters.max(k.chars().count()).max(3))
        .min()
        .map(|(_, k)| k)
}

/// Edit distance with swaps of neighbours (optimal string alignment); both words are short.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.chars().take(64).flat_map(char::to_lowercase).collect();
    let mut rows: [Vec<usize>; 3] = [vec![0; b.len() + 1], (0..=b.len()).collect(), vec![0; b.len() + 1]];
    for i in 1..=a.len() {
        rows[2][0] = i;
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[1][j] + 1).min(rows[2][j - 1] + 1).min(rows[1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[0][j - 2] + 1);
            }
            rows[2][j] = best;
        }
        rows.rotate_left(1);
    }
    rows[1][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_name_is_proposed_and_a_far_one_is_not() {
        let known = ["interval", "lease", "port"];
        assert_eq!(did_you_mean("intervall", known), " (did you mean \"interval\"?)");
        assert_eq!(did_you_mean("laese", known), " (did you mean \"lease\"?)");
        assert_eq!(did_you_mean("colour", known), "");
    }

    #[test]
    fn lines_count_from_one() {
        assert_eq!(line_of("a\nb\nc", 0), 1);
        assert_eq!(line_of("a\nb\nc", 2), 2);
        assert_eq!(line_of("a\nb\nc", 99), 3);
    }
}
