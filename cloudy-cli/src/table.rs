//! Tables of text.

use unicode_width::UnicodeWidthStr;

/// The gap between two columns.
const GAP: &str = "  ";

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    head: &'static str,
    /// Numbers are aligned at the right, other cells at the left.
    is_number: bool,
}

impl Column {
    pub(crate) const fn text(head: &'static str) -> Self {
        Self { head, is_number: false }
    }

    pub(crate) const fn number(head: &'static str) -> Self {
        Self { head, is_number: true }
    }

    fn padded(self, cell: &str, width: usize) -> String {
        let blanks = " ".repeat(width.saturating_sub(cell.width()));
        if self.is_number { blanks + cell } else { cell.to_owned() + &blanks }
    }
}

/// Renders a line of headings and a line for each row, with cells in the order of the columns. A column without content
/// is left out. Widths are those of a terminal.
pub(crate) fn render(columns: &[Column], rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = rows.collect();
    let cell = |row: &[String], at: usize| row.get(at).map_or("", String::as_str).to_owned();
    let shown: Vec<(usize, Column, usize)> = (0..)
        .zip(columns)
        .filter(|(at, _)| rows.is_empty() || rows.iter().any(|row| !cell(row, *at).is_empty()))
        .map(|(at, column)| {
            let widest = rows.iter().map(|row| cell(row, at).width()).max().unwrap_or(0);
            (at, *column, widest.max(column.head.width()))
        })
        .collect();
    let heads: Vec<String> = columns.iter().map(|column| column.head.to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&heads).chain(&rows) {
        let cells: Vec<String> =
            shown.iter().map(|(at, column, width)| column.padded(&cell(row, *at), *width)).collect();
        text.push_str(cells.join(GAP).trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [Column::text("name"), Column::number("count"), Column::number("unused")];

    #[test]
    fn cells_take_the_columns_that_a_terminal_gives_them() {
        let row = |name: &str, count: &str| vec![name.to_owned(), count.to_owned(), String::new()];
        let rows = [row("größer", "8"), row("\u{8282}\u{70b9}", "262144"), row("e\u{301}", "12")];
        let expected = "name     count\ngrößer       8\n\u{8282}\u{70b9}    262144\ne\u{301}           12\n";
        assert_eq!(render(&COLUMNS, rows.into_iter()), expected);
    }

    #[test]
    fn without_rows_there_are_all_heads() {
        assert_eq!(render(&COLUMNS, std::iter::empty()), "name  count  unused\n");
    }
}
