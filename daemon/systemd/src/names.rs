//! Units' names as D-Bus object paths: every byte that is no letter or digit becomes `_` and two hexadecimal digits.

const UNITS: &str = "/org/freedesktop/systemd1/unit/";

/// Where the tree of units hangs, for match rules.
pub(crate) const UNITS_NAMESPACE: &str = "/org/freedesktop/systemd1/unit";

/// The object of a unit. systemd escapes a leading digit as well.
pub(crate) fn path_of(unit: &str) -> String {
    let mut path = String::from(UNITS);
    for (at, byte) in unit.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit()) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
}

/// The unit of an object, if it is one.
pub(crate) fn unit_of(path: &str) -> Option<String> {
    let escaped = path.strip_prefix(UNITS)?.as_bytes();
    let mut name = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let [first, tail @ ..] = rest {
        if *first != b'_' {
            name.push(*first);
            rest = tail;
            continue;
        }
        let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
        name.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &tail[2..];
    }
    String::from_utf8(name).ok()
}

/// Whether an object may be a task's unit: what most signals are not about, told without decoding.
pub(crate) fn may_be_a_task(path: &str) -> bool {
    path.strip_prefix(UNITS).is_some_and(|name| name.starts_with("drover_2d") && name.ends_with("_2eservice"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_back() {
        for (unit, path) in [
            ("drover-prod_web.1a.service", "/org/freedesktop/systemd1/unit/drover_2dprod_5fweb_2e1a_2eservice"),
            ("drover-a\\x20b.service", "/org/freedesktop/systemd1/unit/drover_2da_5cx20b_2eservice"),
            ("0x.service", "/org/freedesktop/systemd1/unit/_30x_2eservice"),
        ] {
            assert_eq!(path_of(unit), path);
            assert_eq!(unit_of(path).as_deref(), Some(unit));
        }
        assert!(may_be_a_task(&path_of("drover-x.service")));
        assert!(!may_be_a_task(&path_of("droverd-agent.service")) && !may_be_a_task(&path_of("drover-apps.slice")));
        assert_eq!(unit_of("/org/freedesktop/systemd1/unit/a_2"), None);
    }
}
