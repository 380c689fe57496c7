//! The steps of the inbox model and their random sequences.

use proptest::prelude::*;

use crate::messages::inbox_model::{ROOMS, USERS};

#[derive(Debug, Clone)]
pub(super) enum InboxStep {
    Say {
        from: usize,
        to: usize,
    },
    SayInRoom {
        from: usize,
        room: usize,
    },
    Join {
        user: usize,
        room: usize,
    },
    Leave {
        user: usize,
        room: usize,
    },
    Offer {
        from: usize,
        to: usize,
        days: u32,
    },
    Decline {
        offer: usize,
    },
    /// A session receives everything in the inbox.
    Receive {
        user: usize,
        brings_position: bool,
    },
    /// A session subscribes, reads nothing and ends.
    ConnectWithoutReading {
        user: usize,
    },
    /// The user is removed, and a new user gets the name.
    ReuseName {
        user: usize,
    },
    Crash,
    Backup,
    Restore,
    SetWall {
        year: u16,
    },
    Wait {
        days: u32,
    },
    Prune {
        days: u32,
        most: u64,
    },
    FillDisk,
    FreeDisk,
}

pub(super) fn steps() -> impl Strategy<Value = Vec<InboxStep>> {
    let user = || 0..USERS;
    let room = || 0..ROOMS;
    let step = prop_oneof![
        6 => (user(), user()).prop_map(|(from, to)| InboxStep::Say { from, to }),
        6 => (user(), room()).prop_map(|(from, room)| InboxStep::SayInRoom { from, room }),
        4 => (user(), room()).prop_map(|(user, room)| InboxStep::Join { user, room }),
        2 => (user(), room()).prop_map(|(user, room)| InboxStep::Leave { user, room }),
        3 => (user(), user(), 1..9_u32).prop_map(|(from, to, days)| InboxStep::Offer { from, to, days }),
        1 => (0..9_usize).prop_map(|offer| InboxStep::Decline { offer }),
        4 => (user(), any::<bool>())
            .prop_map(|(user, brings_position)| InboxStep::Receive { user, brings_position }),
        1 => user().prop_map(|user| InboxStep::ConnectWithoutReading { user }),
        1 => user().prop_map(|user| InboxStep::ReuseName { user }),
        2 => Just(InboxStep::Crash),
        1 => Just(InboxStep::Backup),
        1 => Just(InboxStep::Restore),
        2 => (1970..2099_u16).prop_map(|year| InboxStep::SetWall { year }),
        2 => (1..5_u32).prop_map(|days| InboxStep::Wait { days }),
        3 => (1..9_u32, 3..30_u64).prop_map(|(days, most)| InboxStep::Prune { days, most }),
        1 => Just(InboxStep::FillDisk),
        2 => Just(InboxStep::FreeDisk),
    ];
    prop::collection::vec(step, 1..60)
}
