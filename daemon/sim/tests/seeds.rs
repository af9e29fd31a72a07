//! Seeds in `./check`. More of them: `cargo run -p drover-sim --profile lab -- --seeds 10000`.

use drover_sim::{Coverage, Failure, Mutant, Options, Plan, run};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// A minute and a half of one core.
const SEEDS: u64 = 2500;

/// Every plan that once broke something, by what it found.
#[test]
fn what_was_found_stays_mended() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/kept");
    let mut count = 0;
    for file in std::fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        let plan: Plan = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(run(&plan, Options::default()).failure, None, "{}", path.display());
        count += 1;
    }
    assert!(count > 0, "there are plans in {directory}");
}

#[test]
fn seeds_hold() {
    let (next, total, failed) = (AtomicU64::new(0), Mutex::new(Coverage::default()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SEEDS {
                        return;
                    }
                    let report = run(&Plan::of(seed), Options::default());
                    total.lock().unwrap().add(&report.coverage);
                    if let Some(Failure { invariant, seen, .. }) = report.failure {
                        failed.lock().unwrap().push(format!("seed {seed}: {invariant}: {seen}"));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{failed:#?}\ncargo run -p drover-sim --profile lab -- --seed SEED --shrink");
    let met = total.into_inner().unwrap();
    println!("{met:#?}");
    let counts = [
        met.leaders,
        met.sessions,
        met.snapshots,
        met.snapshots_installed,
        met.refused_newer,
        met.raised,
        met.raises_refused,
        met.acknowledged,
        met.reads,
        met.slots,
        met.crashes_in_writes,
        met.disk_ends,
        met.executed,
        met.stops,
        met.investigations,
        met.lost,
        met.replaced,
    ];
    assert!(counts.iter().all(|count| *count > 0), "what nothing happens in proves nothing: {met:#?}");
    assert!(met.faults.len() >= 23, "every kind of fault happens: {:?}", met.faults);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let hashes = |seed| run(&Plan::of(seed), Options::default()).hash;
    for seed in 0..8 {
        assert_eq!(hashes(seed), hashes(seed), "seed {seed}");
    }
    assert_ne!(hashes(0), hashes(1));
}

/// The invariants can fail: each thing broken on purpose is seen, and by which.
#[test]
fn what_is_broken_on_purpose_is_seen() {
    for (name, mutant) in Mutant::ALL {
        let fails = |seed| run(&Plan::of(seed), Options { mutant: Some(mutant), ..Options::default() }).failure;
        let failure = (0..SEEDS).find_map(fails);
        let failure = failure.unwrap_or_else(|| panic!("{name} goes unnoticed"));
        println!("{name}: {} ({})", failure.invariant, failure.seen);
    }
}
