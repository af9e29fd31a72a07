//! The core's values as D-Bus variants, and back.

use drover_core::unit::PropertyValue;
use std::collections::HashMap;
use zbus::{OwnedVariant, Variant};

/// The variant of a property's value; its signature is the one named at each [`PropertyValue`].
pub(crate) fn to_variant(value: &PropertyValue) -> Variant<'_> {
    match value {
        PropertyValue::Bool(value) => Variant::from(*value),
        PropertyValue::I32(value) => Variant::from(*value),
        PropertyValue::U32(value) => Variant::from(*value),
        PropertyValue::U64(value) => Variant::from(*value),
        PropertyValue::Text(value) => Variant::from(value.as_str()),
        PropertyValue::Texts(values) => Variant::from(values.iter().map(String::as_str).collect::<Vec<_>>()),
        PropertyValue::ByteTexts(values) => Variant::from(values.clone()),
        PropertyValue::Filter(allow, names) => Variant::from((*allow, names.clone())),
        PropertyValue::Exits(codes, signals) => Variant::from((codes.clone(), signals.clone())),
        PropertyValue::Exec { path, argv, flags } => Variant::from(vec![(path.clone(), argv.clone(), flags.clone())]),
    }
}

/// Properties as `GetAll` and `PropertiesChanged` carry them.
pub(crate) type Properties = HashMap<String, OwnedVariant>;

pub(crate) fn text<'a>(properties: &'a Properties, name: &str) -> Option<&'a str> {
    match &**properties.get(name)? {
        Variant::Str(text) => Some(text.as_str()),
        _ => None,
    }
}

pub(crate) fn i32(properties: &Properties, name: &str) -> Option<i32> {
    match &**properties.get(name)? {
        Variant::I32(number) => Some(*number),
        _ => None,
    }
}

pub(crate) fn u64(properties: &Properties, name: &str) -> Option<u64> {
    match &**properties.get(name)? {
        Variant::U64(number) => Some(*number),
        _ => None,
    }
}

/// `InvocationID`, an `ay` of sixteen bytes or none, in hex.
pub(crate) fn invocation(properties: &Properties) -> Option<Option<String>> {
    let Variant::Array(bytes) = &**properties.get("InvocationID")? else { return None };
    let hex: String = bytes.iter().filter_map(|byte| u8::try_from(byte).ok()).map(|byte| format!("{byte:02x}")).collect();
    Some(Some(hex).filter(|hex| !hex.is_empty()))
}

/// `Job`, a `(uo)` whose number is 0 when there is none.
pub(crate) fn has_job(properties: &Properties) -> Option<bool> {
    let Variant::Structure(job) = &**properties.get("Job")? else { return None };
    match job.fields().first()? {
        Variant::U32(number) => Some(*number != 0),
        _ => None,
    }
}

/// The value of one of `LogExtraFields`, an `aay`.
pub(crate) fn journal_field(properties: &Properties, name: &str) -> Option<String> {
    let Variant::Array(fields) = &**properties.get("LogExtraFields")? else { return None };
    fields.iter().find_map(|field| {
        let Variant::Array(bytes) = field else { return None };
        let bytes: Vec<u8> = bytes.iter().filter_map(|byte| u8::try_from(byte).ok()).collect();
        let text = String::from_utf8(bytes).ok()?;
        let (found, value) = text.split_once('=')?;
        (found == name).then(|| value.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_systemds() {
        let texts = || vec!["a".to_owned()];
        for (value, signature) in [
            (PropertyValue::Bool(true), "b"),
            (PropertyValue::I32(1), "i"),
            (PropertyValue::U32(1), "u"),
            (PropertyValue::U64(1), "t"),
            (PropertyValue::Text("a".into()), "s"),
            (PropertyValue::Texts(texts()), "as"),
            (PropertyValue::Texts(vec![]), "as"),
            (PropertyValue::ByteTexts(vec![b"A=b".to_vec()]), "aay"),
            (PropertyValue::Filter(true, texts()), "(bas)"),
            (PropertyValue::Exits(vec![1], vec![]), "(aiai)"),
            (PropertyValue::Exec { path: "/x".into(), argv: texts(), flags: texts() }, "a(sasas)"),
        ] {
            assert_eq!(to_variant(&value).value_signature().to_string(), signature, "{value:?}");
        }
    }

    #[test]
    fn what_systemd_says_is_read() {
        let properties: Properties = [
            ("InvocationID", Variant::from(vec![0x0au8, 0xff])),
            ("Job", Variant::from((7u32, zbus::ObjectPath::from_static_str_unchecked("/x")))),
            ("LogExtraFields", Variant::from(vec![b"A=b=c".to_vec(), b"DROVER_TASK=t".to_vec()])),
            ("ExecMainStatus", Variant::from(7)),
            ("ActiveState", Variant::from("active")),
        ]
        .map(|(name, value)| (name.to_owned(), OwnedVariant::try_from(value).unwrap()))
        .into();
        assert_eq!(invocation(&properties), Some(Some("0aff".into())));
        assert_eq!(has_job(&properties), Some(true));
        assert_eq!(journal_field(&properties, "DROVER_TASK").as_deref(), Some("t"));
        assert_eq!(journal_field(&properties, "A").as_deref(), Some("b=c"));
        assert_eq!(i32(&properties, "ExecMainStatus"), Some(7));
        assert_eq!(text(&properties, "ActiveState"), Some("active"));
        assert_eq!(text(&properties, "SubState"), None);
    }
}
