//! The clients of `./bench`, which starts them and reads the one line of JSON that each prints.

mod disk;
mod writes;

use clap::Parser;
use std::path::PathBuf;

#[derive(Debug, Parser)]
#[command(about, max_term_width = 100)]
enum Arguments {
    /// Clients that each write, wait for the answer, and write again.
    Writes(writes::Options),
    /// One writer that appends 256 bytes to a file and waits until they are on the disk, again and again.
    Disk {
        /// Where the file is made, and removed afterwards.
        #[arg(long)]
        directory: PathBuf,
        /// How long.
        #[arg(long)]
        seconds: f64,
    },
}

fn main() -> anyhow::Result<()> {
    let report = match Arguments::parse() {
        Arguments::Writes(options) => writes::run(&options)?,
        Arguments::Disk { directory, seconds } => disk::run(&directory, seconds)?,
    };
    println!("{report}");
    Ok(())
}
