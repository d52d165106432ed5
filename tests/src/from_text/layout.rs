//! The byte tables of a page: `| at | size | field |` under a heading.

use std::ops::Range;

/// A page with its tables.
#[derive(Clone, Debug)]
pub struct Page {
    tables: Vec<(String, Table)>,
}

/// One table.
#[derive(Clone, Debug)]
pub struct Table {
    /// The heading, or the words before the table, it stands under.
    pub title: String,
    /// Its rows, in order. A row `2 + 2` is two of them.
    pub rows: Vec<Row>,
}

/// One field.
#[derive(Clone, Debug)]
pub struct Row {
    /// First byte, where it is fixed.
    pub at: Option<usize>,
    /// Bytes, where they are fixed.
    pub size: Option<usize>,
    /// What the page says of it.
    pub text: String,
}

impl Page {
    /// Reads a page's text.
    ///
    /// # Panics
    /// Where a table has rows of two widths.
    #[must_use]
    pub fn parse(text: &str) -> Page {
        let mut tables = Vec::new();
        let mut title = String::new();
        let mut open: Option<Table> = None;
        for line in text.lines() {
            if let Some(heading) = line.strip_prefix('#') {
                title = heading.trim_start_matches('#').trim().to_owned();
            } else if line.ends_with(':') && !line.starts_with('|') {
                title = line.trim_end_matches(':').to_owned();
            }
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            if let ["", "at", "size", ..] = cells[..] {
                open = Some(Table {
                    title: title.clone(),
                    rows: Vec::new(),
                });
            } else if let ["", at, size, texts @ .., ""] = &cells[..] {
                let is_rule = at.starts_with('-');
                if let Some(table) = open.as_mut().filter(|_| !is_rule) {
                    table.add(at, size, &texts.join(" | "));
                }
            } else if let Some(table) = open.take() {
                tables.push((table.title.clone(), table));
            }
        }
        tables.extend(open.map(|table| (table.title.clone(), table)));
        Page { tables }
    }

    /// The table under the heading, or behind the words, that begin so.
    ///
    /// # Panics
    /// Where there is no such table, or more than one.
    #[must_use]
    pub fn table(&self, title: &str) -> Table {
        let mut found = self.tables.iter().filter(|(t, _)| t.starts_with(title));
        let table = found.next().unwrap_or_else(|| panic!("no table '{title}'"));
        assert!(found.next().is_none(), "two tables '{title}'");
        table.1.clone()
    }

    /// All tables.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.iter().map(|(_, table)| table)
    }
}

impl Table {
    fn add(&mut self, at: &str, size: &str, text: &str) {
        let at = at.parse().ok();
        let sizes: Vec<Option<usize>> = size.split('+').map(|s| s.trim().parse().ok()).collect();
        let texts: Vec<&str> = if sizes.len() == 1 {
            vec![text]
        } else {
            text.splitn(sizes.len(), ", ").collect()
        };
        assert_eq!(sizes.len(), texts.len(), "{}: {text}", self.title);
        let mut next: Option<usize> = at;
        for (size, text) in sizes.iter().zip(texts) {
            self.rows.push(Row {
                at: next,
                size: *size,
                text: text.to_owned(),
            });
            next = next.zip(*size).map(|(at, size)| at + size);
        }
    }

    fn row(&self, name: &str) -> &Row {
        let mut found = self.rows.iter().filter(|row| row.text.starts_with(name));
        let row = found
            .next()
            .unwrap_or_else(|| panic!("{}: no field '{name}'", self.title));
        assert!(
            found.next().is_none(),
            "{}: two fields '{name}'",
            self.title
        );
        row
    }

    /// Where the field begins whose text begins so.
    ///
    /// # Panics
    /// As [`Table::field`], but its size need not be fixed.
    #[must_use]
    pub fn start(&self, name: &str) -> usize {
        let at = self.row(name).at;
        at.unwrap_or_else(|| panic!("{}: '{name}' has no fixed place", self.title))
    }

    /// Where the field is whose text begins so.
    ///
    /// # Panics
    /// Where there is no such field, or more than one, or it has no fixed place.
    #[must_use]
    pub fn field(&self, name: &str) -> Range<usize> {
        let row = self.row(name);
        match (row.at, row.size) {
            (Some(at), Some(size)) => at..at + size,
            (_, _) => panic!("{}: '{name}' has no fixed place", self.title),
        }
    }

    /// The bytes between backticks in the row whose text begins so.
    ///
    /// # Panics
    /// Where there is no such row or no such bytes.
    #[must_use]
    pub fn magic(&self, name: &str) -> Vec<u8> {
        let row = self.rows.iter().find(|row| row.text.starts_with(name));
        let text = row.and_then(|row| row.text.split('`').nth(1));
        text.unwrap_or_else(|| panic!("{}: no bytes for '{name}'", self.title))
            .as_bytes()
            .to_vec()
    }

    /// Where the last field of a fixed place ends.
    #[must_use]
    pub fn end(&self) -> usize {
        let ends = self.rows.iter().filter_map(|row| Some(row.at? + row.size?));
        ends.max().unwrap_or(0)
    }

    /// The first place where a field does not begin where the one before ends.
    #[must_use]
    pub fn seam(&self) -> Option<String> {
        let mut next = Some(0);
        for row in &self.rows {
            if let (Some(expected), Some(at)) = (next, row.at)
                && expected != at
            {
                return Some(format!(
                    "{}: '{}' begins at {at}, not {expected}",
                    self.title, row.text
                ));
            }
            // Behind a field of no fixed size only a number says where the next begins.
            next = row.at.or(next).zip(row.size).map(|(at, size)| at + size);
        }
        None
    }
}

/// A little-endian number of at most eight bytes.
///
/// # Panics
/// Where the field is longer, or not in the bytes.
#[must_use]
pub fn number(bytes: &[u8], field: &Range<usize>) -> u64 {
    let field = &bytes[field.clone()];
    assert!(field.len() <= 8, "a number has at most eight bytes");
    let digits = field.iter().rev();
    digits.fold(0, |number, byte| number << 8 | u64::from(*byte))
}
