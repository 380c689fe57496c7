//! Who is in which room.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::messages::{MessagesError, RoomName, UserRef};
use crate::protocol::MembersReply;

/// Members of a room.
const MEMBERS: usize = 1000;

/// Rooms that a user is in.
const ROOMS: usize = 100;

/// Those who are in a room, by id. A message keeps those of the moment when it was said.
pub(super) type Members = Arc<BTreeMap<i64, Arc<str>>>;

/// All rooms that somebody is in, as the database has them.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    members: HashMap<RoomName, Members>,
    /// In how many rooms each user is.
    rooms_of: HashMap<i64, usize>,
}

/// Something that was changed here and may have to be undone.
#[derive(Debug)]
pub(super) enum RoomChange {
    Joined(RoomName, UserRef),
    Left(RoomName, UserRef),
}

impl Rooms {
    /// Those who are in `room`, for `user`, who has to be one of them.
    pub(super) fn members_for(
        &self,
        user: &UserRef,
        room: &RoomName,
    ) -> Result<Members, MessagesError> {
        match self.members.get(room) {
            None => Err(MessagesError::NoSuchRoom(room.clone())),
            Some(members) if !members.contains_key(&user.id) => {
                Err(MessagesError::NotInRoom(room.clone()))
            }
            Some(members) => Ok(Arc::clone(members)),
        }
    }

    /// `false` if the user is in the room already.
    pub(super) fn join(&mut self, user: &UserRef, room: &RoomName) -> Result<bool, MessagesError> {
        let members = self.members.get(room);
        if members.is_some_and(|members| members.contains_key(&user.id)) {
            return Ok(false);
        }
        if members.is_some_and(|members| members.len() >= MEMBERS) {
            return Err(MessagesError::RoomFull {
                room: room.clone(),
                most: MEMBERS,
            });
        }
        if self
            .rooms_of
            .get(&user.id)
            .is_some_and(|rooms| *rooms >= ROOMS)
        {
            return Err(MessagesError::TooManyRooms(ROOMS));
        }
        self.enter(room.clone(), user.clone());
        Ok(true)
    }

    pub(super) fn leave(&mut self, user: &UserRef, room: &RoomName) -> Result<(), MessagesError> {
        self.members_for(user, room)?;
        self.exit(room, user.id);
        Ok(())
    }

    pub(super) fn undo(&mut self, change: RoomChange) {
        match change {
            RoomChange::Joined(room, user) => self.exit(&room, user.id),
            RoomChange::Left(room, user) => self.enter(room, user),
        }
    }

    /// The names of those who are in `room`.
    pub(super) fn names(&self, room: &RoomName) -> MembersReply {
        let members = self.members.get(room).into_iter();
        let names = members.flat_map(|members| members.values());
        let mut members: Vec<_> = names.map(ToString::to_string).collect();
        members.sort();
        MembersReply { members }
    }

    fn enter(&mut self, room: RoomName, user: UserRef) {
        let members = Arc::make_mut(self.members.entry(room).or_default());
        if members.insert(user.id, user.name).is_none() {
            *self.rooms_of.entry(user.id).or_default() += 1;
        }
    }

    fn exit(&mut self, room: &RoomName, user: i64) {
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
            rooms.enter(room, user);
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
    fn a_room_is_made_by_the_first_who_joins_and_gone_with_the_last_who_leaves() {
        let mut rooms = Rooms::default();
        let ops = room("#ops");
        let none = rooms
            .members_for(&user(1), &ops)
            .expect_err("nobody is in it");
        assert!(matches!(none, MessagesError::NoSuchRoom(_)), "{none}");
        rooms.join(&user(1), &ops).expect("room for one");
        assert!(rooms.join(&user(2), &ops).expect("room for two"));
        assert_eq!(rooms.names(&ops).members, ["user-1", "user-2"]);
        let then = rooms.members_for(&user(2), &ops).expect("in it");
        let out = rooms.members_for(&user(3), &ops).expect_err("not in it");
        assert!(matches!(out, MessagesError::NotInRoom(_)), "{out}");
        for id in [1, 2] {
            rooms.leave(&user(id), &ops).expect("in it");
        }
        assert_eq!(then.keys().collect::<Vec<_>>(), [&1, &2]);
        assert!(rooms.rooms_of.is_empty());
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
        assert!(!rooms.join(&user(7), &ops).expect("in it already"));
        rooms.undo(RoomChange::Joined(room("#room-1"), user(7)));
        rooms.join(&user(7), &room("#one-more")).expect("room");
        rooms.undo(RoomChange::Left(ops.clone(), user(1000)));
        assert_eq!(rooms.names(&ops).members.len(), 1001);
    }
}
