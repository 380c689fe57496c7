//! The imports between the files of the crate.
//!
//! An import is a path in the code outside tests, followed through re-exports to the file that
//! defines the item. `mod` declarations and re-exports are not imports.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::Visit;
use syn::{Attribute, Item, UseTree, visit};

use crate::source_tree::{parse, source_files};

/// A path in the code, from the crate's root: `["crate", "protocol", "Frame"]`.
pub(super) type ModulePath = Vec<String>;

/// One file, as far as imports are concerned.
#[derive(Default)]
struct SourceFile {
    module: ModulePath,
    /// Modules inside the file that enclose what is visited now.
    inline_modules: Vec<String>,
    /// Items that the file defines at its top.
    items: HashSet<String>,
    /// The item that a name in this file stands for, re-exports included.
    names: HashMap<String, ModulePath>,
    imports: BTreeSet<ModulePath>,
    /// Paths in code whose first segment may be a module that was imported.
    relative: BTreeSet<ModulePath>,
}

impl SourceFile {
    fn read(file: &Path, module: ModulePath) -> Self {
        let mut source = Self {
            module,
            ..Self::default()
        };
        source.visit_file(&parse(file));
        source
    }

    /// `path` from the crate's root, if it says so itself.
    fn absolute(&self, path: &[String]) -> Option<ModulePath> {
        let supers = path
            .iter()
            .take_while(|segment| *segment == "super")
            .count();
        let mut base = self.module.clone();
        base.extend(self.inline_modules.iter().cloned());
        match path.first()?.as_str() {
            "crate" => return Some(path.to_vec()),
            "self" => base.extend_from_slice(&path[1..]),
            "super" => {
                base.truncate(base.len().checked_sub(supers)?);
                base.extend_from_slice(&path[supers..]);
            }
            _ => return None,
        }
        Some(base)
    }

    fn add(&mut self, path: ModulePath) {
        match self.absolute(&path) {
            Some(absolute) => self.imports.insert(absolute),
            None => path.len() > 1 && self.relative.insert(path),
        };
    }

    fn add_use(&mut self, tree: &UseTree, prefix: &[String], is_exported: bool) {
        let mut path = prefix.to_vec();
        let name = match tree {
            UseTree::Path(tree) => {
                path.push(tree.ident.to_string());
                return self.add_use(&tree.tree, &path, is_exported);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_use(tree, prefix, is_exported);
                }
                return;
            }
            UseTree::Name(tree) if tree.ident == "self" => path.last().cloned(),
            UseTree::Name(tree) => {
                path.push(tree.ident.to_string());
                Some(tree.ident.to_string())
            }
            UseTree::Rename(tree) => {
                if tree.ident != "self" {
                    path.push(tree.ident.to_string());
                }
                Some(tree.rename.to_string())
            }
            UseTree::Glob(_) => None,
        };
        let path = self.absolute(&path).unwrap_or(path);
        if let Some(name) = name
            && self.inline_modules.is_empty()
        {
            self.names.insert(name, path.clone());
        }
        if !is_exported {
            self.add(path);
        }
    }

    /// Paths in the arguments of a macro, which are not parsed.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.add_path(std::mem::take(&mut path));
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.add_path(std::mem::take(&mut path));
                    self.add_tokens(group.stream());
                }
                _ => self.add_path(std::mem::take(&mut path)),
            }
        }
        self.add_path(path);
    }

    fn add_path(&mut self, path: ModulePath) {
        if path.len() > 1 {
            self.add(path);
        }
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute
                    .parse_args::<syn::Path>()
                    .is_ok_and(|path| path.is_ident("test"))
    })
}

impl<'ast> Visit<'ast> for SourceFile {
    fn visit_item(&mut self, item: &'ast Item) {
        let (attributes, name) = match item {
            Item::Const(item) => (&item.attrs, Some(&item.ident)),
            Item::Enum(item) => (&item.attrs, Some(&item.ident)),
            Item::Fn(item) => (&item.attrs, Some(&item.sig.ident)),
            Item::Macro(item) => (&item.attrs, item.ident.as_ref()),
            Item::Static(item) => (&item.attrs, Some(&item.ident)),
            Item::Struct(item) => (&item.attrs, Some(&item.ident)),
            Item::Trait(item) => (&item.attrs, Some(&item.ident)),
            Item::Type(item) => (&item.attrs, Some(&item.ident)),
            Item::Impl(item) => (&item.attrs, None),
            Item::Use(item) => (&item.attrs, None),
            Item::Mod(item) => (&item.attrs, None),
            _ => return visit::visit_item(self, item),
        };
        if is_for_tests(attributes) {
            return;
        }
        if let Some(name) = name
            && self.inline_modules.is_empty()
        {
            self.items.insert(name.to_string());
        }
        match item {
            Item::Use(item) => {
                let is_exported = !matches!(item.vis, syn::Visibility::Inherited);
                self.add_use(&item.tree, &[], is_exported);
            }
            Item::Mod(module) => {
                self.inline_modules.push(module.ident.to_string());
                visit::visit_item_mod(self, module);
                self.inline_modules.pop();
            }
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter();
        self.add_path(segments.map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.add_tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }
}

/// All files of the crate and what they import.
pub(super) struct Imports {
    files: HashMap<ModulePath, SourceFile>,
}

impl Imports {
    pub(super) fn of_crate() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = HashMap::new();
        for file in source_files("src") {
            let relative = file
                .strip_prefix(&root)
                .expect("below src")
                .with_extension("");
            let mut module = vec!["crate".to_string()];
            module.extend(
                relative
                    .iter()
                    .map(|part| part.to_string_lossy().into_owned()),
            );
            let last = module.last().map(String::as_str);
            let is_test = module.iter().any(|part| {
                part == "tests" || part.ends_with("_tests") || part.ends_with("_model")
            });
            if last == Some("main") || is_test {
                continue;
            }
            if last == Some("mod") || last == Some("lib") {
                module.pop();
            }
            files.insert(module.clone(), SourceFile::read(&file, module));
        }
        Self { files }
    }

    /// The file that `path` leads to: the longest prefix that is a file, re-exports followed.
    fn resolve(&self, path: &[String], redirects: usize) -> Option<ModulePath> {
        let length = (1..=path.len())
            .rev()
            .find(|length| self.files.contains_key(&path[..*length]))?;
        let file = &self.files[&path[..length]];
        if let Some(name) = path.get(length)
            && !file.items.contains(name)
            && let Some(target) = file.names.get(name)
            && target.first().is_some_and(|first| first == "crate")
            && redirects < 8
        {
            let path = [target.as_slice(), &path[length + 1..]].concat();
            return self.resolve(&path, redirects + 1);
        }
        Some(file.module.clone())
    }

    /// The imports: the importing file, the imported file, and the path in the code.
    pub(super) fn edges(&self) -> Vec<(ModulePath, ModulePath, String)> {
        let mut edges = BTreeSet::new();
        for file in self.files.values() {
            let relative = file.relative.iter().filter_map(|path| {
                let mut child = file.module.clone();
                child.push(path[0].clone());
                let base = match file.names.get(&path[0]) {
                    Some(name) if name[0] == "crate" => name.clone(),
                    _ if self.files.contains_key(&child) => child,
                    _ => return None,
                };
                Some([base.as_slice(), &path[1..]].concat())
            });
            for path in file.imports.iter().cloned().chain(relative) {
                // A module that is imported by name counts where its items are used.
                if self.files.contains_key(&path) {
                    continue;
                }
                if let Some(target) = self.resolve(&path, 0)
                    && target != file.module
                    && target.len() > 1
                {
                    edges.insert((file.module.clone(), target, path.join("::")));
                }
            }
        }
        edges.into_iter().collect()
    }

    /// Every import that lies on a cycle.
    pub(super) fn cycles(&self) -> Vec<String> {
        let edges = self.edges();
        let mut targets: HashMap<&ModulePath, Vec<&ModulePath>> = HashMap::new();
        for (from, to, _) in &edges {
            targets.entry(from).or_default().push(to);
        }
        let reaches = |start: &ModulePath, goal: &ModulePath| {
            let mut seen = HashSet::new();
            let mut queue = vec![start];
            while let Some(module) = queue.pop() {
                if module == goal {
                    return true;
                }
                if seen.insert(module) {
                    queue.extend(targets.get(module).into_iter().flatten());
                }
            }
            false
        };
        edges
            .iter()
            .filter(|(from, to, _)| reaches(to, from))
            .map(|(from, _, name)| format!("{} imports {name}", from.join("::")))
            .collect()
    }
}
