//! Why a connection ends. Below 100 the phone comes back (after a wait, with jitter, perhaps elsewhere);
//! from 100 on the reason is terminal for this connection: the same HELLO would end the same way.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        /// The code of a CLOSE frame and the label of its counter.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Reason { $($(#[$doc])* $name = $value,)* }

        impl Reason {
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            pub const fn from_u16(value: u16) -> Option<Self> {
                match value { $($value => Some(Reason::$name),)* _ => None }
            }

            /// Its name in metrics and logs.
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// The server is going away: drain, restart, upgrade.
    GoingAway = 1, "going_away";
    /// The server sheds load.
    Overloaded = 2, "overloaded";
    /// No heartbeat came within its time.
    Idle = 3, "idle";
    /// The peer did not read what was sent to it.
    SlowReader = 4, "slow_reader";
    /// HELLO did not come within its time.
    HelloTimeout = 5, "hello_timeout";
    /// A session without a token has had its time.
    AnonymousTimeout = 6, "anonymous_timeout";
    /// The server failed.
    Internal = 7, "internal";
    /// The peer closed; never sent, only counted.
    PeerClosed = 8, "peer_closed";
    /// The connection broke; never sent, only counted.
    Reset = 9, "reset";
    /// The resume ticket is not good here, or not any more, and no token came with it: come back with the token.
    Ticket = 10, "ticket";
    /// The address did more than one may: it opened too many connections, or too many HELLOs from it failed.
    AddressLimit = 11, "address_limit";

    /// The bytes are no frames of this protocol.
    BadFrame = 100, "bad_frame";
    /// A frame came that has no place here: before HELLO, a second HELLO, a server's frame.
    OutOfPlace = 101, "out_of_place";
    FrameTooLarge = 102, "frame_too_large";
    /// The token is forged, of another issuer, or no token.
    BadToken = 103, "bad_token";
    ExpiredToken = 104, "expired_token";
    /// A newer connection of the same device took over.
    Replaced = 105, "replaced";
    /// The major version is not spoken here.
    Version = 106, "version";
    /// More than is allowed, again and again.
    Abuse = 107, "abuse";
    /// The device was logged out: it logs in again before it comes back.
    LoggedOut = 108, "logged_out";
}

impl Reason {
    /// Whether the same HELLO would end the same way.
    pub const fn is_terminal(self) -> bool {
        Self::code_is_terminal(self as u16)
    }

    /// Why the logic tier has a session closed: a code of this list, or 0 for one that a newer connection replaced.
    /// A code that a later version named closes as that does: the phone does not come back by itself either way.
    pub const fn of_ended(code: u32) -> Self {
        match Self::from_u16(if code > u16::MAX as u32 { 0 } else { code as u16 }) {
            Some(reason) if reason.is_terminal() => reason,
            _ => Reason::Replaced,
        }
    }

    /// The same for a code that a later version may have named.
    pub const fn code_is_terminal(code: u16) -> bool {
        code >= 100
    }
}

#[cfg(test)]
mod tests {
    use super::Reason;

    #[test]
    fn codes_and_reasons_agree() {
        for &reason in Reason::ALL {
            assert_eq!(Reason::from_u16(reason as u16), Some(reason));
        }
        assert_eq!(Reason::from_u16(0), None);
        assert!(Reason::BadToken.is_terminal() && !Reason::Idle.is_terminal());
        for (code, reason) in [(0, Reason::Replaced), (108, Reason::LoggedOut), (3, Reason::Replaced)] {
            assert_eq!(Reason::of_ended(code), reason);
        }
        assert_eq!(
            (Reason::of_ended(999), Reason::of_ended(1 << 16 | 108)),
            (Reason::Replaced, Reason::Replaced)
        );
    }
}
