//! The next operation of a session.

use super::model::{Change, PlannedEnding, PlannedUpload, TreeNode, UploadContent};
use super::session::ModelSession;
use crate::random::Chance;

impl ModelSession {
    pub(super) fn put(&mut self) -> PlannedUpload {
        let parents = self.chance.one_in(8);
        let mut dir = self.some_dir();
        if parents {
            let (a, b) = (self.chance.below(3), self.chance.below(2));
            dir = format!("{dir}/p{a}/q{b}");
        }
        PlannedUpload {
            path: format!("{dir}/f{}.bin", self.chance.below(6)),
            content: self.content(),
            if_exists: self.if_exists(),
            parents: parents || self.chance.one_in(10),
            ending: match self.chance.below(20) {
                0 => PlannedEnding::WrongDigest,
                1 => PlannedEnding::TooShort,
                2 => PlannedEnding::Cancel,
                _ => PlannedEnding::Right,
            },
            resume: false,
        }
    }

    /// Two puts to different files.
    pub(super) fn two_puts(&mut self) -> [PlannedUpload; 2] {
        let dir = self.some_dir();
        ["left", "right"].map(|name| self.plain_put(format!("{dir}/{name}.bin")))
    }

    /// An upload that will be interrupted and resumed.
    pub(super) fn put_to_abandon(&mut self, name: &str) -> PlannedUpload {
        let path = format!("{}/{name}.bin", self.some_dir());
        // Few different lengths, so that uploads often have the same path and length.
        let length = *self.chance.pick(&[70_000, 200_000, 470_000]);
        PlannedUpload {
            resume: true,
            content: self.content_of(length),
            ..self.plain_put(path)
        }
    }

    fn plain_put(&mut self, path: String) -> PlannedUpload {
        PlannedUpload {
            path,
            content: self.content(),
            if_exists: "replace",
            parents: false,
            ending: PlannedEnding::Right,
            resume: false,
        }
    }

    pub(super) fn small_change(&mut self) -> Change {
        let some = |tree: Vec<String>, chance: &mut Chance| {
            (!tree.is_empty()).then(|| chance.pick(&tree).clone())
        };
        let dir = self.some_dir();
        let file = some(self.files(), &mut self.chance);
        let movable = some(self.inner_dirs(), &mut self.chance);
        let if_exists = self.if_exists();
        let to = format!("{dir}/f{}.bin", self.chance.below(6));
        match (self.chance.below(8), file, movable) {
            (0, _, _) => Change::MakeDir {
                path: format!("{dir}/d{}", self.chance.below(3)),
                parents: false,
            },
            (1, _, _) => Change::MakeDir {
                path: format!("{dir}/p{}/q0", self.chance.below(3)),
                parents: true,
            },
            (2 | 3, Some(from), _) if from != to => Change::Move {
                from,
                to,
                if_exists,
            },
            (4, Some(from), _) if from != to => Change::Copy {
                from,
                to,
                if_exists,
            },
            (5, _, Some(from)) if !dir.starts_with(&from) => Change::Move {
                to: format!("{dir}/m{}", self.chance.below(2)),
                from,
                if_exists: "rename",
            },
            (6, _, Some(from)) if !dir.starts_with(&from) => Change::Copy {
                to: format!("{dir}/c{}", self.chance.below(2)),
                from,
                if_exists: "rename",
            },
            _ => self.removal(),
        }
    }

    pub(super) fn removal(&mut self) -> Change {
        let mut paths = self.files();
        if self.chance.one_in(3) {
            paths = self.inner_dirs();
        }
        if paths.is_empty() {
            let path = self.some_dir();
            return Change::MakeDir {
                path,
                parents: true,
            };
        }
        let path = self.chance.pick(&paths).clone();
        Change::Remove { path }
    }

    fn if_exists(&mut self) -> &'static str {
        match self.chance.below(5) {
            0 => "fail",
            1 => "rename",
            _ => "replace",
        }
    }

    pub(super) fn content(&mut self) -> UploadContent {
        let length = match self.chance.below(40) {
            0..3 => 0,
            3..15 => self.chance.below(100),
            15..33 => self.chance.below(65_537),
            33..35 => 131_071 + self.chance.below(3),
            35..39 => self.chance.below(400_000),
            _ => self.chance.below(4 << 20),
        };
        self.content_of(length)
    }

    fn content_of(&mut self, length: u64) -> UploadContent {
        UploadContent::new(self.chance.bytes(length))
    }

    pub(super) fn files(&self) -> Vec<String> {
        let files = self.tree.iter().filter(|(_, node)| **node != TreeNode::Dir);
        files.map(|(path, _)| path.clone()).collect()
    }

    fn dirs(&self) -> Vec<String> {
        let dirs = self.tree.iter().filter(|(_, node)| **node == TreeNode::Dir);
        dirs.map(|(path, _)| path.clone()).collect()
    }

    /// All directories but the session's roots.
    fn inner_dirs(&self) -> Vec<String> {
        let mut dirs = self.dirs();
        dirs.retain(|dir| !self.roots.contains(dir));
        dirs
    }

    /// A directory that is not deep, so that the tree does not grow without bound.
    fn some_dir(&mut self) -> String {
        let mut dirs = self.dirs();
        dirs.retain(|dir| dir.matches('/').count() < 5);
        self.chance.pick(&dirs).clone()
    }
}
