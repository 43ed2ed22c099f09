//! Users in memory: small records in chunks, found by id.

use ahash::AHashMap;

/// Users of one chunk: growing never copies, and 100 KiB is nothing to have allocated ahead.
const CHUNK: usize = 1024;

/// The place of a user in memory. Void after the user left memory; the core pins users that it names.
pub type Place = u32;

/// A user whose log was touched or who is online.
#[derive(Debug, Clone, Default)]
pub struct User {
    pub id: u64,
    /// The highest number given.
    pub tail: u64,
    /// The number of the last row, committed or on its way: `prev` of the next one.
    pub head: u64,
    /// The highest number that may be read: all below are committed or void. The number of a row, or 0.
    pub visible: u64,
    /// The highest number of a row that gave an item a later version.
    pub replaced: u64,
    /// The latest creation time among the ids of applied uploads: a later id is new without asking.
    pub last_upload_ms: u64,
    /// The device that came last; others are in `Users::more`.
    pub device: Device,
    /// Why the user must stay in memory: rows on their way, calls that wait.
    pub pins: u32,
    /// When the user was last touched, in sweeps, wrapping.
    pub touched: u16,
    /// What every row carries on (`values::mark`).
    pub marks: u8,
    pub loaded: bool,
    /// Stands in the list of users with news.
    pub has_news: bool,
    /// Has devices in `Users::more`.
    pub has_more: bool,
}

/// A device of a user: its route, and what it has applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Device {
    /// 0 with no counter: none yet.
    pub device: u64,
    /// What it says it has applied, in this log epoch; 0 when it spoke of another epoch.
    pub applied: u64,
    /// The highest number that was told to its route.
    pub told: u64,
    pub slot: u32,
    pub generation: u32,
    pub counter: u32,
    /// When it was told, in seconds of the owner's clock.
    pub told_at_s: u32,
    /// The gateway's place in the table of gateways, 0: no route.
    pub gateway: u16,
    pub shard: u16,
    /// Answers on their way to this device that will take along what it lacks; at 255 more are not counted.
    pub answers: u8,
    /// Stands in the list of its shard.
    pub due: bool,
    /// A device record is in use.
    pub known: bool,
}

impl Device {
    pub fn is_online(&self) -> bool {
        self.gateway != 0
    }
}

#[derive(Default)]
pub struct Users {
    chunks: Vec<Vec<User>>,
    free: Vec<Place>,
    index: AHashMap<u64, Place>,
    /// Second and further devices.
    more: AHashMap<u64, Vec<Device>>,
}

impl Users {
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn find(&self, id: u64) -> Option<Place> {
        self.index.get(&id).copied()
    }

    /// The place of a user, and whether it is new there.
    pub fn place(&mut self, id: u64) -> (Place, bool) {
        if let Some(place) = self.find(id) {
            return (place, false);
        }
        let user = User { id, ..User::default() };
        let place = match self.free.pop() {
            Some(place) => {
                *self.at(place) = user;
                place
            }
            None => self.push(user),
        };
        self.index.insert(id, place);
        (place, true)
    }

    fn push(&mut self, user: User) -> Place {
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let chunks = self.chunks.len();
        let chunk = &mut self.chunks[chunks - 1];
        chunk.push(user);
        ((chunks - 1) * CHUNK + chunk.len() - 1) as Place
    }

    pub fn at(&mut self, place: Place) -> &mut User {
        &mut self.chunks[place as usize / CHUNK][place as usize % CHUNK]
    }

    pub fn peek(&self, place: Place) -> &User {
        &self.chunks[place as usize / CHUNK][place as usize % CHUNK]
    }

    /// One more than the highest place ever used.
    pub fn places(&self) -> Place {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len()) as Place
    }

    /// Whether a place holds a user now.
    pub fn is_used(&self, place: Place) -> bool {
        place < self.places() && self.peek(place).id != 0
    }

    pub fn remove(&mut self, place: Place) {
        let id = self.peek(place).id;
        self.index.remove(&id);
        self.more.remove(&id);
        *self.at(place) = User::default();
        self.free.push(place);
    }

    /// Calls `with` for each known device of a user.
    pub fn each_device(&mut self, place: Place, mut with: impl FnMut(&mut Device)) {
        let user = &mut self.chunks[place as usize / CHUNK][place as usize % CHUNK];
        if user.device.known {
            with(&mut user.device);
        }
        if user.has_more {
            for device in self.more.get_mut(&user.id).into_iter().flatten() {
                with(device);
            }
        }
    }

    pub fn device(&mut self, place: Place, device: u64) -> Option<&mut Device> {
        let user = &mut self.chunks[place as usize / CHUNK][place as usize % CHUNK];
        if user.device.known && user.device.device == device {
            return Some(&mut user.device);
        }
        if !user.has_more {
            return None;
        }
        self.more.get_mut(&user.id)?.iter_mut().find(|known| known.device == device)
    }

    /// The record of a device, made when there is none. At `max` devices one without a route goes, or
    /// the oldest record.
    pub fn device_or_new(&mut self, place: Place, device: u64, max: usize) -> &mut Device {
        if self.device(place, device).is_none() {
            let user = &mut self.chunks[place as usize / CHUNK][place as usize % CHUNK];
            let fresh = Device { device, known: true, ..Device::default() };
            let old = std::mem::replace(&mut user.device, fresh);
            if old.known {
                user.has_more = true;
                let more = self.more.entry(user.id).or_default();
                if more.len() + 1 >= max {
                    let goes = more.iter().position(|known| !known.is_online()).unwrap_or(0);
                    more.remove(goes);
                }
                more.push(old);
            }
        }
        self.device(place, device).expect("it was found or has just been put in")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `hold` promises 200 bytes a user in all; the index takes 17 to 39 of them.
    const _: () = assert!(size_of::<User>() <= 128);

    #[test]
    fn devices_are_found_and_bounded() {
        let mut users = Users::default();
        let (place, new) = users.place(7);
        assert!(new);
        for device in 1..=20 {
            users.device_or_new(place, device, 8).counter = device as u32;
        }
        let mut seen = Vec::new();
        users.each_device(place, |device| seen.push(device.device));
        seen.sort_unstable();
        assert_eq!(seen, [13, 14, 15, 16, 17, 18, 19, 20]);
        assert_eq!(users.device(place, 15).map(|device| device.counter), Some(15));
        assert!(users.device(place, 1).is_none());
    }

    #[test]
    fn a_place_is_used_again_after_its_user_left() {
        let mut users = Users::default();
        let (first, _) = users.place(1);
        users.remove(first);
        assert!(!users.is_used(first));
        let (second, _) = users.place(2);
        assert_eq!(first, second);
        assert_eq!(users.find(1), None);
        assert_eq!(users.peek(second).tail, 0);
    }
}
