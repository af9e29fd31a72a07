//! The closed list of properties a task may set, and why others are refused.

use super::value::Kind;

/// A property that may be set.
pub(super) struct Known {
    /// As in a unit file.
    pub(super) name: &'static str,
    /// How it is written.
    pub(super) kind: Kind,
    /// The systemd that brought it, where that is newer than the oldest drover supports.
    pub(super) since: u32,
}

pub(super) fn known(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|entry| entry.name == name)
}

const fn entry(name: &'static str, kind: Kind) -> Known {
    Known { name, kind, since: 0 }
}

const fn newer(name: &'static str, kind: Kind, since: u32) -> Known {
    Known { name, kind, since }
}

/// In the order of systemd.exec(5), systemd.resource-control(5), systemd.kill(5), systemd.service(5).
pub(super) const KNOWN: &[Known] = &[
    entry("WorkingDirectory", Kind::Directory),
    entry("AmbientCapabilities", Kind::Capabilities(CAPABILITIES)),
    entry("CapabilityBoundingSet", Kind::Capabilities(CAPABILITIES)),
    entry("NoNewPrivileges", Kind::Bool),
    entry("UMask", Kind::Octal),
    entry("KeyringMode", Kind::Word(&["inherit", "private", "shared"])),
    entry("Nice", Kind::Int(0, 19)),
    entry("OOMScoreAdjust", Kind::Int(0, 1000)),
    entry("LimitAS", Kind::LimitBytes),
    entry("LimitCORE", Kind::LimitBytes),
    entry("LimitCPU", Kind::Limit),
    entry("LimitDATA", Kind::LimitBytes),
    entry("LimitFSIZE", Kind::LimitBytes),
    entry("LimitLOCKS", Kind::Limit),
    entry("LimitMEMLOCK", Kind::LimitBytes),
    entry("LimitMSGQUEUE", Kind::LimitBytes),
    entry("LimitNOFILE", Kind::Limit),
    entry("LimitNPROC", Kind::Limit),
    entry("LimitRSS", Kind::LimitBytes),
    entry("LimitSIGPENDING", Kind::Limit),
    entry("LimitSTACK", Kind::LimitBytes),
    entry("ProtectSystem", Kind::BoolOrWord(&["full", "strict"])),
    entry("ProtectHome", Kind::BoolOrWord(&["read-only", "tmpfs"])),
    entry("ProtectProc", Kind::Word(&["noaccess", "invisible", "ptraceable", "default"])),
    entry("ProcSubset", Kind::Word(&["all", "pid"])),
    entry("ReadWritePaths", Kind::Paths),
    entry("ReadOnlyPaths", Kind::Paths),
    entry("InaccessiblePaths", Kind::Paths),
    entry("ExecPaths", Kind::Paths),
    entry("NoExecPaths", Kind::Paths),
    entry("PrivateTmp", Kind::Bool),
    entry("PrivateDevices", Kind::Bool),
    entry("PrivateIPC", Kind::Bool),
    entry("PrivateMounts", Kind::Bool),
    entry("PrivateNetwork", Kind::Bool),
    entry("PrivateUsers", Kind::Bool),
    newer("PrivatePIDs", Kind::BoolOrWord(&[]), 257),
    entry("ProtectClock", Kind::Bool),
    entry("ProtectControlGroups", Kind::Bool),
    entry("ProtectHostname", Kind::Bool),
    entry("ProtectKernelLogs", Kind::Bool),
    entry("ProtectKernelModules", Kind::Bool),
    entry("ProtectKernelTunables", Kind::Bool),
    entry("RestrictAddressFamilies", Kind::Filter(is_address_family)),
    entry("RestrictNamespaces", Kind::Namespaces),
    entry("RestrictRealtime", Kind::Bool),
    entry("RestrictSUIDSGID", Kind::Bool),
    entry("LockPersonality", Kind::Bool),
    entry("MemoryDenyWriteExecute", Kind::Bool),
    entry("RemoveIPC", Kind::Bool),
    newer("MemoryKSM", Kind::Bool, 254),
    entry("SystemCallFilter", Kind::Filter(is_system_call)),
    entry("SystemCallArchitectures", Kind::Words(is_lower_word)),
    entry("StandardOutput", Kind::Word(&["journal", "null"])),
    entry("StandardError", Kind::Word(&["journal", "null"])),
    entry("SyslogIdentifier", Kind::Label),
    entry("SyslogLevelPrefix", Kind::Bool),
    entry("LogLevelMax", Kind::Level),
    entry("LogRateLimitIntervalSec", Kind::Span("LogRateLimitIntervalUSec")),
    entry("LogRateLimitBurst", Kind::ShortCount(1, 1_000_000_000)),
    entry("CPUQuota", Kind::Percent("CPUQuotaPerSecUSec")),
    entry("MemoryHigh", Kind::Bytes),
    entry("MemorySwapMax", Kind::Bytes),
    newer("MemoryZSwapMax", Kind::Bytes, 253),
    entry("TasksMax", Kind::Count(1, 4_194_304)),
    entry("IOWeight", Kind::Count(1, 10_000)),
    entry("DevicePolicy", Kind::Word(&["auto", "closed", "strict"])),
    entry("KillMode", Kind::Word(&["control-group", "mixed"])),
    entry("KillSignal", Kind::Signal),
    entry("SendSIGHUP", Kind::Bool),
    entry("SuccessExitStatus", Kind::Exits),
    entry("TimeoutStartSec", Kind::Span("TimeoutStartUSec")),
    entry("WatchdogSec", Kind::Span("WatchdogUSec")),
];

/// Why, for what people are likely to try. A name that ends in `*` stands for all that begin so.
pub(super) const REFUSED: &[(&str, &str)] = &[
    ("Exec*", "a task has one program, its command; systemd would run this one beside it"),
    ("User", "say `user` in the app or job instead"),
    ("Group", "a group such as disk or docker is as good as root; the account's own groups apply"),
    ("SupplementaryGroups", "a group such as disk or docker is as good as root; the account's own groups apply"),
    ("DynamicUser", "leave `user` out of the app or job to get a dynamic user"),
    ("PAMName", "a PAM session would move the task out of its slice"),
    ("Slice", "the slice follows from who owns the task; limits for a whole app belong to its slice's own configuration"),
    ("Delegate*", "a task that manages control groups itself escapes its limits"),
    ("DisableControllers", "would lift the limits of the task"),
    ("Root*", "a root of its own could put the task's files in the place of the system's"),
    ("MountImages", "mounts could put the task's files in the place of the system's"),
    ("ExtensionImages", "mounts could put the task's files in the place of the system's"),
    ("ExtensionDirectories", "mounts could put the task's files in the place of the system's"),
    (
        "BindPaths",
        "a mount could put the task's files in the place of the system's; ReadWritePaths opens host directories where they are",
    ),
    (
        "BindReadOnlyPaths",
        "a mount could put the task's files in the place of the system's; the host's files can be read where they are",
    ),
    (
        "TemporaryFileSystem",
        "a mount could put the task's files in the place of the system's; the task has /tmp and its own directory",
    ),
    ("MountFlags", "would let mounts of the task reach the host"),
    ("MountAPIVFS", "goes with a root of its own, which drover does not give"),
    ("StateDirectory*", "systemd would hand any directory of that name to the task; $STATE_DIRECTORY is there already"),
    ("RuntimeDirectory*", "systemd would hand any directory of that name to the task; $STATE_DIRECTORY is there already"),
    ("CacheDirectory*", "systemd would hand any directory of that name to the task; $STATE_DIRECTORY is there already"),
    ("LogsDirectory*", "systemd would hand any directory of that name to the task; logs go to the journal"),
    ("ConfigurationDirectory*", "systemd would hand any directory of that name to the task"),
    ("Environment*", "say `env` in the app or `environmentVariables` in the job instead"),
    ("PassEnvironment", "the environment of a node's systemd is nobody's business; say `env` instead"),
    ("UnsetEnvironment", "the environment is complete as the app or job gives it"),
    ("LoadCredential*", "systemd reads credentials as root, so this would read any file of the node"),
    ("SetCredential*", "every local user can read what is set this way"),
    ("ImportCredential*", "would read credentials of the node"),
    ("StandardInput*", "a task has no input"),
    ("StandardOutputFile*", "systemd opens files as root; write to the journal, or open the file in the program"),
    ("StandardErrorFile*", "systemd opens files as root; write to the journal, or open the file in the program"),
    ("TTY*", "a task has no terminal"),
    ("LogNamespace", "drover and the node's operators would not find the task's journal"),
    ("LogExtraFields", "drover's own fields say whose entries these are"),
    ("JoinsNamespaceOf", "would enter another unit's namespaces"),
    ("NetworkNamespacePath", "would enter another unit's namespaces"),
    ("IPCNamespacePath", "would enter another unit's namespaces"),
    ("Type", "drover decides when a task counts as running"),
    ("ExitType", "drover decides when a task counts as ended"),
    ("RemainAfterExit", "drover keeps ended units until their end is recorded"),
    ("CollectMode", "drover keeps ended units until their end is recorded"),
    ("AddRef", "drover keeps ended units until their end is recorded"),
    ("Restart*", "what happens after an end is the app's or job's: `backoffSeconds`, `retries`"),
    ("StartLimit*", "what happens after an end is the app's or job's: `backoffSeconds`, `retries`"),
    ("OOMPolicy", "drover could not tell that the kernel ended a part of the task"),
    ("ManagedOOM*", "belongs to the node's operator"),
    ("MemoryMax", "say `mem` in the app or job instead"),
    ("MemoryLow", "would take memory away from other tasks; `mem` says what the task needs"),
    ("MemoryMin", "would take memory away from other tasks; `mem` says what the task needs"),
    ("CPUWeight", "follows from `cpus`"),
    ("CPUShares", "follows from `cpus`"),
    ("StartupCPUWeight", "follows from `cpus`"),
    ("CPUScheduling*", "would take the machine away from other tasks"),
    ("IOScheduling*", "say IOWeight instead"),
    ("RuntimeMaxSec", "say `maxCompletionTime` in the job instead; an app's instances are meant to stay"),
    ("TimeoutStopSec", "say `taskKillGracePeriodSeconds` in the app instead"),
    ("TimeoutSec", "say TimeoutStartSec, and `taskKillGracePeriodSeconds` in the app"),
    ("SendSIGKILL", "a task that cannot be ended would hold its node for ever"),
    ("FinalKillSignal", "a task that cannot be ended would hold its node for ever"),
    ("NotifyAccess", "drover decides when a task counts as running; the watchdog needs no more than WatchdogSec"),
    ("BusName", "a task has no name on the node's bus"),
    ("Sockets", "would tie the task to another unit"),
    ("PIDFile", "a task stays in the foreground"),
    ("FileDescriptorStore*", "PID 1 would hold what the task opened"),
    ("OpenFile", "systemd opens files as root"),
    ("On*", "would start another unit"),
    ("Wants*", "would start another unit"),
    ("Require*", "would start another unit"),
    ("Requisite", "would tie the task to another unit"),
    ("BindsTo", "would tie the task to another unit"),
    ("PartOf", "would tie the task to another unit"),
    ("Upholds", "would start another unit"),
    ("Conflicts", "would stop another unit"),
    ("Propagates*", "would stop another unit"),
    ("StopPropagatedFrom", "would tie the task to another unit"),
    ("Before", "would tie the node's boot to the task"),
    ("After", "would tie the task to another unit"),
    ("DefaultDependencies", "the task must end before its node goes down"),
    ("Condition*", "whether and where a task runs is the master's decision: use constraints"),
    ("Assert*", "whether and where a task runs is the master's decision: use constraints"),
    ("SuccessAction", "would reboot or switch off the node"),
    ("FailureAction", "would reboot or switch off the node"),
    ("JobTimeout*", "would reboot or switch off the node"),
    ("DeviceAllow", "hands devices of the node to the task"),
    ("BPFProgram", "runs code in the node's kernel"),
    ("NFTSet", "belongs to the node's operator"),
    ("SecureBits", "is of use only to take privileges back"),
    ("SELinuxContext", "belongs to the node's operator"),
    ("AppArmorProfile", "belongs to the node's operator"),
    ("SmackProcessLabel", "belongs to the node's operator"),
    ("Description", "follows from who owns the task"),
];

/// Capabilities that do not amount to owning the machine, by their numbers (capabilities(7)).
const CAPABILITIES: &[(&str, u32)] = &[
    ("CAP_CHOWN", 0),
    ("CAP_DAC_OVERRIDE", 1),
    ("CAP_FOWNER", 3),
    ("CAP_FSETID", 4),
    ("CAP_KILL", 5),
    ("CAP_SETGID", 6),
    ("CAP_SETUID", 7),
    ("CAP_SETPCAP", 8),
    ("CAP_NET_BIND_SERVICE", 10),
    ("CAP_NET_BROADCAST", 11),
    ("CAP_NET_ADMIN", 12),
    ("CAP_NET_RAW", 13),
    ("CAP_IPC_LOCK", 14),
    ("CAP_IPC_OWNER", 15),
    ("CAP_SYS_CHROOT", 18),
    ("CAP_SYS_NICE", 23),
    ("CAP_SYS_RESOURCE", 24),
    ("CAP_LEASE", 28),
    ("CAP_AUDIT_WRITE", 29),
    ("CAP_SETFCAP", 31),
];

/// What a task that runs as root keeps: enough to change accounts and serve on low ports, nothing that reaches past its sandbox.
pub(super) const CAPABILITIES_KEPT: &str = "CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID \
     CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_AUDIT_WRITE CAP_SETFCAP";

fn is_address_family(word: &str) -> bool {
    word.strip_prefix("AF_")
        .is_some_and(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()))
}

fn is_system_call(word: &str) -> bool {
    let name = word.split(':').next().unwrap_or(word);
    let name = name.strip_prefix('@').unwrap_or(name);
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

fn is_lower_word(word: &str) -> bool {
    word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}
