//! Lists for people: a headline, then rows in columns.

/// Puts `rows` into columns that are as wide as their widest cell.
pub(super) fn table<const N: usize>(headline: [&str; N], rows: &[[String; N]]) -> String {
    let headline = headline.map(str::to_owned);
    let rows = || std::iter::once(&headline).chain(rows);
    let mut widths = [0; N];
    for row in rows() {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths);
        let padded = cells.map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["alice", "-", ""], ["bob", "10 GiB", "x"]];
        let rows = rows.map(|row| row.map(str::to_owned));
        assert_eq!(
            table(["NAME", "QUOTA", "NOTE"], &rows),
            "NAME   QUOTA   NOTE\n\
             alice  -\n\
             bob    10 GiB  x"
        );
        assert_eq!(table(["NAME"], &[]), "NAME");
    }
}
