//! The program as its users run it, against stand-ins for what it measures.

mod bad_input;
mod ended;
mod measuring;
mod page;
mod run;
mod standin;
mod standing;
