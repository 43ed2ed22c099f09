//! What will not fit on this host, in words, with the command that mends it.
