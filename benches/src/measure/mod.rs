//! What is measured, and how: latency counts from the intended start, in HDR histograms by operation and phase, and
//! second by second beside what both sides used meanwhile.
//!
//! A thread writes to its own [`Tape`] and hands it over once a second; the [`Recorder`] is what all have handed over.
//! [`Arrivals`] are the intended starts of an open loop. Nothing here grows with the length of a run beyond
//! [`crate::limits::TIMELINE_POINTS_MAX`] points.

mod arrivals;
mod hdr;
mod recorder;
mod tape;
mod timeline;
mod watch;

pub use arrivals::{Arrival, Arrivals};
pub use hdr::{HdrError, write_hdr};
pub use recorder::{Counts, Measured, Op, OperationPhase, Phase, PhaseTime, Recorder};
pub use tape::Tape;
pub use timeline::{Gauges, OpPoint, PartGauge, Point, TimelineReport};
pub use watch::{Live, Watch};
