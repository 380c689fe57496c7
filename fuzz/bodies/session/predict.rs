//! The model's expectation of each request.

use haul::protocol::{Algorithm, DigestChoice, ErrorCode, IfExists};
use haul::storage::VirtualPath;
use serde_json::{Value, json};

use super::expect::{Expect, Then};
use super::model::{FileModel, ModelNode, Touch};
use super::script::{Ask, PathText, SlotPresence};

/// One level more than a path may have.
const TOO_DEEP: usize = 65;

/// The current directory of a session, and the files that it sees.
pub(crate) struct Predict<'a> {
    pub(crate) tree: &'a FileModel,
    pub(crate) cwd: &'a VirtualPath,
}

impl Predict<'_> {
    /// The request and its expectation; `None` if it is not a request.
    pub(crate) fn ask(&self, ask: &Ask) -> Option<(Value, Expect)> {
        let cwd = self.cwd.as_str();
        let anything = |cmd| (json!({"cmd": cmd}), Expect::new(cmd, Then::Anything));
        Some(match ask {
            Ask::Cd(path) => self.cd(&path.text()),
            Ask::Pwd => {
                let expect = Expect::new("pwd", Then::Is(json!({"cwd": cwd})));
                (json!({"cmd": "pwd"}), expect)
            }
            Ask::Ls(path) => self.ls(path.map(PathText::text).as_deref()),
            Ask::Stat(path) => self.stat(&path.text()),
            Ask::Mkdir(path, parents) => self.mkdir(&path.text(), *parents),
            Ask::Rm(path, recursive) => self.rm(&path.text(), *recursive),
            Ask::Mv(from, to, there) => self.mv(&from.text(), &to.text(), *there),
            Ask::Cp(from, to, there) => self.cp(&from.text(), &to.text(), *there),
            Ask::Hash(path, hash) => {
                let algorithm = hash.map(Algorithm::from);
                self.hash(&path.text(), algorithm)
            }
            Ask::Ping => anything("ping"),
            Ask::Whoami => anything("whoami"),
            Ask::Hello => anything("hello"),
            Ask::Help => anything("help"),
            Ask::Login => {
                let again = json!({"cmd": "login", "user": "free", "password": "?"});
                let expect = Expect::new("login", Then::Anything);
                (again, expect.fails([ErrorCode::BadRequest]))
            }
            Ask::StrayEnd => {
                let expect = Expect::new("end", Then::Anything);
                (json!({"cmd": "end"}), expect.fails([ErrorCode::BadRequest]))
            }
            Ask::Df | Ask::Text(_) => return None,
        })
    }

    pub(crate) fn resolve(&self, text: &str) -> Result<VirtualPath, ErrorCode> {
        self.cwd.resolve(text).map_err(|_| ErrorCode::InvalidPath)
    }

    pub(super) fn look(&self, text: &str) -> Result<(VirtualPath, ModelNode), ErrorCode> {
        let path = self.resolve(text)?;
        let node = self.tree.look(&path)?;
        Ok((path, node))
    }

    /// The expectation of a request `cmd` that reads `text`.
    pub(super) fn reading(&self, cmd: &'static str, text: &str, then: Then) -> Expect {
        let path = self.resolve(text).ok();
        Expect::new(cmd, then).touching(path.as_ref().map(Touch::reads))
    }

    fn cd(&self, text: &str) -> (Value, Expect) {
        let then = self.resolve(text).map_or(Then::Anything, Then::Cd);
        let expect = self.reading("cd", text, then);
        let expect = match self.look(text) {
            Ok((_, ModelNode::Dir)) => expect,
            Ok(_) => expect.fails([ErrorCode::NotADirectory]),
            Err(code) => expect.fails([code]),
        };
        (json!({"cmd": "cd", "path": text}), expect)
    }

    fn ls(&self, text: Option<&str>) -> (Value, Expect) {
        let request = match text {
            Some(text) => json!({"cmd": "ls", "path": text}),
            None => json!({"cmd": "ls"}),
        };
        let text = text.unwrap_or(".");
        let expect = match self.look(text) {
            Ok((path, ModelNode::Dir)) => {
                let then = Then::List(self.tree.list(&path));
                self.reading("ls", text, then)
            }
            Ok(_) => {
                let expect = self.reading("ls", text, Then::Anything);
                expect.fails([ErrorCode::NotADirectory])
            }
            Err(code) => self.reading("ls", text, Then::Anything).fails([code]),
        };
        (request, expect)
    }

    fn stat(&self, text: &str) -> (Value, Expect) {
        let expect = match self.look(text) {
            Ok((path, node)) => {
                let slash = matches!(node, ModelNode::File(_)) && path.as_file().is_err();
                let expect = self.reading("stat", text, Then::Stat(path, node));
                expect.may_fail(slash.then_some(ErrorCode::InvalidPath))
            }
            Err(code) => self.reading("stat", text, Then::Anything).fails([code]),
        };
        (json!({"cmd": "stat", "path": text}), expect)
    }

    fn mkdir(&self, text: &str, parents: bool) -> (Value, Expect) {
        let request = json!({"cmd": "mkdir", "path": text, "parents": parents});
        let path = match self.resolve(text) {
            Ok(path) => path,
            Err(code) => return (request, Expect::new("mkdir", Then::Anything).fails([code])),
        };
        let errors = match (self.tree.look(&path), parents) {
            (Ok(ModelNode::File(_)), true) => vec![ErrorCode::Exists, ErrorCode::NotADirectory],
            (Ok(_), false) => vec![ErrorCode::Exists],
            (Ok(ModelNode::Dir) | Err(ErrorCode::NotFound), true) => vec![],
            (Err(ErrorCode::NotFound), false) => {
                let parent = path.parent().map(|parent| self.tree.look(&parent));
                parent.and_then(Result::err).into_iter().collect()
            }
            (Err(code), _) => vec![code],
        };
        let touch = if parents {
            Touch::writes(&self.tree.first_missing(&path))
        } else {
            Touch::writes(&path)
        };
        let missing = self.tree.missing(&path);
        let holds = (0, if parents { missing } else { missing.min(1) });
        let expect = Expect::new("mkdir", Then::Mkdir(path)).fails(errors);
        let expect = expect.touching([touch]);
        (request, Expect { holds, ..expect })
    }

    fn rm(&self, text: &str, recursive: bool) -> (Value, Expect) {
        let request = json!({"cmd": "rm", "path": text, "recursive": recursive});
        let expect = match self.look(text) {
            Err(code) => {
                let touch = self.resolve(text).ok().as_ref().map(Touch::writes);
                Expect::new("rm", Then::Anything)
                    .touching(touch)
                    .fails([code])
            }
            Ok((path, node)) => {
                let expect =
                    Expect::new("rm", Then::Rm(path.clone())).touching([Touch::writes(&path)]);
                let is_file = matches!(node, ModelNode::File(_));
                if path.name().is_none() {
                    expect.fails([ErrorCode::Denied])
                } else if is_file && path.as_file().is_err() {
                    expect.fails([ErrorCode::InvalidPath])
                } else if !recursive && !self.tree.list(&path).is_empty() {
                    expect.fails([ErrorCode::NotEmpty])
                } else {
                    expect
                }
            }
        };
        (request, expect)
    }

    fn mv(&self, from: &str, to: &str, there: Option<SlotPresence>) -> (Value, Expect) {
        let (request, if_exists) = transfer("mv", from, to, there);
        let (from, to, source) = match self.source_and_target(from, to) {
            Ok(found) => found,
            Err(expect) => {
                return (
                    request,
                    Expect {
                        cmd: "mv",
                        ..*expect
                    },
                );
            }
        };
        let is_dir = source == ModelNode::Dir;
        let in_place = from == to && if_exists == IfExists::Replace;
        let mut errors = Vec::new();
        if from.name().is_none() || to.name().is_none() {
            errors.push(ErrorCode::Denied);
        }
        if !is_dir && (from.as_file().is_err() || to.as_file().is_err()) {
            errors.push(ErrorCode::InvalidPath);
        }
        if !in_place {
            errors.extend(self.move_errors(&from, &to, is_dir, if_exists));
        }
        let landing = self.tree.publish(&to, is_dir, if_exists);
        let touches = [
            Touch::writes(&from),
            self.tree.publish_touch(&to, if_exists, false),
        ];
        let expect = Expect::new("mv", Then::Mv(from, landing));
        (request, expect.touching(touches).fails(errors))
    }

    fn cp(&self, from: &str, to: &str, there: Option<SlotPresence>) -> (Value, Expect) {
        let (request, if_exists) = transfer("cp", from, to, there);
        let (from, to, source) = match self.source_and_target(from, to) {
            Ok(found) => found,
            Err(expect) => {
                return (
                    request,
                    Expect {
                        cmd: "cp",
                        ..*expect
                    },
                );
            }
        };
        let is_dir = source == ModelNode::Dir;
        let mut errors = self.move_errors(&from, &to, is_dir, if_exists);
        if to.name().is_none() {
            errors.push(ErrorCode::Denied);
        }
        let slash = (!is_dir && from.as_file().is_err()).then_some(ErrorCode::InvalidPath);
        let landing = self.tree.publish(&to, is_dir, if_exists);
        let touches = [
            Touch::reads(&from),
            self.tree.publish_touch(&to, if_exists, false),
        ];
        let holds = self.tree.below(&from).usage();
        let expect = Expect::new("cp", Then::Cp(from, landing));
        let expect = expect.touching(touches).fails(errors).may_fail(slash);
        (request, Expect { holds, ..expect })
    }

    /// The two paths and the entry at the first, or the expectation if one of them is invalid.
    fn source_and_target(
        &self,
        from: &str,
        to: &str,
    ) -> Result<(VirtualPath, VirtualPath, ModelNode), Box<Expect>> {
        let (source, target) = (self.resolve(from), self.resolve(to));
        let mut errors: Vec<_> = [source.as_ref().err(), target.as_ref().err()]
            .into_iter()
            .flatten()
            .copied()
            .collect();
        let paths = [source.as_ref().ok(), target.as_ref().ok()];
        let touches: Vec<_> = paths.into_iter().flatten().map(Touch::writes).collect();
        if let (Ok(from), Ok(to)) = (source, target) {
            match self.tree.look(&from) {
                Ok(node) => return Ok((from, to, node)),
                Err(code) => errors.push(code),
            }
            // The request is refused for one of the two reasons.
            errors.extend(to.name().is_none().then_some(ErrorCode::Denied));
        }
        let expect = Expect::new("", Then::Anything);
        Err(Box::new(expect.touching(touches).fails(errors)))
    }

    /// The errors that may prevent a move from `from` to `to`.
    fn move_errors(
        &self,
        from: &VirtualPath,
        to: &VirtualPath,
        is_dir: bool,
        if_exists: IfExists,
    ) -> Vec<ErrorCode> {
        let mut errors = self.tree.publish_errors(to, is_dir, if_exists, false);
        let levels = |path: &VirtualPath| path.components().count();
        let deepest = self.tree.below(from).deepest();
        let too_deep = deepest.saturating_sub(levels(from)) + levels(to) >= TOO_DEEP;
        if is_dir && (from != to && to.starts_with(from) || too_deep) {
            errors.push(ErrorCode::InvalidPath);
        }
        errors
    }

    fn hash(&self, text: &str, algorithm: Option<Algorithm>) -> (Value, Expect) {
        let mut request = json!({"cmd": "hash", "path": text});
        if let Some(algorithm) = algorithm {
            request["digest"] = algorithm.name().into();
        }
        let expect = match self.look(text) {
            Ok((path, ModelNode::File(content))) => {
                let then = Then::Hash(content, algorithm.unwrap_or_default());
                let slash = path.as_file().is_err().then_some(ErrorCode::InvalidPath);
                self.reading("hash", text, then).may_fail(slash)
            }
            Ok(_) => {
                let expect = self.reading("hash", text, Then::Anything);
                expect.fails([ErrorCode::IsADirectory])
            }
            Err(code) => self.reading("hash", text, Then::Anything).fails([code]),
        };
        (request, expect)
    }

    pub(crate) fn get(
        &self,
        text: &str,
        (offset, length): (Option<u64>, Option<u64>),
        digest: Option<DigestChoice>,
    ) -> (Value, Expect) {
        let mut request = json!({"cmd": "get", "path": text});
        if let Some(offset) = offset {
            request["offset"] = offset.into();
        }
        if let Some(length) = length {
            request["length"] = length.into();
        }
        if let Some(digest) = digest {
            request["digest"] = json!(digest);
        }
        let offset = offset.unwrap_or(0);
        let expect = match self.look(text) {
            Ok((path, ModelNode::File(content))) => {
                let slash = path.as_file().is_err().then_some(ErrorCode::InvalidPath);
                let past = offset > content.len() as u64;
                let then = Then::Get {
                    content,
                    offset,
                    length,
                    digest: match digest {
                        None => Some(Algorithm::default()),
                        Some(DigestChoice::Of(algorithm)) => Some(algorithm),
                        Some(DigestChoice::None(_)) => None,
                    },
                };
                let past = past.then_some(ErrorCode::BadRequest);
                self.reading("get", text, then).fails(past).may_fail(slash)
            }
            Ok(_) => {
                let expect = self.reading("get", text, Then::Anything);
                expect.fails([ErrorCode::IsADirectory])
            }
            Err(code) => self.reading("get", text, Then::Anything).fails([code]),
        };
        (request, expect)
    }
}

fn transfer(cmd: &str, from: &str, to: &str, there: Option<SlotPresence>) -> (Value, IfExists) {
    let mut request = json!({"cmd": cmd, "from": from, "to": to});
    if let Some(there) = there {
        request["if_exists"] = json!(IfExists::from(there));
    }
    let if_exists = there.map_or(IfExists::Fail, IfExists::from);
    (request, if_exists)
}
