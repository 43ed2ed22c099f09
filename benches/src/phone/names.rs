//! Names and ids that this phone has met.

use ahash::AHashMap;

#[derive(Debug, Default)]
pub struct Names {
    ids: AHashMap<String, u64>,
    names: AHashMap<u64, String>,
}

/// Names that are kept; a person meets fewer.
const NAMES_MAX: usize = 10_000;

impl Names {
    pub fn learn(&mut self, id: u64, name: &str) {
        if id != 0 && !name.is_empty() && self.ids.len() < NAMES_MAX {
            self.ids.insert(name.to_owned(), id);
            self.names.insert(id, name.to_owned());
        }
    }

    /// Of a name, or of an id that is written as `#2a`.
    pub fn id(&self, name: &str) -> Option<u64> {
        match name.strip_prefix('#') {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => self.ids.get(name).copied(),
        }
    }

    pub fn is_known(&self, id: u64) -> bool {
        self.names.contains_key(&id)
    }

    /// What to call an id: the account service tells ids of names, not names of ids.
    pub fn name(&self, id: u64) -> String {
        self.names.get(&id).cloned().unwrap_or_else(|| format!("user {id:x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_an_id_are_each_others() {
        let mut names = Names::default();
        names.learn(0xab, "bob");
        assert_eq!((names.id("bob"), names.name(0xab)), (Some(0xab), "bob".to_owned()));
        assert_eq!((names.id("carol"), names.name(0xcd)), (None, "user cd".to_owned()));
        assert_eq!((names.id("#cd"), names.id("#x")), (Some(0xcd), None));
    }
}
