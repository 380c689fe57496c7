//! The tables, and the same as JSON.

use serde_json::json;

use crate::measuring::Figures;
use crate::options::BenchOptions;
use crate::rows::{BenchRow, Extent, Medium};

/// Writes what a row has shown.
pub(crate) fn print(row: &BenchRow, figures: &[Figures], options: &BenchOptions) {
    if options.json {
        for figures in figures {
            println!("{}", as_json(row, figures, options));
        }
        return;
    }
    println!("\n{} [{}]", row.title(options), row.name);
    let remark = match row.medium {
        Medium::Memory => "In memory a sync costs nothing: nobody waits for a disk.".to_owned(),
        Medium::Disk => {
            "haul as it is, which syncs; the peers as they are, and with a sync after.".to_owned()
        }
        Medium::Line => format!("Round trip {} ms.", 2 * options.one_way().as_millis()),
    };
    println!("{remark}");
    let mut figures: Vec<_> = figures.iter().collect();
    figures.sort_by(|a, b| a.median().total_cmp(&b.median()));
    let haul = figures.iter().find(|each| each.peer == "haul");
    let haul = haul.map_or(f64::NAN, |figures| figures.median());
    println!(
        "    {:<14} {:>8} {:>8} {:>8}  {:>9}  {:>10} {:>10}  {:<13} syncs",
        "", "median s", "min", "max", "haul ÷ it", "server cpu", "client cpu", "verifies"
    );
    for (place, figures) in figures.into_iter().enumerate() {
        line(place + 1, figures, haul);
    }
}

fn line(place: usize, figures: &Figures, haul: f64) {
    let name = figures.name();
    if let Some(trouble) = &figures.trouble {
        println!("  - {name:<14} {trouble}");
        return;
    }
    let wall = figures.spread(|run| run.wall);
    println!(
        "{place:>3} {name:<14} {:>8.3} {:>8.3} {:>8.3}  {:>9.2}  {:>10.2} {:>10.2}  {:<13} {}",
        wall.median,
        wall.min,
        wall.max,
        haul / wall.median,
        figures.spread(|run| run.server).median,
        figures.spread(|run| run.client).median,
        figures.verifies,
        if figures.syncs || figures.synced_after {
            "yes"
        } else {
            "no"
        },
    );
}

fn as_json(row: &BenchRow, figures: &Figures, options: &BenchOptions) -> serde_json::Value {
    let (bytes, files) = match row.item.extent(options) {
        Extent::File(size) => (size, 1),
        Extent::Tree(files) => (u64::from(files) * 4096, u64::from(files)),
    };
    json!({
        "row": row.name,
        "bytes": bytes,
        "files": files,
        "peer": figures.name(),
        "median": figures.spread(|run| run.wall).median,
        "verifies": figures.verifies,
        "syncs": figures.syncs || figures.synced_after,
        "runs": figures.runs,
        "trouble": figures.trouble,
    })
}
