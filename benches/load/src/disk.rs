//! What the disk does by itself: the rate that a log of one writer could reach at most.

use anyhow::Context;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// As much as one of the writes that are compared.
const RECORD: [u8; 256] = [0x5a; 256];

/// Appends and syncs for so long; the rate of syncs per second.
pub(crate) fn run(directory: &Path, seconds: f64) -> anyhow::Result<serde_json::Value> {
    let path = directory.join(format!("disk-{}", std::process::id()));
    let mut file = OpenOptions::new().create_new(true).append(true).open(&path).with_context(|| path.display().to_string())?;
    let began = Instant::now();
    let end = began + Duration::from_secs_f64(seconds);
    let mut syncs = 0u32;
    while Instant::now() < end {
        file.write_all(&RECORD).and_then(|()| file.sync_data()).context("the file cannot be written")?;
        syncs += 1;
    }
    let rate = f64::from(syncs) / began.elapsed().as_secs_f64();
    std::fs::remove_file(&path).context("the file cannot be removed")?;
    Ok(serde_json::json!({ "rate": rate }))
}
