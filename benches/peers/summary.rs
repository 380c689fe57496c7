//! All rows at a glance: haul's place in each, and what a server spends on a GiB.

use crate::measuring::Figures;
use crate::options::BenchOptions;
use crate::peer::KINDS;
use crate::rows::{BenchRow, Extent, Medium};

type Result<'a> = (&'a BenchRow, Vec<Figures>);

pub(crate) fn print(results: &[Result], options: &BenchOptions) {
    println!("\nhaul's place");
    println!(
        "    {:<15} {:>8}  {:<14} {:>8}  {:>9}  place",
        "row", "haul s", "best other", "its s", "haul ÷ it"
    );
    for (row, figures) in results {
        place(row, figures);
    }
    cost(results, options);
}

fn place(row: &BenchRow, figures: &[Figures]) {
    let is_haul = |each: &&Figures| each.peer == "haul";
    let Some(haul) = figures.iter().find(is_haul).map(Figures::median) else {
        return;
    };
    let mut others: Vec<_> = figures.iter().filter(|each| !is_haul(each)).collect();
    others.sort_by(|a, b| a.median().total_cmp(&b.median()));
    let Some(best) = others.first() else {
        return;
    };
    let before = others.iter().filter(|other| other.median() < haul).count();
    println!(
        "    {:<15} {haul:>8.3}  {:<14} {:>8.3}  {:>9.2}  {} of {}",
        row.name,
        best.name(),
        best.median(),
        haul / best.median(),
        before + 1,
        figures.len()
    );
}

/// Only of large files in memory: elsewhere it is waiting and names that cost.
fn cost(results: &[Result], options: &BenchOptions) {
    let rows: Vec<_> = results
        .iter()
        .filter(|(row, _)| row.medium == Medium::Memory)
        .filter_map(|(row, figures)| match row.item.extent(options) {
            Extent::File(size) => Some((row, figures, size)),
            Extent::Tree(_) => None,
        })
        .collect();
    if rows.is_empty() {
        return;
    }
    println!("\nProcessor seconds, user and system, for each GiB: of the server (of the client)");
    print!("    {:<8}", "");
    for (row, ..) in &rows {
        print!("  {:>13}", row.name);
    }
    println!();
    for kind in KINDS {
        print!("    {:<8}", kind.name);
        for (_, figures, size) in &rows {
            let found = figures
                .iter()
                .find(|each| each.peer == kind.name && !each.runs.is_empty());
            let text = found.map_or_else(|| "-".to_owned(), |figures| per_gibibyte(figures, *size));
            print!("  {text:>13}");
        }
        println!();
    }
}

fn per_gibibyte(figures: &Figures, size: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let gibibytes = size as f64 / f64::from(1 << 30);
    format!(
        "{:.2} ({:.2})",
        figures.spread(|run| run.server).median / gibibytes,
        figures.spread(|run| run.client).median / gibibytes
    )
}
