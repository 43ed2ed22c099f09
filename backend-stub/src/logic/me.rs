//! What a user keeps of itself: profile, settings, devices. One item, beside what is kept of peers.

use proto_wire::names::section_of;
use proto_wire::pb;
use proto_wire::status::Status;

use super::api::{Answer, At};
use super::append::Waiting;
use super::checks::check_user;
use super::core::{Core, Effect};
use super::keys;
use super::limits;
use super::users::Place;
use super::values::{Kind, mark};
use super::verbs::Resume;

impl Core {
    pub(super) fn change_me(
        &mut self,
        place: Place,
        change: impl FnOnce(&mut pb::Me) -> Result<(), Status>,
    ) -> Result<u64, Status> {
        let user = self.users.peek(place).id;
        let key = keys::peer(user, user);
        let mut kept = self.kept::<pb::Me>(&key)?;
        change(&mut kept.state)?;
        Ok(self.put_kept(place, key, Kind::Me, user, kept))
    }

    /// Marks a device as logged out. From here on its calls are refused, also after a restart: the row carries the
    /// mark. Its connection ends after the commit.
    pub(super) fn log_out(&mut self, place: Place, device: u64) -> Result<u64, Status> {
        self.users.at(place).marks |= mark::DEVICES;
        let number = self.change_me(place, |me| {
            match me.devices.iter_mut().find(|known| known.device == device) {
                Some(known) => known.out = true,
                None => put_device(me, pb::LoggedIn { device, out: true, ..Default::default() }),
            }
            Ok(())
        })?;
        let user = self.users.peek(place).id;
        self.effect(section_of(user), Effect::LoggedOut { user, device });
        Ok(number)
    }

    /// A device logged in with the password: it stands in the list, and is no longer logged out.
    pub fn log_in(&mut self, at: At, token: u64, user: u64, device: u64, name: &str) {
        if !self.admit(token, section_of(user)) || !self.has_room(token, user) {
            return;
        }
        let place = self.user(user);
        let resume = || Resume::LogIn { token, user, device, name: name.to_owned() };
        if !self.users.peek(place).loaded {
            return self.wait(place, Waiting::Resume(resume()));
        }
        if self.need(&[keys::peer(user, user)], resume()).is_none() {
            return;
        }
        let logged_in = pb::LoggedIn { device, name: name.to_owned(), time_ms: at.unix_ms, out: false };
        let put = self.change_me(place, |me| {
            put_device(me, logged_in);
            Ok(())
        });
        match put {
            Ok(_) => self.effect(section_of(user), Effect::Answer { token, answer: Answer::Done }),
            Err(status) => self.answer(token, Err(status)),
        }
    }

    /// Says whether a device may go on: it was not logged out.
    pub fn admit_device(&mut self, _at: At, token: u64, user: u64, device: u64) {
        if !self.has_room(token, user) {
            return;
        }
        let place = self.user(user);
        let resume = || Resume::Admit { token, user, device };
        if !self.users.peek(place).loaded {
            return self.wait(place, Waiting::Resume(resume()));
        }
        if self.admits_device(token, place, device, resume) {
            self.answer(token, Ok(Answer::Done));
        }
    }

    /// The profile of any user; an empty one for who never set it.
    pub fn profile(&mut self, token: u64, user: u64) {
        if let Err(refusal) = check_user(user) {
            return self.answer(token, Err(refusal));
        }
        let key = keys::peer(user, user);
        if self.need(&[key], Resume::Profile { token, user }).is_none() {
            return;
        }
        match self.kept::<pb::Me>(&key) {
            Ok(kept) => {
                let profile = kept.state.profile.unwrap_or_default();
                self.answer_from(&key, token, Answer::Profile(profile));
            }
            Err(status) => self.answer(token, Err(status)),
        }
    }
}

/// The newest last. Beyond the limit the oldest goes that is not logged out: one that is out would be let in again with a
/// token that is still good.
fn put_device(me: &mut pb::Me, logged_in: pb::LoggedIn) {
    me.devices.retain(|known| known.device != logged_in.device);
    if me.devices.len() >= limits::MAX_LISTED_DEVICES {
        let goes = me.devices.iter().position(|known| !known.out).unwrap_or(0);
        me.devices.remove(goes);
    }
    me.devices.push(logged_in);
}
