//! Commands together with their JSON. The text is made once, when they are proposed; the log takes it as it is, so does the
//! wire to each of the other masters, and so do their logs.

use drover_core::state::Command;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

/// Commands that are applied one after the other. As JSON it is the list of them.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    commands: Vec<Command>,
    json: Box<RawValue>,
}

impl Batch {
    pub(super) fn new(commands: Vec<Command>) -> Self {
        let json = to_raw_value(&commands).expect("commands are plain data");
        Self { commands, json }
    }

    /// Those of several batches, in their order.
    pub(super) fn joined(mut batches: Vec<Self>) -> Self {
        if batches.len() == 1 {
            return batches.pop().expect("there is one");
        }
        let lists = batches.iter().filter_map(|batch| batch.json.get().strip_prefix('[')?.strip_suffix(']'));
        let lists: Vec<&str> = lists.filter(|list| !list.is_empty()).collect();
        let json = RawValue::from_string(format!("[{}]", lists.join(","))).expect("lists of JSON make a list of JSON");
        Self { commands: batches.into_iter().flat_map(|batch| batch.commands).collect(), json }
    }

    pub(super) fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// The length of its JSON.
    pub(super) fn bytes(&self) -> usize {
        self.json.get().len()
    }
}

impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        let commands = serde_json::from_str(json.get()).map_err(D::Error::custom)?;
        Ok(Self { commands, json })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_core::ids::Role;
    use drover_core::time::Timestamp;

    fn command(weight_milli: u64) -> Command {
        Command::SetRoleWeight { role: Role::any(), weight_milli, at: Timestamp(5) }
    }

    #[test]
    fn its_json_is_the_list_of_its_commands() {
        let batches = [vec![], vec![command(1)], vec![], vec![command(2), command(3)]];
        for count in 1..=batches.len() {
            let commands: Vec<Command> = batches[..count].iter().flatten().cloned().collect();
            let joined = Batch::joined(batches[..count].iter().cloned().map(Batch::new).collect());
            let text = serde_json::to_string(&commands).unwrap();
            assert_eq!((joined.commands(), joined.bytes()), (&commands[..], text.len()));
            assert_eq!(serde_json::to_string(&joined).unwrap(), text);
            let read: Batch = serde_json::from_str(&text).unwrap();
            assert_eq!((read.commands(), serde_json::to_string(&read).unwrap()), (&commands[..], text));
        }
        serde_json::from_str::<Batch>(r#"[{"Unheard":{"of":5}}]"#).unwrap_err();
    }
}
