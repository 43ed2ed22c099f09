//! How a call ended. One list for REPLY frames and for RPC replies.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        /// The code of a status, u16 on the wire. A code that this version does not know is kept as it came.
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct Code(pub u16);

        #[allow(non_upper_case_globals)]
        impl Code {
            $($(#[$doc])* pub const $name: Code = Code($value);)*

            /// Its name, as it stands in metrics and logs.
            pub const fn name(self) -> &'static str {
                match self.0 { $($value => $text,)* _ => "unknown_code" }
            }
        }
    };
}

codes! {
    Ok = 0, "ok";
    /// The request itself is wrong: sending it again gives the same.
    Invalid = 1, "invalid";
    /// The caller may not do this.
    Denied = 2, "denied";
    NotFound = 3, "not_found";
    /// The id of the upload was used for another body.
    Conflict = 4, "conflict";
    /// What was asked for exists already.
    Exists = 5, "exists";
    /// No such method here.
    UnknownMethod = 6, "unknown_method";
    /// The time given to the call ran out. It may have been applied.
    Deadline = 7, "deadline";
    /// The callee sheds load; the reply says when to try again. It was not applied.
    Overloaded = 8, "overloaded";
    /// No backend can be reached. It was not applied.
    Unavailable = 9, "unavailable";
    /// The owner of the section is another; the newer table comes along. It was not applied.
    Moved = 10, "moved";
    /// The caller gave the call up.
    Cancelled = 11, "cancelled";
    /// The answer was lost with its connection. It may have been applied: repeat with the same id.
    Lost = 12, "lost";
    /// The callee is broken.
    Internal = 13, "internal";
    /// Too many calls in flight from this caller.
    TooMany = 14, "too_many";
    /// A limit of the account or the item (text, members, contacts) was passed.
    Limit = 15, "limit";
    /// The id of the upload is older than is remembered.
    Expired = 16, "expired";
    /// The disk behind the callee is full: reads go on, writes come back by themselves once there is room. It was not
    /// applied.
    NoRoom = 17, "no_room";
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

impl Code {
    /// Whether the call was certainly not applied and may be sent again, to this callee or another.
    pub const fn is_safe_to_retry(self) -> bool {
        matches!(self, Code::Overloaded | Code::Unavailable | Code::Moved | Code::TooMany | Code::NoRoom)
    }
}

/// A call that ended in anything but success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub code: Code,
    /// One plain sentence for a person.
    pub text: String,
    /// When to try again, already with its jitter; 0 when the callee does not say.
    pub retry_after_ms: u32,
}

impl Status {
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), retry_after_ms: 0 }
    }

    pub fn invalid(text: impl Into<String>) -> Self {
        Self::new(Code::Invalid, text)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.text)
    }
}

impl std::error::Error for Status {}
