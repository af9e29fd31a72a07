//! Values of unit properties: how each is written by people, and what D-Bus wants of it.

/// A value for `StartTransientUnit`. Each variant is one D-Bus signature; the shell turns it into one mechanically.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PropertyValue {
    /// `b`
    Bool(bool),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `t`; [`u64::MAX`] is infinity.
    U64(u64),
    /// `s`
    Text(String),
    /// `as`
    Texts(Vec<String>),
    /// `aay`: text of bytes, such as `LogExtraFields`.
    ByteTexts(Vec<Vec<u8>>),
    /// `(bas)`: whether what is listed is allowed, or forbidden.
    Filter(bool, Vec<String>),
    /// `(aiai)`: exit codes, signals.
    Exits(Vec<i32>, Vec<i32>),
    /// `a(sasas)`: one program with arguments (`argv[0]` included) and flags.
    Exec {
        /// What is executed.
        path: String,
        /// With which arguments.
        argv: Vec<String>,
        /// `no-env-expand` and the like.
        flags: Vec<String>,
    },
}

/// How a property is written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Bool,
    /// One of these words.
    Word(&'static [&'static str]),
    /// `yes`, `no` or one of these words; sent as text.
    BoolOrWord(&'static [&'static str]),
    /// A size, or `infinity`.
    Bytes,
    /// Of one CPU's time; sent as microseconds per second under this name.
    Percent(&'static str),
    /// A time span, sent under this name.
    Span(&'static str),
    Int(i32, i32),
    Count(u64, u64),
    /// As [`Kind::Count`], where D-Bus wants 32 bits.
    ShortCount(u32, u32),
    /// `soft:hard` or one number for both; sent as two properties.
    Limit,
    /// As [`Kind::Limit`], in bytes.
    LimitBytes,
    Octal,
    /// An absolute path, or `~`.
    Directory,
    /// Absolute paths, each perhaps after `-`.
    Paths,
    /// Words, perhaps after one `~` that turns the list from what is allowed into what is forbidden.
    Filter(fn(&str) -> bool),
    Words(fn(&str) -> bool),
    Capabilities(&'static [(&'static str, u32)]),
    Namespaces,
    Signal,
    Exits,
    Level,
    Label,
}

type Values = Vec<(String, PropertyValue)>;

impl Kind {
    /// Reads `text` as the value of `name`. An error is what the value must be, in words that fit after the name.
    pub(super) fn parse(self, name: &str, text: &str) -> Result<Values, String> {
        use PropertyValue as V;
        let (sent_as, value) = match self {
            Kind::Bool => (name, V::Bool(parse_bool(text).ok_or("must be yes or no")?)),
            Kind::Word(words) => (name, V::Text(pick(words, text).ok_or_else(|| one_of(words))?)),
            Kind::BoolOrWord(words) => {
                let word = match parse_bool(text) {
                    Some(yes) => Some(if yes { "yes" } else { "no" }.to_owned()),
                    None => pick(words, text),
                };
                (name, V::Text(word.ok_or_else(|| format!("must be yes, no or {}", words.join(", ")))?))
            }
            Kind::Bytes => (name, V::U64(parse_bytes(text).ok_or("must be a size such as 512M, or infinity")?)),
            Kind::Percent(sent_as) => {
                (sent_as, V::U64(parse_percent(text).ok_or("must be a percentage of one CPU such as 150%")?))
            }
            Kind::Span(sent_as) => (sent_as, V::U64(parse_span_us(text).ok_or("must be a time span such as 30s or 5min 20s")?)),
            Kind::Int(low, high) => {
                let number = text.parse().ok().filter(|n| (low..=high).contains(n));
                (name, V::I32(number.ok_or_else(|| format!("must be a whole number from {low} to {high}"))?))
            }
            Kind::Count(low, high) => {
                let number = text.parse().ok().filter(|n| (low..=high).contains(n));
                (name, V::U64(number.ok_or_else(|| format!("must be a whole number from {low} to {high}"))?))
            }
            Kind::ShortCount(low, high) => {
                let number = text.parse().ok().filter(|n| (low..=high).contains(n));
                (name, V::U32(number.ok_or_else(|| format!("must be a whole number from {low} to {high}"))?))
            }
            Kind::Limit => return limit(name, text, parse_count, "must be a number, infinity, or SOFT:HARD"),
            Kind::LimitBytes => return limit(name, text, parse_bytes, "must be a size, infinity, or SOFT:HARD"),
            Kind::Octal => {
                let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
                (name, V::U32(mode.ok_or("must be an octal mode such as 0027")?))
            }
            Kind::Directory => {
                let good = text == "~" || is_clean_path(text.strip_prefix('-').unwrap_or(text));
                (name, V::Text(good.then(|| text.to_owned()).ok_or("must be an absolute path without '..', or ~")?))
            }
            Kind::Paths => {
                let bad = |word: &str| !is_clean_path(word.trim_start_matches(['-', '+']));
                let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
                if words.iter().any(|word| bad(word)) {
                    return Err("must be absolute paths without '..', separated by spaces".into());
                }
                (name, V::Texts(words))
            }
            Kind::Filter(is_good) => {
                let (allow, list) = match text.strip_prefix('~') {
                    Some(rest) => (false, rest),
                    None => (true, text),
                };
                let words = if list == "none" { Vec::new() } else { words(list, is_good)? };
                (name, V::Filter(allow, words))
            }
            Kind::Words(is_good) => (name, V::Texts(words(text, is_good)?)),
            Kind::Capabilities(allowed) => (name, V::U64(capabilities(text, allowed)?)),
            Kind::Namespaces => (name, V::U64(namespaces(text)?)),
            Kind::Signal => (name, V::I32(parse_signal(text).ok_or("must be a signal's name such as SIGINT")?)),
            Kind::Exits => (name, exits(text)?),
            Kind::Level => {
                let number = LEVELS.iter().position(|level| *level == text).and_then(|at| i32::try_from(at).ok());
                (name, V::I32(number.ok_or_else(|| one_of(LEVELS))?))
            }
            Kind::Label => {
                let good = !text.is_empty() && text.len() <= 128 && text.chars().all(|c| !c.is_control());
                (name, V::Text(good.then(|| text.to_owned()).ok_or("must be a short text without control characters")?))
            }
        };
        Ok(vec![(sent_as.to_owned(), value)])
    }
}

/// What systemd takes for a boolean.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "yes" | "true" | "on" | "1" | "y" | "t" => Some(true),
        "no" | "false" | "off" | "0" | "n" | "f" => Some(false),
        _ => None,
    }
}

fn pick(words: &[&str], text: &str) -> Option<String> {
    words.iter().find(|word| **word == text).map(|word| (*word).to_owned())
}

fn one_of(words: &[&str]) -> String {
    format!("must be one of {}", words.join(", "))
}

fn words(text: &str, is_good: fn(&str) -> bool) -> Result<Vec<String>, String> {
    match text.split_whitespace().find(|word| !is_good(word)) {
        Some(bad) => Err(format!("must be names separated by spaces, and {bad:?} is none that is known here")),
        None => Ok(text.split_whitespace().map(str::to_owned).collect()),
    }
}

fn is_clean_path(path: &str) -> bool {
    path.starts_with('/') && !path.split('/').any(|part| part == ".." || part == ".") && !path.chars().any(char::is_control)
}

fn parse_count(text: &str) -> Option<u64> {
    if text == "infinity" { Some(u64::MAX) } else { text.parse().ok() }
}

fn parse_bytes(text: &str) -> Option<u64> {
    if text == "infinity" {
        return Some(u64::MAX);
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" | "B" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    digits.trim_end().parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn parse_percent(text: &str) -> Option<u64> {
    let percent: u64 = text.strip_suffix('%')?.trim_end().parse().ok()?;
    // CPUQuotaPerSecUSec: microseconds of CPU in each second.
    (1..=100_000).contains(&percent).then_some(percent * 10_000)
}

/// A time span as in systemd.time(7), `infinity` included; a bare number counts seconds.
pub(super) fn parse_span_us(text: &str) -> Option<u64> {
    if text == "infinity" {
        return Some(u64::MAX);
    }
    let mut rest = text.trim();
    let mut total: u64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
        let unit_us: u64 = match &rest[..letters] {
            "us" | "usec" => 1,
            "ms" | "msec" => 1_000,
            "" | "s" | "sec" | "second" | "seconds" => 1_000_000,
            "m" | "min" | "minute" | "minutes" => 60_000_000,
            "h" | "hr" | "hour" | "hours" => 3_600_000_000,
            "d" | "day" | "days" => 86_400_000_000,
            _ => return None,
        };
        rest = rest[letters..].trim_start();
        total = total.checked_add(number.checked_mul(unit_us)?)?;
    }
    // Zero means "no limit" to systemd, which is the opposite of what it says.
    (total > 0).then_some(total)
}

fn limit(name: &str, text: &str, parse: fn(&str) -> Option<u64>, must: &str) -> Result<Values, String> {
    let (soft, hard) = text.split_once(':').unwrap_or((text, text));
    let (soft, hard) = parse(soft).zip(parse(hard)).filter(|(soft, hard)| soft <= hard).ok_or_else(|| must.to_owned())?;
    Ok(vec![(name.to_owned(), PropertyValue::U64(hard)), (format!("{name}Soft"), PropertyValue::U64(soft))])
}

fn capabilities(text: &str, allowed: &[(&str, u32)]) -> Result<u64, String> {
    let (inverted, list) = match text.strip_prefix('~') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut mask = 0;
    for word in list.split_whitespace() {
        let Some((_, bit)) = allowed.iter().find(|(name, _)| *name == word) else {
            let names: Vec<&str> = allowed.iter().map(|(name, _)| *name).collect();
            return Err(format!("may name {}: whoever holds another owns the machine, or it is none", names.join(", ")));
        };
        mask |= 1 << bit;
    }
    let all = allowed.iter().fold(0, |mask, (_, bit)| mask | (1 << bit));
    Ok(if inverted { all & !mask } else { mask })
}

/// `CLONE_NEW…` of the kinds of namespace, as systemd names them.
const NAMESPACES: &[(&str, u64)] = &[
    ("cgroup", 0x0200_0000),
    ("ipc", 0x0800_0000),
    ("mnt", 0x0002_0000),
    ("net", 0x4000_0000),
    ("pid", 0x2000_0000),
    ("user", 0x1000_0000),
    ("uts", 0x0400_0000),
];

/// The property holds what is allowed; "yes, restrict" is nothing.
fn namespaces(text: &str) -> Result<u64, String> {
    let all = NAMESPACES.iter().fold(0, |mask, (_, bit)| mask | bit);
    if let Some(restrict) = parse_bool(text) {
        return Ok(if restrict { 0 } else { all });
    }
    let (inverted, list) = match text.strip_prefix('~') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut mask = 0;
    for word in list.split_whitespace() {
        let bit = NAMESPACES.iter().find(|(name, _)| *name == word);
        mask |= bit.ok_or("must be yes, no or some of cgroup, ipc, mnt, net, pid, user, uts")?.1;
    }
    Ok(if inverted { all & !mask } else { mask })
}

/// Signals a program is asked to end with, and those that end one, by their numbers on Linux (signal(7)).
const SIGNALS: &[(&str, i32)] = &[
    ("SIGHUP", 1),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGILL", 4),
    ("SIGTRAP", 5),
    ("SIGABRT", 6),
    ("SIGBUS", 7),
    ("SIGFPE", 8),
    ("SIGKILL", 9),
    ("SIGUSR1", 10),
    ("SIGSEGV", 11),
    ("SIGUSR2", 12),
    ("SIGPIPE", 13),
    ("SIGALRM", 14),
    ("SIGTERM", 15),
    ("SIGSTKFLT", 16),
    ("SIGXCPU", 24),
    ("SIGXFSZ", 25),
    ("SIGVTALRM", 26),
    ("SIGPROF", 27),
    ("SIGIO", 29),
    ("SIGPWR", 30),
    ("SIGSYS", 31),
];

fn parse_signal(text: &str) -> Option<i32> {
    let named = |name: &str| SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    named(text).or_else(|| named(&format!("SIG{text}"))).or_else(|| text.parse().ok().filter(|n| (1..=64).contains(n)))
}

/// `SIGTERM`, or `signal 40` for one without a name here.
pub(crate) fn signal_name(number: i32) -> String {
    match SIGNALS.iter().find(|(_, known)| *known == number) {
        Some((name, _)) => (*name).to_owned(),
        None => format!("signal {number}"),
    }
}

fn exits(text: &str) -> Result<PropertyValue, String> {
    let (mut codes, mut signals) = (Vec::new(), Vec::new());
    for word in text.split_whitespace() {
        match word.parse::<u8>() {
            Ok(code) => codes.push(i32::from(code)),
            Err(_) if word.starts_with("SIG") => signals.push(parse_signal(word).ok_or(EXITS)?),
            Err(_) => return Err(EXITS.into()),
        }
    }
    Ok(PropertyValue::Exits(codes, signals))
}

const EXITS: &str = "must be exit codes from 0 to 255 and signals' names, separated by spaces";

const LEVELS: &[&str] = &["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
