//! Reads a parsed TOML table key by key: types are checked, places are kept, and keys that nobody asked for are reported.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::diagnostic::{Mistakes, did_you_mean};

/// A value and its place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At<T> {
    /// The value.
    pub value: T,
    /// Its bytes in the file.
    pub span: Range<usize>,
}

impl<T> At<T> {
    /// Another value at the same place.
    pub fn with<U>(&self, value: U) -> At<U> {
        At { value, span: self.span.clone() }
    }
}

/// A value whose type is not known yet.
pub(super) type Value<'t, 'i> = At<&'t DeValue<'i>>;

/// One table, with its name for messages and the keys asked for so far.
pub(super) struct Table<'t, 'i> {
    name: String,
    span: Range<usize>,
    entries: &'t DeTable<'i>,
    asked: Vec<&'static str>,
    lenient: bool,
}

impl<'t, 'i> Table<'t, 'i> {
    /// The whole file.
    pub fn root(entries: &'t DeTable<'i>) -> Self {
        Self { name: "the file".into(), span: 0..0, entries, asked: Vec::new(), lenient: false }
    }

    /// Where the table is: its header.
    pub fn span(&self) -> &Range<usize> {
        &self.span
    }

    /// The value of a key, whatever its type.
    pub fn any(&mut self, key: &'static str) -> Option<Value<'t, 'i>> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        let value = self.entries.get(key)?;
        Some(At { value: value.get_ref(), span: value.span() })
    }

    /// A string.
    pub fn string(&mut self, m: &mut Mistakes<'_>, key: &'static str) -> Option<At<String>> {
        self.any(key).and_then(|v| as_string(m, &self.name, key, &v))
    }

    /// A string that must be there. `help` says what would be right.
    pub fn required(&mut self, m: &mut Mistakes<'_>, key: &'static str, help: &str) -> Option<At<String>> {
        if !self.entries.contains_key(key) {
            self.missing(m, key, help);
        }
        self.string(m, key)
    }

    /// Reports a key that must be there and is not.
    pub fn missing(&self, m: &mut Mistakes<'_>, key: &str, help: &str) {
        m.error(&self.span, format!("{} has no `{key}`", self.name), help);
    }

    /// A whole number within bounds.
    pub fn integer(&mut self, m: &mut Mistakes<'_>, key: &'static str, low: i64, high: i64) -> Option<At<i64>> {
        let value = self.any(key)?;
        as_integer(m, &format!("`{key}`"), &value, low, high)
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, m: &mut Mistakes<'_>, key: &'static str) -> Option<At<bool>> {
        let v = self.any(key)?;
        match v.value {
            DeValue::Boolean(b) => Some(v.with(*b)),
            other => {
                m.error(
                    &v.span,
                    wrong_type(&format!("`{key}`"), "true or false", other),
                    format!("write `{key} = true` or `{key} = false`"),
                );
                None
            }
        }
    }

    /// A list of strings; `None` if the key is not there.
    pub fn strings(&mut self, m: &mut Mistakes<'_>, key: &'static str, example: &str) -> Option<At<Vec<At<String>>>> {
        let v = self.any(key)?;
        let DeValue::Array(items) = v.value else {
            m.error(
                &v.span,
                wrong_type(&format!("`{key}`"), "a list of strings", v.value),
                format!("write `{key} = {example}`"),
            );
            return None;
        };
        let read = |item: &toml::Spanned<DeValue<'i>>| {
            let item = At { value: item.get_ref(), span: item.span() };
            as_string(m, &self.name, key, &item).map(|s| At { value: s.value, span: item.span })
        };
        Some(v.with(items.iter().filter_map(read).collect()))
    }

    /// A table of its own.
    pub fn table(&mut self, m: &mut Mistakes<'_>, key: &'static str) -> Option<Table<'t, 'i>> {
        let v = self.any(key)?;
        self.as_table(m, format!("[{key}]"), &v, &format!("write a section `[{key}]`"))
    }

    /// A table as a value, `key = { … }`.
    pub fn table_at(&mut self, m: &mut Mistakes<'_>, key: &'static str, example: &str) -> Option<Table<'t, 'i>> {
        let v = self.any(key)?;
        self.as_table(m, key.to_owned(), &v, &format!("write `{key} = {example}`"))
    }

    /// A list of tables, `[[key]]`. `name` is what messages call one of them.
    pub fn tables(&mut self, m: &mut Mistakes<'_>, key: &'static str, header: &str) -> Vec<Table<'t, 'i>> {
        let Some(v) = self.any(key) else {
            return Vec::new();
        };
        let help = format!("write one section `[[{header}]]` for each");
        let DeValue::Array(items) = v.value else {
            m.error(&v.span, wrong_type(&format!("`{key}`"), "a list of sections", v.value), help);
            return Vec::new();
        };
        let read = |item: &'t toml::Spanned<DeValue<'i>>| {
            let item = At { value: item.get_ref(), span: item.span() };
            self.as_table(m, format!("[[{header}]]"), &item, &help)
        };
        items.iter().filter_map(read).collect()
    }

    /// Counts every key as asked for: what they are cannot be told.
    pub fn ask_all(&mut self) {
        self.lenient = true;
    }

    /// Every key of the table, as names given by the user (not checked against known keys).
    pub fn entries(&self) -> Vec<(At<String>, Value<'t, 'i>)> {
        let entry = |(k, v): (&toml::Spanned<std::borrow::Cow<'i, str>>, &'t toml::Spanned<DeValue<'i>>)| {
            (At { value: k.get_ref().to_string(), span: k.span() }, At { value: v.get_ref(), span: v.span() })
        };
        self.entries.iter().map(entry).collect()
    }

    fn as_table(&self, m: &mut Mistakes<'_>, name: String, v: &Value<'t, 'i>, help: &str) -> Option<Table<'t, 'i>> {
        match v.value {
            DeValue::Table(entries) => {
                Some(Table { name, span: v.span.clone(), entries, asked: Vec::new(), lenient: false })
            }
            other => {
                m.error(&v.span, wrong_type(&format!("`{name}`"), "a section", other), help);
                None
            }
        }
    }

    /// Reports the keys that nobody asked for.
    pub fn finish(self, m: &mut Mistakes<'_>) {
        for (key, _) in self.entries.iter().filter(|_| !self.lenient) {
            let given = key.get_ref().as_ref();
            if !self.asked.contains(&given) {
                let hint = did_you_mean(given, self.asked.iter().copied());
                let known = self.asked.join(", ");
                m.error(
                    &key.span(),
                    format!("{} has no key `{given}`{hint}", self.name),
                    format!("known here: {known}"),
                );
            }
        }
    }
}

/// The string in a value.
pub(super) fn as_string(m: &mut Mistakes<'_>, table: &str, key: &str, v: &Value<'_, '_>) -> Option<At<String>> {
    match v.value {
        DeValue::String(s) => Some(v.with(s.to_string())),
        other => {
            m.error(&v.span, wrong_type(&format!("`{key}` in {table}"), "a string", other), "put it in double quotes");
            None
        }
    }
}

/// The whole number in a value, within bounds.
pub(super) fn as_integer(m: &mut Mistakes<'_>, what: &str, v: &Value<'_, '_>, low: i64, high: i64) -> Option<At<i64>> {
    let help = format!("write a whole number from {low} to {high}, without quotes");
    let DeValue::Integer(n) = v.value else {
        m.error(&v.span, wrong_type(what, "a whole number", v.value), help);
        return None;
    };
    match i64::from_str_radix(n.as_str(), n.radix()) {
        Ok(n) if (low..=high).contains(&n) => Some(v.with(n)),
        _ => {
            m.error(&v.span, format!("{what} is {n}, out of range"), help);
            None
        }
    }
}

/// "x must be a string, but is a whole number".
fn wrong_type(what: &str, wanted: &str, found: &DeValue<'_>) -> String {
    let found = match found {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    };
    format!("{what} must be {wanted}, but is {found}")
}
