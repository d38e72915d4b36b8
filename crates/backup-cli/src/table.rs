//! Tables for people, at most 80 columns wide: the last column wraps, nothing is cut off.

/// Widest line.
pub(crate) const WIDTH: usize = 80;
/// The last column never gets narrower than this, even when the others fill the line.
const LEAST: usize = 20;

/// Rows of text under headings.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()] }
    }

    /// Adds a row: one cell per heading.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The table, each line ended.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows[0].len();
        let width =
            |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        let before: usize = widths.iter().take(columns.saturating_sub(1)).map(|width| width + 2).sum();
        let room = WIDTH.saturating_sub(before).max(LEAST);
        let mut text = String::new();
        for row in &self.rows {
            let (head, last) = row.split_at(columns.saturating_sub(1).min(row.len()));
            let mut line = String::new();
            for (cell, width) in head.iter().zip(&widths) {
                let padded = format!("{cell:<width$}  ");
                line.push_str(&padded);
            }
            for (number, part) in wrap(last.first().map_or("", String::as_str), room).into_iter().enumerate() {
                if number > 0 {
                    line = " ".repeat(before);
                }
                line.push_str(&part);
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
        text
    }
}

/// Breaks `text` at blanks into lines of at most `room` characters; a longer word stays whole.
pub(crate) fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().map_or(0, |line| line.chars().count());
        if line > 0 && line + 1 + word.chars().count() > room {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns_and_wraps_the_last_column() {
        let mut table = Table::new(&["KEY", "MEANING"]);
        table.row(vec!["a".into(), "short".into()]);
        table.row(vec!["größer".into(), "word ".repeat(30)]);
        let text = table.render();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "KEY     MEANING");
        assert_eq!(lines[1], "a       short");
        assert!(lines[2].starts_with("größer  word word"));
        assert!(lines[3].starts_with("        word"));
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH && !line.ends_with(' ')));
        assert_eq!(text.matches("word").count(), 30, "nothing is cut off");
    }
}
