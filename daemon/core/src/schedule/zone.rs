//! Zone names: the IANA database compiled into drover, and the three-letter names that Java once knew.

use jiff::tz::{TimeZone, TimeZoneDatabase};

/// Three-letter names with one meaning among people and in Java; the others of Java's list are refused with what Java took
/// them for, because a job that runs five hours off is worse than one that is refused. (`EST`, `MST`, `HST`, `CET` and their
/// like are names of the IANA database itself.)
const SHORT: [(&str, &str); 4] =
    [("PST", "America/Los_Angeles"), ("JST", "Asia/Tokyo"), ("CAT", "Africa/Harare"), ("EAT", "Africa/Addis_Ababa")];

/// What Java took its other short names for.
const AMBIGUOUS: [(&str, &str); 21] = [
    ("ACT", "Australia/Darwin"),
    ("AET", "Australia/Sydney"),
    ("AGT", "America/Argentina/Buenos_Aires"),
    ("ART", "Africa/Cairo"),
    ("AST", "America/Anchorage"),
    ("BET", "America/Sao_Paulo"),
    ("BST", "Asia/Dhaka"),
    ("CNT", "America/St_Johns"),
    ("CST", "America/Chicago"),
    ("CTT", "Asia/Shanghai"),
    ("ECT", "Europe/Paris"),
    ("IET", "America/Indiana/Indianapolis"),
    ("IST", "Asia/Kolkata"),
    ("MIT", "Pacific/Apia"),
    ("NET", "Asia/Yerevan"),
    ("NST", "Pacific/Auckland"),
    ("PLT", "Asia/Karachi"),
    ("PNT", "America/Phoenix"),
    ("PRT", "America/Puerto_Rico"),
    ("SST", "Pacific/Guadalcanal"),
    ("VST", "Asia/Ho_Chi_Minh"),
];

/// The zone of that name, in any case of letters.
pub(super) fn rules(name: &str) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(name).ok()
}

/// The proper name of a zone as a user wrote it.
///
/// # Errors
/// Why there is none, with names that may have been meant.
pub(super) fn resolve(text: &str) -> Result<String, String> {
    let listed =
        |list: &[(&str, &'static str)]| list.iter().find(|(short, _)| short.eq_ignore_ascii_case(text)).map(|(_, zone)| *zone);
    if let Some(zone) = listed(&SHORT) {
        return Ok(zone.to_owned());
    }
    if let Some(zone) = listed(&AMBIGUOUS) {
        return Err(format!(
            "'{text}' means different zones to different people; Java took it for '{zone}': write the zone's full name"
        ));
    }
    if let Some(name) = rules(text).filter(|zone| !zone.is_unknown()).and_then(|zone| zone.iana_name().map(str::to_owned)) {
        return Ok(name);
    }
    match near(text).as_slice() {
        [] => Err(format!("'{text}' is not a zone of the IANA database; an example of one is 'Europe/Berlin'")),
        near => Err(format!("'{text}' is not a zone of the IANA database; did you mean {}?", quoted(near))),
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(" or ")
}

/// At most three names that look like it: few letters away as a whole or in the last part, or containing it.
fn near(text: &str) -> Vec<String> {
    let wanted = text.to_ascii_lowercase().replace(' ', "_");
    let wanted_city = wanted.rsplit('/').next().unwrap_or(&wanted).to_owned();
    if wanted_city.len() < 3 || wanted.len() > 40 {
        return Vec::new();
    }
    let mut found: Vec<(usize, String)> = TimeZoneDatabase::bundled()
        .available()
        .filter_map(|name| {
            let name = name.as_str().to_owned();
            let lower = name.to_ascii_lowercase();
            let city = lower.rsplit('/').next().unwrap_or(&lower);
            let distance = letters_apart(&wanted, &lower).min(letters_apart(&wanted_city, city));
            let close = distance <= 1 + wanted_city.len() / 5 || lower.contains(&wanted);
            close.then_some((distance, name))
        })
        .collect();
    found.sort();
    found.truncate(3);
    found.into_iter().map(|(_, name)| name).collect()
}

/// Levenshtein distance.
fn letters_apart(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(x != *y)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}
