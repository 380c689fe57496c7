//! The structure of the source tree: layers, import cycles, names and sizes. Every file is parsed.

mod imports;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::Visit;
use syn::{Item, visit};
use walkdir::WalkDir;

use crate::source_tree::imports::Imports;

/// The modules that each top-level module may import.
const LAYERS: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("clock", &[]),
    ("io_error", &[]),
    ("ownership", &[]),
    ("tls", &["io_error"]),
    ("database", &["io_error", "ownership"]),
    ("connection", &["io_error", "protocol"]),
    ("storage", &["io_error", "ownership", "protocol"]),
    ("accounts", &["database", "io_error", "protocol", "storage"]),
    (
        "messages",
        &[
            "clock",
            "connection",
            "database",
            "io_error",
            "protocol",
            "storage",
        ],
    ),
    ("config", &["io_error", "protocol"]),
    ("telemetry", &["config", "io_error", "ownership"]),
    ("client", &["connection", "io_error", "protocol", "tls"]),
    (
        "server",
        &[
            "accounts",
            "clock",
            "config",
            "connection",
            "io_error",
            "messages",
            "protocol",
            "storage",
            "telemetry",
            "tls",
        ],
    ),
    ("ops", &["io_error", "protocol", "server", "telemetry"]),
    (
        "cli",
        &[
            "accounts",
            "client",
            "config",
            "io_error",
            "messages",
            "ops",
            "protocol",
            "server",
            "storage",
            "telemetry",
            "tls",
        ],
    ),
];

/// The folders with Rust code.
const FOLDERS: [&str; 4] = ["src", "tests", "benches", "fuzz"];

/// The most lines of a file. Lower it when the largest file has been split.
const MAX_LINES: usize = 600;

#[test]
fn no_files_import_each_other_in_a_cycle() {
    let cycles = Imports::of_crate().cycles();
    assert!(cycles.is_empty(), "import cycles:\n{}", cycles.join("\n"));
}

#[test]
fn each_layer_imports_only_the_layers_below_it() {
    let allowed: HashMap<_, _> = LAYERS.iter().copied().collect();
    let mut violations = BTreeSet::new();
    for (from, to, name) in Imports::of_crate().edges() {
        let (Some(layer), Some(imported)) = (from.get(1), to.get(1)) else {
            continue;
        };
        let allowed = allowed
            .get(layer.as_str())
            .unwrap_or_else(|| panic!("the layer of {layer} is not declared"));
        if layer != imported && !allowed.contains(&imported.as_str()) {
            violations.insert(format!("{} imports {name}", from.join("::")));
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn the_storage_boundary_does_not_import_the_embedded_engine() {
    let engine = ["crate", "storage", "local"].map(String::from);
    for (from, to, name) in Imports::of_crate().edges() {
        let is_boundary = from.starts_with(&engine[..2]) && !from.starts_with(&engine);
        assert!(
            !is_boundary || !to.starts_with(&engine),
            "{} imports {name}",
            from.join("::")
        );
    }
}

#[test]
fn no_type_name_is_defined_twice() {
    let mut definitions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in FOLDERS.into_iter().flat_map(source_files) {
        for name in type_names(&file) {
            definitions.entry(name).or_default().push(relative(&file));
        }
    }
    definitions.retain(|_, files| files.len() > 1);
    assert!(definitions.is_empty(), "{definitions:#?}");
}

#[test]
fn no_file_is_too_long() {
    for file in FOLDERS.into_iter().flat_map(source_files) {
        let text = fs::read_to_string(&file).expect("a readable source file");
        let lines = text.lines().count();
        assert!(
            lines <= MAX_LINES,
            "{} has {lines} lines; split it, the limit is {MAX_LINES}",
            relative(&file)
        );
    }
}

#[test]
fn no_file_is_a_collection_of_leftovers() {
    for file in FOLDERS.into_iter().flat_map(source_files) {
        let name = file.file_stem().expect("a file").to_string_lossy();
        let is_collection = ["util", "utils", "common", "helper", "helpers", "misc"];
        assert!(
            !is_collection.contains(&name.as_ref()),
            "{}",
            file.display()
        );
    }
}

/// The Rust files of the repository below `folder`, sorted.
fn source_files(folder: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = WalkDir::new(root.join(folder))
        .into_iter()
        // Build artifacts of the fuzz targets.
        .filter_entry(|entry| entry.file_name() != "target")
        .map(|entry| entry.expect("a readable source tree").into_path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    files.sort();
    files
}

/// `file` as it is named in the repository.
fn relative(file: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = file.strip_prefix(root).expect("a file of the repository");
    path.display().to_string()
}

fn parse(file: &Path) -> syn::File {
    let text = fs::read_to_string(file).expect("a readable source file");
    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Structs, enums, unions, traits and type aliases of a file. Associated types are no names of
/// their own.
fn type_names(file: &Path) -> Vec<String> {
    #[derive(Default)]
    struct TypeNames(Vec<String>);
    impl<'ast> Visit<'ast> for TypeNames {
        fn visit_item(&mut self, item: &'ast Item) {
            match item {
                Item::Struct(item) => self.0.push(item.ident.to_string()),
                Item::Enum(item) => self.0.push(item.ident.to_string()),
                Item::Union(item) => self.0.push(item.ident.to_string()),
                Item::Trait(item) => self.0.push(item.ident.to_string()),
                Item::Type(item) => self.0.push(item.ident.to_string()),
                _ => {}
            }
            visit::visit_item(self, item);
        }
    }
    let mut names = TypeNames::default();
    names.visit_file(&parse(file));
    names.0
}
