use super::*;
use proptest::prelude::*;

fn properties(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn values_are_read_as_in_unit_files() {
    use PropertyValue as V;
    let one = |name: &str, value: V| vec![(name.to_owned(), value)];
    for (name, text, expect) in [
        ("PrivateNetwork", "yes", one("PrivateNetwork", V::Bool(true))),
        ("PrivateNetwork", " off ", one("PrivateNetwork", V::Bool(false))),
        ("ProtectSystem", "true", one("ProtectSystem", V::Text("yes".into()))),
        ("ProtectHome", "read-only", one("ProtectHome", V::Text("read-only".into()))),
        ("CPUQuota", "150%", one("CPUQuotaPerSecUSec", V::U64(1_500_000))),
        ("MemoryHigh", "512M", one("MemoryHigh", V::U64(512 << 20))),
        ("MemorySwapMax", "infinity", one("MemorySwapMax", V::U64(u64::MAX))),
        ("WatchdogSec", "1min 30s", one("WatchdogUSec", V::U64(90_000_000))),
        ("WatchdogSec", "250ms", one("WatchdogUSec", V::U64(250_000))),
        ("TimeoutStartSec", "5", one("TimeoutStartUSec", V::U64(5_000_000))),
        ("UMask", "0027", one("UMask", V::U32(0o027))),
        ("Nice", "19", one("Nice", V::I32(19))),
        ("KillSignal", "SIGINT", one("KillSignal", V::I32(2))),
        ("LogLevelMax", "warning", one("LogLevelMax", V::I32(4))),
        ("RestrictNamespaces", "yes", one("RestrictNamespaces", V::U64(0))),
        ("RestrictNamespaces", "no", one("RestrictNamespaces", V::U64(0x7e02_0000))),
        ("RestrictNamespaces", "user mnt", one("RestrictNamespaces", V::U64(0x1002_0000))),
        ("AmbientCapabilities", "CAP_NET_BIND_SERVICE", one("AmbientCapabilities", V::U64(1 << 10))),
        (
            "SystemCallFilter",
            "~@mount ptrace",
            one("SystemCallFilter", V::Filter(false, vec!["@mount".into(), "ptrace".into()])),
        ),
        ("RestrictAddressFamilies", "none", one("RestrictAddressFamilies", V::Filter(true, vec![]))),
        ("SuccessExitStatus", "75 SIGUSR1", one("SuccessExitStatus", V::Exits(vec![75], vec![10]))),
        ("ReadWritePaths", "/srv/a -/srv/b", one("ReadWritePaths", V::Texts(vec!["/srv/a".into(), "-/srv/b".into()]))),
        ("LimitNOFILE", "1024:4096", vec![("LimitNOFILE".into(), V::U64(4096)), ("LimitNOFILESoft".into(), V::U64(1024))]),
    ] {
        assert_eq!(look_up(name, text).map(|(_, values)| values), Ok(expect), "{name}={text}");
    }
}

#[test]
fn what_is_wrong_is_said_in_words() {
    for (name, text, part) in [
        ("PrivateNetwork", "maybe", "must be yes or no; \"maybe\" is not"),
        ("ProtectHome", "none", "yes, no or read-only, tmpfs"),
        ("CPUQuota", "150", "percentage of one CPU"),
        ("CPUQuota", "0%", "percentage of one CPU"),
        ("WatchdogSec", "0", "time span"),
        ("WatchdogSec", "5 parsecs", "time span"),
        ("Nice", "-5", "from 0 to 19"),
        ("OOMScoreAdjust", "-900", "from 0 to 1000"),
        ("ReadWritePaths", "/srv/../etc", "without '..'"),
        ("ReadWritePaths", "srv", "absolute"),
        ("LimitNOFILE", "4096:1024", "SOFT:HARD"),
        ("CapabilityBoundingSet", "CAP_SYS_ADMIN", "owns the machine"),
        ("KillMode", "none", "one of control-group, mixed"),
        ("MemoryHigh", "lots", "size such as 512M"),
        ("ExecStartPre", "/bin/true", "one program"),
        ("User", "root", "say `user`"),
        ("Slice", "system.slice", "follows from who owns"),
        ("Delegate", "yes", "escapes its limits"),
        ("BindPaths", "/a:/b", "ReadWritePaths"),
        ("RootDirectory", "/srv", "place of the system's"),
        ("PAMName", "login", "out of its slice"),
        ("OnFailure", "x.service", "start another unit"),
        ("Type", "oneshot", "counts as running"),
        ("WatchdogUSec", "3", "write WatchdogSec"),
        ("privatetmp", "no", "write PrivateTmp"),
        ("X-Mine", "1", "not a unit property that drover lets"),
    ] {
        let faults = check(&properties(&[(name, text)]));
        assert_eq!(faults.len(), 1, "{name}={text}");
        assert!(faults[0].why.contains(part), "{name}={text}: {}", faults[0].why);
    }
}

#[test]
fn all_faults_are_found_at_once() {
    let faults = check(&properties(&[("Nice", "99"), ("PrivateTmp", "no"), ("Slice", "x"), ("UMask", "9")]));
    let names: Vec<&str> = faults.iter().map(|fault| fault.property.as_str()).collect();
    assert_eq!(names, ["Nice", "Slice", "UMask"]);
}

#[test]
fn nothing_is_both_known_and_refused() {
    for entry in table::KNOWN {
        let clash = REFUSED.iter().find(|(name, _)| *name == entry.name);
        assert!(clash.is_none(), "{}", entry.name);
    }
}

#[test]
fn asking_replaces_a_default_and_nothing_else() {
    let asked = properties(&[("PrivateDevices", "no"), ("CPUQuota", "50%")]);
    let plain: BTreeMap<_, _> = resolve(&BTreeMap::new(), None, Manager::System, 252).unwrap().into_iter().collect();
    let loose: BTreeMap<_, _> = resolve(&asked, None, Manager::System, 252).unwrap().into_iter().collect();
    assert_eq!(plain["DynamicUser"], PropertyValue::Bool(true));
    assert_eq!(plain["PrivateDevices"], PropertyValue::Bool(true));
    assert_eq!(loose["PrivateDevices"], PropertyValue::Bool(false));
    assert_eq!(loose["CPUQuotaPerSecUSec"], PropertyValue::U64(500_000));
    let differing: Vec<&String> = loose.keys().filter(|name| plain.get(*name) != loose.get(*name)).collect();
    assert_eq!(differing, ["CPUQuotaPerSecUSec", "PrivateDevices"]);
}

#[test]
fn a_named_user_is_not_dynamic_and_a_users_manager_hides_nothing() {
    let named = resolve(&BTreeMap::new(), Some("www-data"), Manager::System, 252).unwrap();
    assert!(!named.iter().any(|(name, _)| name == "DynamicUser"));
    let own: Vec<String> = resolve(&BTreeMap::new(), None, Manager::User, 252).unwrap().into_iter().map(|p| p.0).collect();
    assert_eq!(
        own,
        ["LockPersonality", "NoNewPrivileges", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID", "TasksMax"]
    );
    assert!(resolve(&BTreeMap::new(), Some("root"), Manager::User, 252).is_err());
}

#[test]
fn what_systemd_would_ignore_is_refused() {
    let asked = properties(&[("ProtectSystem", "no"), ("PrivateDevices", "no")]);
    let faults = check_with_user(&asked, None);
    assert_eq!(faults.len(), 1);
    assert!(faults[0].why.contains("name a user"), "{}", faults[0]);
    assert!(check_with_user(&asked, Some("www-data")).is_empty());
    assert_eq!(check_with_user(&asked, Some("a b")).len(), 1);
}

#[test]
fn newer_properties_are_refused_on_older_nodes() {
    let asked = properties(&[("PrivatePIDs", "yes"), ("MemoryZSwapMax", "0")]);
    assert_eq!(systemd_needed(&asked), 257);
    let faults = resolve(&asked, None, Manager::System, 252).unwrap_err();
    let text: Vec<String> = faults.iter().map(Fault::to_string).collect();
    assert_eq!(
        text,
        ["MemoryZSwapMax: needs systemd 253; this node has 252", "PrivatePIDs: needs systemd 257; this node has 252"]
    );
    assert!(resolve(&asked, None, Manager::System, 257).is_ok());
}

#[test]
fn environments() {
    assert!(check_env(&properties(&[("PORT_HTTP-API", "1\n2"), ("a.b", "")])).is_empty());
    assert_eq!(check_env(&properties(&[("", "x"), ("A=B", "x"), ("OK", "x"), ("NUL", "\0")])).len(), 3);
}

proptest! {
    /// Whatever is written, the answer is a fault or a value, never a panic; and what `check` passes, `resolve` takes.
    #[test]
    fn check_and_resolve_agree(at in 0..table::KNOWN.len(), text in "[ -~]{0,20}") {
        let asked = properties(&[(table::KNOWN[at].name, &text)]);
        prop_assert_eq!(check(&asked).is_empty(), resolve(&asked, Some("daemon"), Manager::System, 999).is_ok());
    }
}
