//! The tables, and the same as JSON.

use serde_json::json;

use crate::measuring::{Figures, Run};
use crate::options::Options;
use crate::rows::{Extent, Medium, Row};

/// Writes what a row has shown.
pub(crate) fn print(row: &Row, figures: &[Figures], options: &Options) {
    if options.json {
        for figures in figures {
            println!("{}", as_json(row, figures, options));
        }
        return;
    }
    println!("\n{} [{}]", row.title(options), row.name);
    match row.medium {
        Medium::Memory => {
            println!("In memory a sync costs nothing, so here nobody waits for a disk.")
        }
        Medium::Disk => {
            println!("haul as it is, which syncs; the peers as they are and with a sync after.")
        }
        Medium::Line => println!("Round trip {} ms.", 2 * options.one_way().as_millis()),
    }
    let mut figures: Vec<_> = figures.iter().collect();
    figures.sort_by(|a, b| wall(a).total_cmp(&wall(b)));
    let haul = figures.iter().find(|each| each.peer == "haul");
    let haul = haul.map_or(f64::NAN, |figures| wall(figures));
    println!(
        "    {:<14} {:>8} {:>8} {:>8}  {:>9}  {:>10} {:>10}  {:<13} syncs",
        "", "median s", "min", "max", "haul ÷ it", "server cpu", "client cpu", "verifies"
    );
    for (place, figures) in figures.into_iter().enumerate() {
        line(place + 1, figures, haul);
    }
}

fn line(place: usize, figures: &Figures, haul: f64) {
    let name = name(figures);
    if let Some(trouble) = &figures.trouble {
        println!("  - {name:<14} {trouble}");
        return;
    }
    let wall = Spread::of(figures, |run| run.wall);
    println!(
        "{place:>3} {name:<14} {:>8.3} {:>8.3} {:>8.3}  {:>9.2}  {:>10.2} {:>10.2}  {:<13} {}",
        wall.median,
        wall.min,
        wall.max,
        haul / wall.median,
        Spread::of(figures, |run| run.server).median,
        Spread::of(figures, |run| run.client).median,
        figures.verifies,
        if figures.syncs || figures.synced_after {
            "yes"
        } else {
            "no"
        },
    );
}

fn name(figures: &Figures) -> String {
    let after = if figures.synced_after { " + sync" } else { "" };
    format!("{}{after}", figures.peer)
}

/// The median of the wall times; of who has none, more than everybody's.
fn wall(figures: &Figures) -> f64 {
    if figures.trouble.is_some() {
        return f64::INFINITY;
    }
    Spread::of(figures, |run| run.wall).median
}

fn as_json(row: &Row, figures: &Figures, options: &Options) -> serde_json::Value {
    let (bytes, files) = match row.item.extent(options) {
        Extent::File(size) => (size, 1),
        Extent::Tree(files) => (u64::from(files) * 4096, u64::from(files)),
    };
    json!({
        "row": row.name,
        "bytes": bytes,
        "files": files,
        "peer": name(figures),
        "median": Spread::of(figures, |run| run.wall).median,
        "verifies": figures.verifies,
        "syncs": figures.syncs || figures.synced_after,
        "runs": figures.runs,
        "trouble": figures.trouble,
    })
}

struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(figures: &Figures, part: fn(&Run) -> f64) -> Self {
        let mut sorted: Vec<_> = figures.runs.iter().map(part).collect();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let last = sorted.len().saturating_sub(1);
        Self {
            median: f64::midpoint(at(last / 2), at(last.div_ceil(2))),
            min: at(0),
            max: at(last),
        }
    }
}
