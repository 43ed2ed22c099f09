//! The bytes of Moorgate and the machines that read and write them. No socket, no clock, no unsafe.
