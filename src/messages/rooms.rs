//! Who is in which room.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{MessagesError, Party, RoomName};
use crate::protocol::MembersReply;

/// Members of a room.
const MEMBERS: usize = 1000;

/// Rooms that a user is in.
const ROOMS: usize = 100;

/// All rooms that somebody is in, as the database has them.
#[derive(Debug, Default)]
pub(super) struct Rooms(HashMap<RoomName, BTreeMap<i64, Arc<str>>>);

impl Rooms {
    /// Makes sure that `user` is in `room`.
    pub(super) fn check(&self, user: &Party, room: &RoomName) -> Result<(), MessagesError> {
        match self.0.get(room) {
            None => Err(MessagesError::NoSuchRoom(room.clone())),
            Some(members) if !members.contains_key(&user.id) => {
                Err(MessagesError::NotInRoom(room.clone()))
            }
            Some(_) => Ok(()),
        }
    }

    pub(super) fn join(
        &mut self,
        user: &Party,
        room: &RoomName,
    ) -> Result<MembersReply, MessagesError> {
        let members = self.0.get(room);
        if members.is_some_and(|members| members.contains_key(&user.id)) {
            return Ok(self.members(room));
        }
        if members.is_some_and(|members| members.len() >= MEMBERS) {
            return Err(MessagesError::RoomFull {
                room: room.clone(),
                most: MEMBERS,
            });
        }
        let joined = self.0.values();
        let joined = joined.filter(|members| members.contains_key(&user.id));
        if joined.count() >= ROOMS {
            return Err(MessagesError::TooManyRooms(ROOMS));
        }
        let members = self.0.entry(room.clone()).or_default();
        members.insert(user.id, Arc::clone(&user.name));
        Ok(self.members(room))
    }

    pub(super) fn leave(
        &mut self,
        user: &Party,
        room: &RoomName,
    ) -> Result<MembersReply, MessagesError> {
        self.check(user, room)?;
        if let Some(members) = self.0.get_mut(room) {
            members.remove(&user.id);
            if members.is_empty() {
                self.0.remove(room);
            }
        }
        Ok(self.members(room))
    }

    /// The users in `room`, but for one.
    pub(super) fn others(&self, room: &RoomName, speaker: i64) -> impl Iterator<Item = i64> {
        let members = self.0.get(room).into_iter().flat_map(BTreeMap::keys);
        members.copied().filter(move |member| *member != speaker)
    }

    fn members(&self, room: &RoomName) -> MembersReply {
        let names = self.0.get(room).into_iter().flat_map(BTreeMap::values);
        let mut members: Vec<_> = names.map(ToString::to_string).collect();
        members.sort();
        MembersReply { members }
    }
}

impl FromIterator<(RoomName, Party)> for Rooms {
    fn from_iter<I: IntoIterator<Item = (RoomName, Party)>>(members: I) -> Self {
        let mut rooms = Self::default();
        for (room, user) in members {
            rooms.0.entry(room).or_default().insert(user.id, user.name);
        }
        rooms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: i64) -> Party {
        Party {
            id,
            name: format!("user-{id}").into(),
        }
    }

    fn room(name: &str) -> RoomName {
        name.parse().expect("a room")
    }

    #[test]
    fn a_room_is_made_by_the_first_who_joins_and_gone_with_the_last_who_leaves() {
        let mut rooms = Rooms::default();
        let ops = room("#ops");
        let none = rooms.check(&user(1), &ops).expect_err("nobody is in it");
        assert!(matches!(none, MessagesError::NoSuchRoom(_)), "{none}");
        rooms.join(&user(1), &ops).expect("room for one");
        let reply = rooms.join(&user(2), &ops).expect("room for two");
        assert_eq!(reply.members, ["user-1", "user-2"]);
        assert_eq!(rooms.others(&ops, 1).collect::<Vec<_>>(), [2]);
        let out = rooms.check(&user(3), &ops).expect_err("not in it");
        assert!(matches!(out, MessagesError::NotInRoom(_)), "{out}");
        for id in [1, 2] {
            rooms.leave(&user(id), &ops).expect("in it");
        }
        let gone = rooms.leave(&user(1), &ops).expect_err("nobody is in it");
        assert!(matches!(gone, MessagesError::NoSuchRoom(_)), "{gone}");
    }

    #[test]
    fn rooms_and_their_members_are_bounded_and_to_join_again_is_free() {
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
        rooms.join(&user(7), &ops).expect("in it already");
    }
}
