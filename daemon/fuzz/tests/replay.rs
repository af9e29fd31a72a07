//! Everything that is kept, and changed copies of it: what `cargo test` has of the fuzzing.

use drover_fuzz::{TARGETS, Target, mutate};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Changed copies for each target.
const CHANGED: usize = 300;

fn inputs(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let kept = target.kept().unwrap_or_else(|error| panic!("the corpus of {} cannot be read: {error}", target.name));
    let read = |path: PathBuf| {
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{} cannot be read: {error}", path.display()));
        (path, bytes)
    };
    kept.into_iter().map(read).collect()
}

#[test]
fn what_is_kept_breaks_nothing() {
    let mut broken = Vec::new();
    for target in TARGETS {
        for (path, bytes) in inputs(target) {
            if catch_unwind(|| (target.run)(&bytes)).is_err() {
                broken.push(path);
            }
        }
    }
    assert!(broken.is_empty(), "these break their targets: {broken:#?}");
}

#[test]
fn changed_copies_break_nothing() {
    let mut broken = Vec::new();
    for target in TARGETS {
        let inputs = inputs(target);
        assert!(inputs.len() >= 3, "{} has no corpus to speak of", target.name);
        // The same changes in every run, and others for each target.
        let mut dice = oorandom::Rand32::new(target.name.bytes().map(u64::from).sum());
        let began = Instant::now();
        for _ in 0..CHANGED {
            let mut pick = || &inputs[dice.rand_range(0..inputs.len() as u32) as usize].1;
            let (one, other) = (pick(), pick());
            let bytes = mutate::changed(one, other, &mut dice);
            if catch_unwind(|| (target.run)(&bytes)).is_err() {
                let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-changed", target.name));
                std::fs::write(&path, &bytes).expect("the input can be written down");
                broken.push(path);
                break;
            }
        }
        println!("{}: {CHANGED} in {:?}", target.name, began.elapsed());
    }
    assert!(broken.is_empty(), "these break their targets: {broken:#?}");
}

#[test]
fn every_corpus_has_its_target() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpora = std::fs::read_dir(home.join("corpus")).expect("there is a corpus");
    for corpus in corpora {
        let name = corpus.expect("its directory can be read").file_name();
        let name = name.to_string_lossy();
        assert!(drover_fuzz::target(&name).is_some(), "corpus/{name} belongs to no target");
    }
    let found = std::fs::read_dir(home.join("found")).expect("there is a place for what was found");
    for found in found {
        let path = found.expect("its directory can be read").path();
        let is_taken = TARGETS.iter().any(|target| target.kept().is_ok_and(|kept| kept.contains(&path)));
        assert!(is_taken || path.ends_with("README"), "{} belongs to no target", path.display());
    }
}
