//! What phones do, and how often: the mix.

use std::path::Path;

use rand::Rng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

macro_rules! kinds {
    ($($kind:ident $name:ident,)*) => {
        /// A kind of change, or of call.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind { $($kind,)* }

        impl Kind {
            pub const ALL: &[Kind] = &[$(Kind::$kind,)*];

            pub fn name(self) -> &'static str {
                match self { $(Kind::$kind => stringify!($name),)* }
            }
        }

        /// The weights of a mix, as its file has them.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Weights { $(pub $name: u32,)* }

        impl Weights {
            fn of(&self, kind: Kind) -> u32 {
                match kind { $(Kind::$kind => self.$name,)* }
            }
        }
    };
}

kinds! {
    Message message,
    GroupMessage group_message,
    Image image,
    Recall recall,
    Mark mark,
    Typing typing,
    Ask ask,
    Accept accept,
    Remove remove,
    Block block,
    Remark remark,
    Star star,
    GroupChange group_change,
    Publish publish,
    Withdraw withdraw,
    Comment comment,
    Like like,
    Unsay unsay,
    Setting setting,
    Profile profile,
}

/// The mix that stands in the tree.
pub const DEFAULT: &str = include_str!("../../mix.toml");

/// Weights are small numbers; the sum of all stays far below a `u32`.
const WEIGHT_MAX: u32 = 1_000_000;

impl Weights {
    /// An error is a sentence.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Self::parse(&text).map_err(|error| format!("{} is no mix: {error}", path.display()))
    }

    pub fn parse(text: &str) -> Result<Self, String> {
        let weights: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        if Kind::ALL.iter().any(|&kind| weights.of(kind) > WEIGHT_MAX) {
            return Err(format!("a weight is at most {WEIGHT_MAX}"));
        }
        if weights.sum() == 0 {
            return Err("all weights are 0".to_owned());
        }
        Ok(weights)
    }

    fn sum(&self) -> u32 {
        Kind::ALL.iter().map(|&kind| self.of(kind)).sum()
    }

    pub fn draw(&self, random: &mut StdRng) -> Kind {
        let mut at = random.random_range(0..self.sum());
        for &kind in Kind::ALL {
            let weight = self.of(kind);
            if at < weight {
                return kind;
            }
            at -= weight;
        }
        Kind::Message
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn the_mix_in_the_tree_has_every_kind() {
        let weights = Weights::parse(DEFAULT).expect("a mix");
        assert!(Kind::ALL.iter().all(|&kind| weights.of(kind) > 0));
    }

    #[test]
    fn what_is_no_mix_is_told() {
        for (text, told) in [
            ("mesage = 4", "mesage"),
            ("message = -1", "message"),
            ("", "all weights are 0"),
            ("message = 4000000", "at most"),
        ] {
            let error = Weights::parse(text).expect_err(text);
            assert!(error.contains(told), "{text}: {error}");
        }
        let missing = Weights::read(Path::new("no-such.toml")).expect_err("no file");
        assert!(missing.contains("no-such.toml"), "{missing}");
    }

    #[test]
    fn kinds_are_drawn_by_their_weights() {
        let weights = Weights::parse("message = 3\nlike = 1").expect("a mix");
        let mut random = StdRng::seed_from_u64(5);
        let drawn: Vec<Kind> = (0..4_000).map(|_| weights.draw(&mut random)).collect();
        let likes = drawn.iter().filter(|&&kind| kind == Kind::Like).count();
        assert!((850..1_150).contains(&likes), "{likes}");
        assert!(drawn.iter().all(|kind| matches!(kind, Kind::Like | Kind::Message)));
    }
}
