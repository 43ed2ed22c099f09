//! Where a report goes beside the terminal.

use std::fmt::Display;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use crate::html;
use crate::measure::{HdrError, write_hdr};
use crate::report::{Report, WriteError, write_json, write_text};

#[derive(Debug, Clone, Default)]
pub struct Outputs {
    pub json: Option<PathBuf>,
    pub html: Option<PathBuf>,
    pub hdr: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Hdr(#[from] HdrError),
}

impl Outputs {
    /// Whether each place can be opened for writing; nothing that is there is changed.
    pub fn check(&self) -> Result<(), OutputError> {
        for path in [&self.json, &self.html].into_iter().flatten() {
            may_write(path)?;
        }
        if let Some(dir) = &self.hdr {
            fs::create_dir_all(dir).map_err(|cause| WriteError::new(dir, cause))?;
        }
        Ok(())
    }

    pub fn write(&self, report: &impl Report) -> Result<(), OutputError> {
        if let Some(path) = &self.json {
            write_json(path, report)?;
        }
        if let Some(path) = &self.html {
            let failed = |cause: serde_json::Error| WriteError::new(path, cause.into());
            write_text(path, &html::page(&serde_json::to_value(report).map_err(failed)?))?;
        }
        if let (Some(dir), Some(recorded)) = (&self.hdr, report.recorded()) {
            write_hdr(dir, &recorded.recorder, recorded.began)?;
        }
        Ok(())
    }
}

/// Makes a report, prints it, writes it where it is wanted, and says whether it is good.
pub fn tell<R: Report, E: Display>(
    wanted: &Outputs,
    make: impl FnOnce() -> Result<R, E>,
) -> Result<bool, String> {
    // A place that cannot be written is known before the run, not after.
    wanted.check().map_err(|error| error.to_string())?;
    let report = make().map_err(|error| error.to_string())?;
    println!("{}", report.summary());
    if let Some(told) = report.host().disturbance() {
        println!("{told}");
    }
    wanted.write(&report).map_err(|error| error.to_string())?;
    match report.shortfall() {
        Some(told) => Err(told),
        None => Ok(report.is_good()),
    }
}

/// The page of a report that stands as JSON in a file.
pub fn render(report: &Path, page: &Path) -> Result<(), String> {
    let unreadable = |cause: String| format!("cannot read {}: {cause}", report.display());
    let text = fs::read_to_string(report).map_err(|error| unreadable(error.to_string()))?;
    let report: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    write_text(page, &html::page(&report)).map_err(|error| error.to_string())
}

fn may_write(path: &Path) -> Result<(), WriteError> {
    let was_there = path.exists();
    OpenOptions::new().create(true).append(true).open(path).map_err(|cause| WriteError::new(path, cause))?;
    if !was_there {
        // An empty report of a run that failed would be taken for one.
        let _ = fs::remove_file(path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_cannot_be_written_is_told_before_the_run() {
        let dir = std::env::temp_dir().join(format!("moorgate-bench-out-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("made");
        let there = dir.join("there.json");
        fs::write(&there, "kept").expect("written");
        let good = Outputs {
            json: Some(there.clone()),
            html: Some(dir.join("new.html")),
            hdr: Some(dir.join("hdr")),
        };
        good.check().expect("all can be written");
        assert_eq!(fs::read_to_string(&there).expect("there"), "kept");
        assert!(!dir.join("new.html").exists() && dir.join("hdr").is_dir());
        let bad = Outputs { html: Some(dir.join("no/such/x.html")), ..Outputs::default() };
        assert!(bad.check().expect_err("no directory").to_string().contains("no/such/x.html"));
        let bad = Outputs { hdr: Some(there.join("x")), ..Outputs::default() };
        assert!(bad.check().is_err(), "a file is no directory");
        fs::remove_dir_all(&dir).expect("removed");
    }
}
