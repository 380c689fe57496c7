//! The tables of synchronisation, and the same as JSON.

use serde_json::json;

use crate::measuring::{MeasuredRun, Spread};
use crate::options::BenchOptions;
use crate::sync::SyncRow;
use crate::sync::measure::SyncFigures;

impl SyncFigures {
    fn spread(&self, part: fn(&MeasuredRun) -> f64) -> Spread {
        Spread::of(self.runs.iter().map(part))
    }
}

/// Writes what a row has shown.
pub(crate) fn print(row: &SyncRow, figures: &[SyncFigures], options: &BenchOptions) {
    if options.json {
        for figures in figures {
            let median = figures.spread(|run| run.wall).median;
            println!(
                "{}",
                json!({"row": row.name, "median": median, "figures": figures})
            );
        }
        return;
    }
    println!("\n{} [{}]", row.title(options), row.name);
    println!(
        "    {:<8} {:>8} {:>8} {:>8}  {:>9}  {:>10} {:>10}  {:>12}  {:>9}",
        "", "median s", "min", "max", "haul ÷ it", "server cpu", "client cpu", "bytes", "haul ÷ it"
    );
    let haul = figures.iter().find(|figures| figures.peer == "haul");
    for figures in figures {
        line(figures, haul);
    }
}

#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
fn line(figures: &SyncFigures, haul: Option<&SyncFigures>) {
    if let Some(trouble) = &figures.trouble {
        println!("    {:<8} {trouble}", figures.peer);
        return;
    }
    let wall = figures.spread(|run| run.wall);
    let haul_median = haul.map_or(f64::NAN, |haul| haul.spread(|run| run.wall).median);
    let haul_bytes = haul.map_or(f64::NAN, |haul| haul.wire_bytes as f64);
    println!(
        "    {:<8} {:>8.3} {:>8.3} {:>8.3}  {:>9.2}  {:>10.2} {:>10.2}  {:>12}  {:>9.2}",
        figures.peer,
        wall.median,
        wall.min,
        wall.max,
        haul_median / wall.median,
        figures.spread(|run| run.server).median,
        figures.spread(|run| run.client).median,
        figures.wire_bytes,
        haul_bytes / figures.wire_bytes as f64,
    );
}
