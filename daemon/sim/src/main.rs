//! Runs seeds: `cargo run -p drover-sim --profile lab -- --seeds 10000`.

use clap::Parser;
use drover_sim::{Coverage, Mutant, Options, Plan, run, shrink};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A whole cluster in one process under virtual time, with faults.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run this one only.
    #[arg(long)]
    seed: Option<u64>,
    /// Run the plan in this file only.
    #[arg(long)]
    plan: Option<PathBuf>,
    /// Tell everything of note that happens.
    #[arg(long)]
    verbose: bool,
    /// Make a failing plan as small as can be, and print it.
    #[arg(long)]
    shrink: bool,
    /// Break something on purpose: see the list with an unknown name.
    #[arg(long)]
    mutant: Option<String>,
    /// How many to run at once.
    #[arg(long, default_value_t = 2)]
    threads: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mutant = match &arguments.mutant {
        None => None,
        Some(name) => match Mutant::ALL.iter().find(|(known, _)| known == name) {
            Some((_, mutant)) => Some(*mutant),
            None => {
                eprintln!("known mutants: {}", Mutant::ALL.map(|(name, _)| name).join(", "));
                return ExitCode::from(2);
            }
        },
    };
    let options = Options { trace: false, mutant };
    // A panic is one more invariant broken, and told as such.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(path) = &arguments.plan {
        let text = std::fs::read_to_string(path).expect("the plan can be read");
        return one(&serde_json::from_str(&text).expect("it is a plan"), &arguments, options);
    }
    match arguments.seed {
        Some(seed) => one(&Plan::of(seed), &arguments, options),
        None => many(&arguments, options),
    }
}

fn one(plan: &Plan, arguments: &Arguments, options: Options) -> ExitCode {
    let report = run(plan, Options { trace: arguments.verbose && !arguments.shrink, ..options });
    report.trace.iter().for_each(|line| println!("{line}"));
    let Some(failure) = report.failure else {
        println!("seed {}: holds; hash {:016x}", plan.seed, report.hash);
        println!("{:#?}", report.coverage);
        return ExitCode::SUCCESS;
    };
    println!("seed {}: {} at {} ms: {}", plan.seed, failure.invariant, failure.at, failure.seen);
    if arguments.shrink {
        let (small, failure) = shrink(plan, &failure, options);
        let report = run(&small, Options { trace: true, ..options });
        report.trace.iter().for_each(|line| println!("{line}"));
        println!(
            "shrunk to {} wishes and {} faults: {}: {}",
            small.wishes.len(),
            small.faults.len(),
            failure.invariant,
            failure.seen
        );
        println!("{}", serde_json::to_string(&small).expect("a plan is plain data"));
        println!("run it again: save the line above as FILE; cargo run -p drover-sim --profile lab -- --plan FILE --verbose");
    }
    ExitCode::FAILURE
}

fn many(arguments: &Arguments, options: Options) -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "the rate of runs is of this world")]
    let began = std::time::Instant::now();
    let next = AtomicU64::new(arguments.from);
    let end = arguments.from + arguments.seeds;
    let failed = AtomicBool::new(false);
    let total = Mutex::new(Coverage::default());
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let report = run(&Plan::of(seed), options);
                    if let Some(failure) = report.failure {
                        failed.store(true, Ordering::Relaxed);
                        println!("seed {seed}: {} at {} ms: {}", failure.invariant, failure.at, failure.seen);
                    }
                    total.lock().expect("nobody panics while adding").add(&report.coverage);
                }
            });
        }
    });
    let seconds = began.elapsed().as_secs_f64();
    println!("{:#?}", total.into_inner().expect("nobody panics while adding"));
    println!("{} seeds in {seconds:.1} s, {:.0} a second", arguments.seeds, arguments.seeds as f64 / seconds);
    if failed.load(Ordering::Relaxed) {
        println!("to see one: cargo run -p drover-sim --profile lab -- --seed SEED --shrink");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
