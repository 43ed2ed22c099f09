//! One line a figure, for people or as JSON; and what the kernel says of this process.

use std::path::Path;
use std::{fs, process};

use serde_json::{Map, Value};

pub struct Report {
    pub json: bool,
}

impl Report {
    /// The names of values end with their units.
    pub fn figure(&self, name: &str, values: &[(&str, f64)]) {
        if self.json {
            let mut line = Map::new();
            line.insert("figure".to_owned(), name.into());
            line.extend(values.iter().map(|(key, value)| ((*key).to_owned(), rounded(*value))));
            return println!("{}", Value::Object(line));
        }
        let values: Vec<String> =
            values.iter().map(|(key, value)| format!("{key} {}", rounded(*value))).collect();
        println!("{name}: {}", values.join(", "));
    }
}

fn rounded(value: f64) -> Value {
    if value.abs() >= 100.0 {
        (value.round() as i64).into()
    } else {
        ((value * 100.0).round() / 100.0).into()
    }
}

/// CPU so far, in microseconds, from the scheduler's own counts.
#[derive(Clone, Copy, Default)]
pub struct Cpu {
    /// The logic, and whoever calls it here.
    pub logic: u64,
    pub writer: u64,
    pub reader: u64,
    /// The engine's threads: tables are written and merged.
    pub engine: u64,
    /// How long all of them waited for a core.
    pub waited: u64,
}

impl Cpu {
    pub fn now() -> Self {
        let mut cpu = Self::default();
        for thread in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            let read = |name: &str| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
            let stat = read("schedstat");
            let mut us = stat.split(' ').map(|ns| ns.parse::<u64>().unwrap_or(0) / 1000);
            let (ran, waited) = (us.next().unwrap_or(0), us.next().unwrap_or(0));
            let (name, is_main) = (read("comm"), thread.file_name() == *process::id().to_string());
            cpu.waited += waited;
            let of = match name.trim() {
                _ if is_main => &mut cpu.logic,
                name if name.starts_with("store-write") => &mut cpu.writer,
                name if name.starts_with("store-read") => &mut cpu.reader,
                _ => &mut cpu.engine,
            };
            *of += ran;
        }
        cpu
    }

    pub fn since(self, before: Self) -> Self {
        Self {
            logic: self.logic - before.logic,
            writer: self.writer - before.writer,
            reader: self.reader - before.reader,
            engine: self.engine.saturating_sub(before.engine),
            waited: self.waited.saturating_sub(before.waited),
        }
    }

    pub fn all(self) -> u64 {
        self.logic + self.writer + self.reader + self.engine
    }
}

/// Memory that is the process's own.
pub fn own_bytes() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|kib| kib.parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0
}

/// What the disk was read for, by the kernel's count.
pub fn read_from_disk_bytes() -> f64 {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0.0)
}

/// Room that a directory takes on the disk, in bytes, and the room of its journals among them.
pub fn disk_bytes(dir: &Path) -> (f64, f64) {
    use std::os::unix::fs::MetadataExt as _;
    let (mut all, mut journals) = (0.0, 0.0);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            let (below, of_journals) = disk_bytes(&path);
            all += below;
            journals += of_journals;
        } else {
            let bytes = metadata.blocks() as f64 * 512.0;
            all += bytes;
            journals += if path.extension().is_some_and(|end| end == "jnl") { bytes } else { 0.0 };
        }
    }
    (all, journals)
}

pub fn quantile(sorted: &[u32], share: f64) -> f64 {
    sorted
        .get((sorted.len().saturating_sub(1) as f64 * share) as usize)
        .map_or(0.0, |value| f64::from(*value))
}
