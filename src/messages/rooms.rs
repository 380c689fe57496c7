//! The members of rooms, in memory as in the database. A room exists as long as it has members.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::messages::error::MessagesError;
use crate::messages::recipient::UserRef;
use crate::messages::room::RoomName;
use crate::protocol::MembersReply;

/// The most members of a room.
const MAX_MEMBERS: usize = 1000;

/// The most rooms that a user can be in.
const MAX_ROOMS_PER_USER: usize = 100;

/// The names of a room's members by user id. A message keeps the members at its time.
pub(crate) type RoomMembers = Arc<BTreeMap<i64, Arc<str>>>;

/// The rooms with their members.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    members: HashMap<RoomName, RoomMembers>,
    /// The number of rooms of each user.
    rooms_of: HashMap<i64, usize>,
}

/// A change that can be undone.
#[derive(Debug)]
pub(crate) enum RoomChange {
    Joined(RoomName, UserRef),
    Left(RoomName, UserRef),
}

impl Rooms {
    /// The members of `room`. Fails unless `user` is one of them.
    pub(crate) fn members_for(
        &self,
        user: &UserRef,
        room: &RoomName,
    ) -> Result<RoomMembers, MessagesError> {
        match self.members.get(room) {
            None => Err(MessagesError::NoSuchRoom(room.clone())),
            Some(members) if !members.contains_key(&user.id) => {
                Err(MessagesError::NotInRoom(room.clone()))
            }
            Some(members) => Ok(Arc::clone(members)),
        }
    }

    /// Adds a member. Returns `false` if the user is a member already.
    pub(crate) fn join(&mut self, user: &UserRef, room: &RoomName) -> Result<bool, MessagesError> {
        let members = self.members.get(room);
        if members.is_some_and(|members| members.contains_key(&user.id)) {
            return Ok(false);
        }
        if members.is_some_and(|members| members.len() >= MAX_MEMBERS) {
            return Err(MessagesError::RoomFull {
                room: room.clone(),
                most: MAX_MEMBERS,
            });
        }
        if self
            .rooms_of
            .get(&user.id)
            .is_some_and(|rooms| *rooms >= MAX_ROOMS_PER_USER)
        {
            return Err(MessagesError::TooManyRooms(MAX_ROOMS_PER_USER));
        }
        self.insert(room.clone(), user.clone());
        Ok(true)
    }

    pub(crate) fn leave(&mut self, user: &UserRef, room: &RoomName) -> Result<(), MessagesError> {
        self.members_for(user, room)?;
        self.remove(room, user.id);
        Ok(())
    }

    pub(crate) fn undo(&mut self, change: RoomChange) {
        match change {
            RoomChange::Joined(room, user) => self.remove(&room, user.id),
            RoomChange::Left(room, user) => self.insert(room, user),
        }
    }

    /// The names of the members of `room`, sorted.
    pub(crate) fn member_names(&self, room: &RoomName) -> MembersReply {
        let members = self.members.get(room).into_iter();
        let names = members.flat_map(|members| members.values());
        let mut members: Vec<_> = names.map(ToString::to_string).collect();
        members.sort();
        MembersReply { members }
    }

    fn insert(&mut self, room: RoomName, user: UserRef) {
        let members = Arc::make_mut(self.members.entry(room).or_default());
        if members.insert(user.id, user.name).is_none() {
            *self.rooms_of.entry(user.id).or_default() += 1;
        }
    }

    fn remove(&mut self, room: &RoomName, user: i64) {
        if let Some(members) = self.members.get_mut(room) {
            if Arc::make_mut(members).remove(&user).is_some()
                && let Some(rooms) = self.rooms_of.get_mut(&user)
            {
                *rooms -= 1;
                if *rooms == 0 {
                    self.rooms_of.remove(&user);
                }
            }
            if members.is_empty() {
                self.members.remove(room);
            }
        }
    }
}

impl FromIterator<(RoomName, UserRef)> for Rooms {
    fn from_iter<I: IntoIterator<Item = (RoomName, UserRef)>>(members: I) -> Self {
        let mut rooms = Self::default();
        for (room, user) in members {
            rooms.insert(room, user);
        }
        rooms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: i64) -> UserRef {
        UserRef {
            id,
            name: format!("user-{id}").into(),
        }
    }

    fn room(name: &str) -> RoomName {
        name.parse().expect("a room")
    }

    #[test]
    fn a_room_begins_with_its_first_member_and_ends_with_its_last() {
        let mut rooms = Rooms::default();
        let ops = room("#ops");
        let error = rooms
            .members_for(&user(1), &ops)
            .expect_err("nobody is in it");
        assert!(matches!(error, MessagesError::NoSuchRoom(_)), "{error}");
        rooms.join(&user(1), &ops).expect("joined");
        assert!(rooms.join(&user(2), &ops).expect("joined"));
        assert_eq!(rooms.member_names(&ops).members, ["user-1", "user-2"]);
        let then = rooms.members_for(&user(2), &ops).expect("in it");
        let out = rooms.members_for(&user(3), &ops).expect_err("not in it");
        assert!(matches!(out, MessagesError::NotInRoom(_)), "{out}");
        for id in [1, 2] {
            rooms.leave(&user(id), &ops).expect("in it");
        }
        assert_eq!(then.keys().collect::<Vec<_>>(), [&1, &2]);
        assert!(rooms.rooms_of.is_empty());
        let error = rooms.leave(&user(1), &ops).expect_err("nobody is in it");
        assert!(matches!(error, MessagesError::NoSuchRoom(_)), "{error}");
    }

    #[test]
    fn rooms_and_their_members_are_bounded_and_rejoining_is_free() {
        let mut rooms = Rooms::default();
        let ops = room("#ops");
        for id in 0..1000 {
            rooms.join(&user(id), &ops).expect("room");
        }
        let full = rooms.join(&user(1000), &ops).expect_err("full");
        assert!(matches!(full, MessagesError::RoomFull { .. }), "{full}");
        rooms.join(&user(7), &ops).expect("in it already");
        for number in 1..100 {
            let other = room(&format!("#room-{number}"));
            rooms.join(&user(7), &other).expect("not too many");
        }
        let most = rooms.join(&user(7), &room("#one-more"));
        let most = most.expect_err("too many");
        assert!(matches!(most, MessagesError::TooManyRooms(100)), "{most}");
        assert!(!rooms.join(&user(7), &ops).expect("in it already"));
        rooms.undo(RoomChange::Joined(room("#room-1"), user(7)));
        rooms.join(&user(7), &room("#one-more")).expect("room");
        rooms.undo(RoomChange::Left(ops.clone(), user(1000)));
        assert_eq!(rooms.member_names(&ops).members.len(), 1001);
    }
}
