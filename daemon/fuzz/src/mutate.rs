//! Changed copies of inputs: what a test without libFuzzer tries, the same for the same seed.

use oorandom::Rand32;

/// Longest result.
const BYTES_MAX: usize = 64 << 10;

/// Bytes and words that mean something to one reader or another.
const WORDS: [&[u8]; 32] = [
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\n",
    b"\0",
    b"/",
    b"..",
    b"%2f",
    b"%",
    b"null",
    b"true",
    b"-1",
    b"0",
    b"1e999",
    b"0.0000001",
    b"4294967296",
    b"9223372036854775807",
    b"18446744073709551615",
    b"-9223372036854775808",
    b"\\u0000",
    b"\xff",
    b"\xc3\x28",
    b"R/",
    b"P1Y",
    b"PT0S",
    b"9999-12-31T23:59:59Z",
    b"=",
    b"_2d",
];

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
            let word = WORDS[up_to(dice, WORDS.len() - 1)];
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
