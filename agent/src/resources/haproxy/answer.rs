//! Reads what the runtime API answers. Columns and fields that are not known are passed over, missing ones read as absent, and
//! nothing in an answer makes it fail.

use std::collections::HashMap;

/// `show info`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// As HAProxy writes it: "2.6.12-1+deb12u4".
    pub version: String,
    /// The worker's number.
    pub pid: u32,
    /// Whether it is stopping softly.
    pub stopping: bool,
}

impl Info {
    /// Reads the answer.
    pub fn parse(text: &str) -> Self {
        let mut info = Self::default();
        for (key, value) in text.lines().filter_map(|l| l.split_once(": ")) {
            match key {
                "Version" => info.version = value.trim().to_owned(),
                "Pid" => info.pid = value.trim().parse().unwrap_or(0),
                "Stopping" => info.stopping = value.trim() == "1",
                _ => {}
            }
        }
        info
    }

    /// Major and minor version; `None` when the text has none.
    pub fn release(&self) -> Option<(u32, u32)> {
        let mut parts = self.version.split(['.', '-']);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }
}

/// A table with a head line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    columns: HashMap<String, usize>,
    rows: Vec<Vec<String>>,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    columns: &'a HashMap<String, usize>,
    fields: &'a [String],
}

impl Rows {
    /// `show stat`: comma separated, `"` around fields with commas, a head line that begins with `# `.
    pub fn parse_csv(text: &str) -> Self {
        Self::parse(text, split_csv)
    }

    /// `show servers state`: separated by blanks, a format number before a head line that begins with `# `.
    pub fn parse_blanks(text: &str) -> Self {
        Self::parse(text, |line| line.split_ascii_whitespace().map(str::to_owned).collect())
    }

    fn parse(text: &str, split: impl Fn(&str) -> Vec<String>) -> Self {
        let mut table = Self::default();
        for line in text.lines().map(str::trim_end).filter(|l| !l.is_empty()) {
            if let Some(head) = line.strip_prefix("# ") {
                table.columns = split(head).into_iter().enumerate().map(|(n, name)| (name, n)).collect();
            } else if !table.columns.is_empty() {
                table.rows.push(split(line));
            }
        }
        table
    }

    /// The rows.
    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|fields| Row { columns: &self.columns, fields })
    }
}

impl<'a> Row<'a> {
    /// The field of a column, empty when there is none.
    pub fn get(&self, column: &str) -> &'a str {
        self.columns.get(column).and_then(|n| self.fields.get(*n)).map_or("", String::as_str)
    }

    /// A number in a column.
    pub fn number(&self, column: &str) -> Option<u32> {
        self.get(column).parse().ok()
    }
}

fn split_csv(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, fields.last_mut()) {
            ('"', Some(field)) if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                field.push('"');
            }
            ('"', _) => quoted = !quoted,
            (',', _) if !quoted => fields.push(String::new()),
            (letter, Some(field)) => field.push(letter),
            (_, None) => {}
        }
    }
    fields
}

/// One map or ACL of `show map` or `show acl` that comes from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// How to name it in a command: "#2", or the file.
    pub reference: String,
    /// The file, which names it on all nodes.
    pub file: String,
}

/// `show map` or `show acl`: those from files, each file once.
pub fn parse_lists(text: &str) -> Vec<Listed> {
    let mut lists: Vec<Listed> = Vec::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let Some((id, rest)) = line.split_once(" (") else { continue };
        let Some((file, _)) = rest.split_once(')') else { continue };
        if file.is_empty() || lists.iter().any(|l| l.file == file) {
            continue;
        }
        let reference = id.parse::<u32>().map_or_else(|_| file.to_owned(), |id| format!("#{id}"));
        lists.push(Listed { reference, file: file.to_owned() });
    }
    lists
}

/// `show map X` or `show acl X`: what stands after the address on each line.
pub fn parse_entries(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|l| l.starts_with("0x"));
    lines.filter_map(|l| l.split_once(' ')).map(|(_, entry)| entry.to_owned()).collect()
}

/// The value of `key=value` among words; what stands after the key up to the next blank.
pub fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split_ascii_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_numbers() {
        let info = Info::parse("Name: HAProxy\nVersion: 2.6.12-1+deb12u4\nPid: 77\nStopping: 1\nNovel: x: y\n");
        assert_eq!((info.release(), info.pid, info.stopping), (Some((2, 6)), 77, true));
        assert_eq!(Info::parse("Version: 3.1-dev2").release(), Some((3, 1)));
        assert_eq!(Info::parse("Version: none").release(), None);
    }

    #[test]
    fn columns_are_found_by_name_in_any_order() {
        let table = Rows::parse_csv("# new,svname,pxname\n\"a \"\"b\"\", c\",s1,web\n\n,s2\n");
        let rows: Vec<_> = table.iter().collect();
        assert_eq!((rows[0].get("new"), rows[0].get("pxname")), ("a \"b\", c", "web"));
        assert_eq!((rows[1].get("svname"), rows[1].get("pxname"), rows[1].get("none")), ("s2", "", ""));
        let table = Rows::parse_blanks("1\n# be_name srv_uweight\nweb 7\n");
        assert_eq!(table.iter().next().unwrap().number("srv_uweight"), Some(7));
    }

    #[test]
    fn lists_without_a_file_are_none_to_hand_over() {
        let lists = parse_lists(
            "# id (file) description\n2 (/m.map) pattern loaded from file '/m.map'\n1 () acl 'src'\n-1 (/n.map) x\n\n",
        );
        let names: Vec<_> = lists.iter().map(|l| (l.reference.as_str(), l.file.as_str())).collect();
        assert_eq!(names, [("#2", "/m.map"), ("/n.map", "/n.map")]);
        assert_eq!(parse_entries("0x1 /x one two\n\nx\n0x2 k v\n"), ["/x one two", "k v"]);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let text = String::from_utf8_lossy(&bytes);
            read_all(&text);
        }

        #[test]
        fn no_words_make_it_panic(text in "(# |0x1 |id=|\\(|\\)|,|\"|Version: |Pid: |[0-9.]{1,3}|[ \\n]|\\PC){0,60}") {
            read_all(&text);
        }
    }

    fn read_all(text: &str) {
        Info::parse(text).release();
        for table in [Rows::parse_csv(text), Rows::parse_blanks(text)] {
            table.iter().for_each(|row| assert_eq!(row.get("no such column"), ""));
        }
        parse_lists(text);
        parse_entries(text);
        value(text, "id");
    }
}
