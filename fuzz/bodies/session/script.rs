//! The actions of a client in one session, made from any bytes: a few bytes for the session, then a
//! few for each step. A changed byte is a changed step.

use haul::protocol::{Algorithm, DigestChoice, IfExists};

/// One session of one client.
#[derive(Debug)]
pub(crate) struct Script {
    /// Whether the user has a small quota.
    pub(crate) tight: bool,
    /// Whether the outcome of a request may depend on others that still run.
    pub(crate) racy: bool,
    /// The capacity of the pipe, as a power of two from 8 on.
    pub(crate) pipe: u8,
    pub(crate) ending: SessionEnding,
    pub(crate) steps: Vec<ScriptStep>,
}

impl Script {
    /// The most steps; more steps find nothing new.
    const MAX_STEPS: usize = 150;

    /// Makes a script from any bytes.
    pub(crate) fn read(input: &[u8]) -> Self {
        let mut bytes = Bytes(input);
        let mut script = Self {
            tight: bytes.flag(),
            racy: bytes.flag(),
            pipe: bytes.next(),
            ending: match bytes.next() % 8 {
                0..=4 => SessionEnding::Quit,
                5 => SessionEnding::HalfClose,
                6 => SessionEnding::Truncate,
                _ => SessionEnding::Vanish,
            },
            steps: Vec::new(),
        };
        while !bytes.0.is_empty() && script.steps.len() < Self::MAX_STEPS {
            script.steps.extend(bytes.steps());
        }
        script
    }
}

/// How the session ends, if none of its steps ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionEnding {
    /// With `quit`.
    Quit,
    /// The client closes its sending half and reads to the end.
    HalfClose,
    /// In the middle of a frame.
    Truncate,
    /// The client disconnects.
    Vanish,
}

#[derive(Debug)]
pub(crate) enum ScriptStep {
    Ask(Ask),
    Put(PutStep),
    Data {
        slot: Slot,
        length: u16,
        fill: u8,
        /// Send more than the declared size, if there is one.
        over: bool,
    },
    End {
        slot: Slot,
        digest: EndDigest,
    },
    Get {
        path: PathText,
        offset: Option<u16>,
        length: Option<u16>,
        digest: Option<WantedDigest>,
    },
    /// A range of the base of a put.
    Copy {
        slot: Slot,
        offset: u16,
        length: u16,
    },
    Chunks(PathText),
    /// A get of two ranges.
    Ranges {
        path: PathText,
        first: (u16, u16),
        gap: u16,
        length: u16,
        digest: Option<WantedDigest>,
    },
    Cancel(CancelTarget),
    /// Wait for all replies that need no further action.
    Settle,
    /// Write at most this many bytes at a time from now on.
    Cut(u8),
    Bad(Bad),
}

/// A request that has one reply and no data.
#[derive(Debug)]
pub(crate) enum Ask {
    Cd(PathText),
    Pwd,
    Ls(Option<PathText>),
    Stat(PathText),
    Mkdir(PathText, bool),
    Rm(PathText, bool),
    Mv(PathText, PathText, Option<SlotPresence>),
    Cp(PathText, PathText, Option<SlotPresence>),
    Hash(PathText, Option<HashAlgorithm>),
    Df,
    Ping,
    Whoami,
    Hello,
    Help,
    Login,
    /// An `end` without a put.
    StrayEnd,
    /// A JSON object of the script, possibly malformed.
    Text(String),
}

#[derive(Debug)]
pub(crate) struct PutStep {
    pub(crate) slot: Slot,
    pub(crate) path: PathText,
    pub(crate) size: Option<u16>,
    pub(crate) if_exists: Option<SlotPresence>,
    pub(crate) parents: bool,
    pub(crate) digest: Option<HashAlgorithm>,
    /// Reuse the `id` of a put that waits for its `end`.
    pub(crate) second: bool,
    /// Name the replaced file as the base of copies.
    pub(crate) base: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum EndDigest {
    /// An empty data frame in place of `end`.
    EmptyFrame,
    None,
    Right(HashAlgorithm),
    Wrong(HashAlgorithm),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum CancelTarget {
    Slot(Slot),
    LastRequest,
    Nothing,
}

/// Invalid frames.
#[derive(Debug)]
pub(crate) enum Bad {
    Empty,
    TooLong(u32),
    Mark(u8, u8),
    NoStream(u8),
    Stray,
}

/// One of the client's slots for puts that wait for their `end`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot(u8);

impl Slot {
    pub(crate) const COUNT: usize = 4;

    pub(crate) fn index(self) -> usize {
        usize::from(self.0) % Self::COUNT
    }
}

/// A path from a small set, so that requests often name the same entries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PathText(u8);

impl PathText {
    pub(crate) fn text(self) -> String {
        const TEXTS: [&str; 32] = [
            "a",
            "b",
            "c.x",
            "/a",
            "/b",
            "/c.x",
            "a/a",
            "a/b",
            "/a/a",
            "/a/b",
            "/b/a",
            "a/b/c.x",
            "/a/b/c.x",
            "/b/b/b/b",
            "a/",
            "/b/",
            "/a/b/",
            "/",
            ".",
            "..",
            "../a",
            "../b/a",
            "a/..",
            "a/./b",
            "//b//a",
            "a (1)",
            "/c (1).x",
            "\u{e4}\u{1f980}",
            "",
            "a\u{7}",
            "b\u{202e}",
            "LONG",
        ];
        match TEXTS[usize::from(self.0) % TEXTS.len()] {
            "LONG" => "x".repeat(256),
            text => text.to_owned(),
        }
    }
}

/// The bytes from which a script is made.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    /// The next byte, 0 after the last.
    fn next(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u16 {
        u16::from_be_bytes([self.next(), self.next()])
    }

    fn flag(&mut self) -> bool {
        self.next() % 2 == 1
    }

    /// A value in one case of two.
    fn maybe<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| read(self))
    }

    fn slot(&mut self) -> Slot {
        Slot(self.next())
    }

    fn path(&mut self) -> PathText {
        PathText(self.next())
    }

    fn there(&mut self) -> Option<SlotPresence> {
        match self.next() % 4 {
            0 => None,
            1 => Some(SlotPresence::Replace),
            2 => Some(SlotPresence::Fail),
            _ => Some(SlotPresence::Rename),
        }
    }

    fn hash(&mut self) -> HashAlgorithm {
        match self.next() % 3 {
            0 => HashAlgorithm::Blake3,
            1 => HashAlgorithm::Sha256,
            _ => HashAlgorithm::Md5,
        }
    }

    fn end_digest(&mut self) -> EndDigest {
        match self.next() % 8 {
            0..=2 => EndDigest::None,
            3..=4 => EndDigest::EmptyFrame,
            5..=6 => EndDigest::Right(self.hash()),
            _ => EndDigest::Wrong(self.hash()),
        }
    }

    fn bad(&mut self) -> Bad {
        match self.next() % 5 {
            0 => Bad::Empty,
            1 => Bad::TooLong(u32::from(self.number()) << 16),
            2 => Bad::Mark(self.next(), self.next()),
            3 => Bad::NoStream(self.next()),
            _ => Bad::Stray,
        }
    }

    fn text(&mut self) -> String {
        let length = usize::from(self.next() % 64).min(self.0.len());
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        String::from_utf8_lossy(text).into_owned()
    }

    fn ask(&mut self) -> Ask {
        match self.next() % 32 {
            0..=1 => Ask::Cd(self.path()),
            2 => Ask::Pwd,
            3..=5 => Ask::Ls(self.maybe(Self::path)),
            6..=8 => Ask::Stat(self.path()),
            9..=12 => Ask::Mkdir(self.path(), self.flag()),
            13..=15 => Ask::Rm(self.path(), self.flag()),
            16..=18 => Ask::Mv(self.path(), self.path(), self.there()),
            19..=21 => Ask::Cp(self.path(), self.path(), self.there()),
            22..=23 => Ask::Hash(self.path(), self.maybe(Self::hash)),
            24..=25 => Ask::Df,
            26 => Ask::Ping,
            27 => Ask::Whoami,
            28 => Ask::Hello,
            29 => match self.next() % 3 {
                0 => Ask::Help,
                1 => Ask::Login,
                _ => Ask::StrayEnd,
            },
            _ => Ask::Text(self.text()),
        }
    }

    fn wanted_digest(&mut self) -> Option<WantedDigest> {
        self.maybe(|bytes| match bytes.maybe(Self::hash) {
            Some(hash) => WantedDigest::Of(hash),
            None => WantedDigest::None,
        })
    }

    fn copy(&mut self, slot: Slot) -> ScriptStep {
        ScriptStep::Copy {
            slot,
            offset: self.number(),
            length: self.number(),
        }
    }

    fn ranges(&mut self) -> ScriptStep {
        ScriptStep::Ranges {
            path: self.path(),
            first: (u16::from(self.next()) * 8, self.number() / 16),
            gap: u16::from(self.next()),
            length: self.number() / 16,
            digest: self.wanted_digest(),
        }
    }

    /// A put, and a second put that copies parts of it and adds some bytes.
    fn delta_put(&mut self) -> Vec<ScriptStep> {
        let mut steps = Vec::from(self.complete_put());
        let ScriptStep::Put(first) = &steps[0] else {
            return steps;
        };
        let second = PutStep {
            slot: first.slot,
            path: first.path,
            size: None,
            if_exists: None,
            parents: false,
            digest: self.maybe(Self::hash),
            second: false,
            base: true,
        };
        let slot = second.slot;
        steps.extend([ScriptStep::Settle, ScriptStep::Put(second), self.copy(slot)]);
        steps.push(ScriptStep::Data {
            slot,
            length: u16::from(self.next()),
            fill: self.next(),
            over: false,
        });
        steps.push(self.copy(slot));
        let digest = self.end_digest();
        steps.push(ScriptStep::End { slot, digest });
        steps
    }

    fn put(&mut self) -> PutStep {
        let mut put = self.plain_put();
        let kind = self.next();
        (put.second, put.base) = (kind % 2 == 1, kind % 4 >= 2);
        put
    }

    /// A put without variations.
    fn plain_put(&mut self) -> PutStep {
        PutStep {
            slot: self.slot(),
            path: self.path(),
            size: self.maybe(Self::number),
            if_exists: self.there(),
            parents: self.flag(),
            digest: self.maybe(Self::hash),
            second: false,
            base: false,
        }
    }

    /// A put with all its data and its `end`.
    fn complete_put(&mut self) -> [ScriptStep; 3] {
        let put = self.put();
        let slot = put.slot;
        let length = put.size.unwrap_or(u16::from(self.next()) * 16);
        let data = ScriptStep::Data {
            slot,
            length,
            fill: self.next(),
            over: false,
        };
        let digest = self.end_digest();
        [ScriptStep::Put(put), data, ScriptStep::End { slot, digest }]
    }

    fn steps(&mut self) -> Vec<ScriptStep> {
        match self.next() % 32 {
            0..=6 => self.complete_put().into(),
            7..=8 => vec![ScriptStep::Put(self.put())],
            9..=12 => vec![ScriptStep::Data {
                slot: self.slot(),
                length: self.number(),
                fill: self.next(),
                over: self.next() == 255,
            }],
            13..=14 => vec![ScriptStep::End {
                slot: self.slot(),
                digest: self.end_digest(),
            }],
            15..=17 => vec![ScriptStep::Get {
                path: self.path(),
                offset: self.maybe(Self::number),
                length: self.maybe(Self::number),
                digest: self.wanted_digest(),
            }],
            18 => vec![ScriptStep::Cancel(match self.next() % 4 {
                0..=1 => CancelTarget::Slot(self.slot()),
                2 => CancelTarget::LastRequest,
                _ => CancelTarget::Nothing,
            })],
            19 => vec![ScriptStep::Settle],
            20 => vec![ScriptStep::Cut(self.next())],
            21 if self.next() > 240 => vec![ScriptStep::Bad(self.bad())],
            28 => self.delta_put(),
            29 => {
                let slot = self.slot();
                vec![self.copy(slot)]
            }
            30 => vec![ScriptStep::Chunks(self.path())],
            31 => vec![self.ranges()],
            _ => vec![ScriptStep::Ask(self.ask())],
        }
    }
}

/// The action if an entry exists.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SlotPresence {
    Replace,
    Fail,
    Rename,
}

impl From<SlotPresence> for IfExists {
    fn from(there: SlotPresence) -> Self {
        match there {
            SlotPresence::Replace => Self::Replace,
            SlotPresence::Fail => Self::Fail,
            SlotPresence::Rename => Self::Rename,
        }
    }
}

/// The digest that a get requests.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WantedDigest {
    None,
    Of(HashAlgorithm),
}

impl From<WantedDigest> for DigestChoice {
    fn from(wanted: WantedDigest) -> Self {
        match wanted {
            WantedDigest::None => Self::NONE,
            WantedDigest::Of(hash) => Self::Of(hash.into()),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum HashAlgorithm {
    Blake3,
    Sha256,
    Md5,
}

impl From<HashAlgorithm> for Algorithm {
    fn from(hash: HashAlgorithm) -> Self {
        match hash {
            HashAlgorithm::Blake3 => Self::Blake3,
            HashAlgorithm::Sha256 => Self::Sha256,
            HashAlgorithm::Md5 => Self::Md5,
        }
    }
}
