//! Changed copies of inputs: what a test without libFuzzer tries, the same for the same seed.

use crate::unescape;
use oorandom::Rand32;
use std::sync::OnceLock;

/// Longest result.
const BYTES_MAX: usize = 64 << 10;

/// Bytes and words that mean something to one reader or another.
fn words() -> &'static [Vec<u8>] {
    static WORDS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    WORDS.get_or_init(|| {
        let lines = include_str!("../words").lines();
        let quoted = lines.filter_map(|line| line.strip_prefix('"')?.strip_suffix('"'));
        quoted.map(|word| unescape(word.as_bytes())).collect()
    })
}

/// A changed copy of `input`; `other` is one to take pieces of.
pub fn changed(input: &[u8], other: &[u8], dice: &mut Rand32) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=dice.rand_range(0..4) {
        change(&mut bytes, other, dice);
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

fn change(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Rand32) {
    let up_to = |dice: &mut Rand32, most: usize| dice.rand_range(0..most as u32 + 1) as usize;
    let at = up_to(dice, bytes.len());
    let length = up_to(dice, (bytes.len() - at).min(32));
    match dice.rand_range(0..7) {
        0 if at < bytes.len() => bytes[at] ^= 1 << dice.rand_range(0..8),
        1 if at < bytes.len() => bytes[at] = dice.rand_u32() as u8,
        2 => drop(bytes.drain(at..at + length)),
        3 => {
            let word = &words()[up_to(dice, words().len() - 1)];
            bytes.splice(at..at + length.min(word.len()), word.iter().copied());
        }
        4 => {
            let copy = bytes[at..at + length].to_vec();
            bytes.splice(at..at, copy);
        }
        5 => bytes.truncate(at),
        _ => {
            let from = up_to(dice, other.len());
            let piece = &other[from..from + up_to(dice, (other.len() - from).min(256))];
            bytes.splice(at..at + length, piece.iter().copied());
        }
    }
}
