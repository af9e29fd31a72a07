//! Names on a node: of units, slices and directories. Each is made from ids alone, so that anybody can find a task's.

use crate::ids::{AppId, JobName, TaskId};
use crate::task::Owner;

const PREFIX: &str = "drover-";
const SUFFIX: &str = ".service";

/// systemd's limit for a whole name is 255.
const NAME_BYTES_MAX: usize = 255;

/// Deeper trees than this share a slice: each level repeats the names above it in the kernel's path.
const SLICE_DEPTH_MAX: usize = 8;

/// The unit of a task, `drover-prod_web.9b1d….service`.
pub fn unit_name(task: &TaskId) -> String {
    format!("{PREFIX}{}{SUFFIX}", bounded(escape(task.as_str(), b":_.-"), task.as_str(), PREFIX.len() + SUFFIX.len()))
}

/// Whether a unit's name is one that [`unit_name`] could have made. The unit may still be somebody else's.
pub fn is_unit_of_a_task(unit: &str) -> bool {
    unit.starts_with(PREFIX) && unit.ends_with(SUFFIX)
}

/// A task's own directory, relative to where the manager keeps state: `drover/prod_web.9b1d…`.
///
/// Free of what shells, search paths and systemd give a meaning to: `:` becomes `@`, and everything else that is not a letter,
/// digit, `_`, `.` or `-` becomes `+` and two hexadecimal digits.
pub fn sandbox_directory(task: &TaskId) -> String {
    let mut name = String::new();
    for byte in task.as_str().bytes() {
        match byte {
            b':' => name.push('@'),
            b if b.is_ascii_alphanumeric() || b"_.-".contains(&b) => name.push(char::from(b)),
            b => name.push_str(&format!("+{b:02x}")),
        }
    }
    // A component of only dots would be another directory.
    if name.bytes().all(|b| b == b'.') {
        name = name.replace('.', "+2e");
    }
    format!("drover/{}", bounded(name, task.as_str(), 0))
}

/// The slice of an owner's tasks below `root` (`drover.slice`), before it is split: `drover-apps-prod-web.slice`.
pub(super) fn slice_of(root: &str, owner: &Owner) -> String {
    let (kind, segments): (&str, Vec<&str>) = match owner {
        Owner::App { app, .. } => ("apps", segments(app)),
        Owner::Run { job, .. } => ("jobs", vec![JobName::as_str(job)]),
    };
    let stem = root.strip_suffix(".slice").unwrap_or(root);
    let escaped: Vec<String> = segments.iter().map(|segment| escape(segment, b":_.")).collect();
    let full = format!("{stem}-{kind}-{}", escaped.join("-"));
    // A name that is too long or too deep keeps its first segment, which is what people look for, and a hash of the whole.
    let room = ".slice".len() + SHARD_BYTES;
    if full.len() + room <= NAME_BYTES_MAX && escaped.len() <= SLICE_DEPTH_MAX {
        return format!("{full}.slice");
    }
    let first = bounded(escaped[0].clone(), segments[0], stem.len() + kind.len() + room + 2 + 17);
    format!("{stem}-{kind}-{first}-{:016x}.slice", hash(&segments.join("/")))
}

/// Bytes kept free for `-_` and a shard's number.
const SHARD_BYTES: usize = 8;

/// Part `number` of a slice; part 0 is the slice itself. `_` begins no app's segment, so no app's slice is met.
pub(super) fn shard_of(slice: &str, number: usize) -> String {
    match number {
        0 => slice.to_owned(),
        _ => format!("{}-_{number}.slice", slice.strip_suffix(".slice").unwrap_or(slice)),
    }
}

fn segments(app: &AppId) -> Vec<&str> {
    app.segments().collect()
}

/// systemd's escaping: `\x2d` for what is not a letter, a digit or in `also`.
fn escape(text: &str, also: &[u8]) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || also.contains(&byte);
    if text.bytes().all(is_plain) {
        return text.to_owned();
    }
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_plain(byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("\\x{byte:02x}"));
        }
    }
    escaped
}

/// `name`, or its beginning and a hash of `whole` when it would not fit beside `taken` bytes.
fn bounded(name: String, whole: &str, taken: usize) -> String {
    let room = NAME_BYTES_MAX - taken;
    if name.len() <= room {
        return name;
    }
    let kept: String = name.chars().take(room - 17).collect();
    format!("{}-{:016x}", kept.trim_end_matches(['\\', '-']), hash(whole))
}

/// FNV-1a, 64 bits: the same on every build, which std's hashers do not promise.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RunId;
    use crate::time::Timestamp;
    use proptest::prelude::*;

    fn app(path: &str) -> Owner {
        Owner::App { app: AppId::parse(path).unwrap(), version: Timestamp(0) }
    }

    fn run(job: &str) -> Owner {
        let job = JobName::parse(job).unwrap();
        Owner::Run { run: RunId::of(&job, 1), job, attempt: 0 }
    }

    #[test]
    fn names_people_will_type() {
        let web = TaskId::new("prod_web.6a7f4d2e-1111");
        assert_eq!(unit_name(&web), "drover-prod_web.6a7f4d2e-1111.service");
        assert_eq!(sandbox_directory(&web), "drover/prod_web.6a7f4d2e-1111");
        let run_id = TaskId::new("ct:1448000000000:0:night ly:");
        assert_eq!(unit_name(&run_id), "drover-ct:1448000000000:0:night\\x20ly:.service");
        assert_eq!(sandbox_directory(&run_id), "drover/ct@1448000000000@0@night+20ly@");
        assert_eq!(sandbox_directory(&TaskId::new("..")), "drover/+2e+2e");
        assert!(is_unit_of_a_task(&unit_name(&web)));
        assert!(!is_unit_of_a_task("droverd-agent.service") && !is_unit_of_a_task("drover-apps.slice"));
    }

    #[test]
    fn slices_follow_ownership() {
        let of = |owner: &Owner| slice_of("drover.slice", owner);
        assert_eq!(of(&app("/web")), "drover-apps-web.slice");
        assert_eq!(of(&app("/prod/my-web")), "drover-apps-prod-my\\x2dweb.slice");
        assert_eq!(of(&run("night-ly.x")), "drover-jobs-night\\x2dly.x.slice");
        assert_eq!(slice_of("tenant-drover.slice", &app("/web")), "tenant-drover-apps-web.slice");
        assert_eq!(shard_of("drover-apps-web.slice", 0), "drover-apps-web.slice");
        assert_eq!(shard_of("drover-apps-web.slice", 2), "drover-apps-web-_2.slice");
    }

    #[test]
    fn what_does_not_fit_is_cut_and_stays_distinct() {
        let long = |last: char| TaskId::new(format!("{}{last}", "ä".repeat(150)));
        assert!(unit_name(&long('a')).len() <= NAME_BYTES_MAX);
        assert_ne!(unit_name(&long('a')), unit_name(&long('b')));
        assert_ne!(sandbox_directory(&long('a')), sandbox_directory(&long('b')));
        let deep = |last: &str| app(&format!("/{}{last}", "a/".repeat(80)));
        assert!(slice_of("drover.slice", &deep("x")).starts_with("drover-apps-a-"));
        assert_ne!(slice_of("drover.slice", &deep("x")), slice_of("drover.slice", &deep("y")));
    }

    proptest! {
        #[test]
        fn any_id_gives_a_valid_name_of_its_own(a in "\\PC{1,200}", b in "\\PC{1,200}") {
            let (one, other) = (TaskId::new(a.clone()), TaskId::new(b.clone()));
            for name in [unit_name(&one), sandbox_directory(&one).split('/').next_back().unwrap().to_owned()] {
                prop_assert!(name.len() <= NAME_BYTES_MAX);
                prop_assert!(name.bytes().all(|c| c.is_ascii_alphanumeric() || b":_.-\\@+".contains(&c)), "{}", name);
            }
            prop_assert_eq!(a == b, unit_name(&one) == unit_name(&other));
            prop_assert_eq!(a == b, sandbox_directory(&one) == sandbox_directory(&other));
        }

        #[test]
        fn any_owner_gives_a_valid_slice(path in "(/[a-z0-9]{1,8}(-[a-z0-9]{1,8}){0,2}){1,9}", job in "[A-Za-z0-9_.-]{1,180}") {
            for owner in [app(&path), run(&job)] {
                let slice = shard_of(&slice_of("drover.slice", &owner), 9999);
                prop_assert!(slice.len() <= NAME_BYTES_MAX, "{}", slice);
                prop_assert!(!slice.contains("--") && !slice.ends_with("-.slice"), "{}", slice);
            }
        }
    }
}
