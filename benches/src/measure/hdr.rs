//! `.hdr` files: an interval log of HdrHistogram for each operation, one interval a phase, V2 and compressed: what
//! HdrHistogram's own tools and plotters read.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::recorder::Recorder;

#[derive(Debug, thiserror::Error)]
#[error("cannot write the histogram {}: {cause}", path.display())]
pub struct HdrError {
    path: PathBuf,
    cause: String,
}

/// Writes `DIR/OPERATION.hdr` for each operation that was done at all, times in microseconds. Gives the files.
pub fn write_hdr(dir: &Path, recorder: &Recorder, began: SystemTime) -> Result<Vec<PathBuf>, HdrError> {
    let failed = |path: &Path, cause: io::Error| HdrError { path: path.to_owned(), cause: cause.to_string() };
    fs::create_dir_all(dir).map_err(|cause| failed(dir, cause))?;
    let mut by_operation: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for (operation, phase, latency) in recorder.histograms() {
        by_operation.entry(operation).or_default().push((phase, latency));
    }
    let mut files = Vec::new();
    for (operation, phases) in by_operation {
        let path = dir.join(format!("{operation}.hdr"));
        let mut text = Vec::new();
        let mut serializer = V2DeflateSerializer::new();
        let mut log = IntervalLogWriterBuilder::new()
            .add_comment(&format!("[moorgate-bench: {operation}, one interval a phase, values in us]"))
            .with_start_time(began)
            .with_base_time(began)
            .with_max_value_divisor(1e3)
            .begin_log_with(&mut text, &mut serializer)
            .map_err(|cause| failed(&path, cause))?;
        for (phase, latency) in phases {
            let name = phase.name.replace([',', ' ', '\r', '\n'], "_");
            let from = Duration::from_secs_f64(phase.from_s);
            let lasted = Duration::from_secs_f64((phase.until_s - phase.from_s).max(0.0));
            log.write_histogram(latency.histogram(), from, lasted, Tag::new(&name))
                .map_err(|cause| HdrError { path: path.clone(), cause: format!("{cause:?}") })?;
        }
        fs::write(&path, text).map_err(|cause| failed(&path, cause))?;
        files.push(path);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base64::prelude::{BASE64_STANDARD, Engine as _};
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::measure::Tape;

    #[test]
    fn what_is_written_reads_back_as_it_was() {
        let recorder = Arc::new(Recorder::new(&["call", "never"]));
        recorder.begin_phase("step 1, slow", 0);
        let mut tape = Tape::new(&recorder);
        (1..=1_000).for_each(|us| tape.done(0, 0, us * 10));
        drop(tape);
        let load = recorder.begin_phase("load", 2_000_000);
        let mut tape = Tape::new(&recorder);
        tape.done(0, 2_000_000, 2_000_700);
        drop(tape);
        recorder.end_phase(5_000_000);

        let dir = std::env::temp_dir().join(format!("moorgate-bench-hdr-{}", std::process::id()));
        let files = write_hdr(&dir, &recorder, SystemTime::now()).expect("written");
        assert_eq!(files, [dir.join("call.hdr")], "an operation that was never done has no file");
        let text = fs::read(&files[0]).expect("there");
        let mut read = Vec::new();
        for entry in IntervalLogIterator::new(&text) {
            if let LogEntry::Interval(interval) = entry.expect("well-formed") {
                let bytes = BASE64_STANDARD.decode(interval.encoded_histogram()).expect("base64");
                let histogram: Histogram<u32> =
                    Deserializer::new().deserialize(&mut bytes.as_slice()).expect("a histogram");
                let tag = interval.tag().map(|tag| tag.as_str().to_owned());
                read.push((tag, interval.duration().as_secs(), histogram));
            }
        }
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].0.as_deref(), read[0].2.len()), (Some("step_1__slow"), 1_000));
        assert_eq!(read[0].2.max(), recorder.latency(0, 0).histogram().max());
        assert_eq!((read[1].0.as_deref(), read[1].1, read[1].2.len()), (Some("load"), 3, 1));
        assert_eq!(&read[1].2, recorder.latency(0, load).histogram());
        fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let told = write_hdr(Path::new("/dev/null/x"), &Recorder::new(&["call"]), SystemTime::now());
        assert!(told.expect_err("no directory").to_string().contains("/dev/null/x"));
    }
}
