//! Every parser of what somebody else wrote, as a target for a fuzzer: bytes in, and properties that must hold whatever they are.
//!
//! Built for tests, and for the fuzzer of `tests/fuzz` (`--cfg fuzzing`), only. Each room keeps its targets beside its parsers.

use crate::{cache, config, oci, server, store, upstream};

/// A target takes any bytes. It panics if a property does not hold.
pub type Target = fn(&[u8]);

/// All targets, by the name of their corpus in `tests/fuzz/corpus/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("answer", upstream::fuzzing::answer),
    ("certificate", config::fuzzing::certificate),
    ("challenge", upstream::fuzzing::challenge),
    ("config", config::fuzzing::config),
    ("index", store::fuzzing::index),
    ("link", upstream::fuzzing::link),
    ("location", upstream::fuzzing::location),
    ("manifest", oci::fuzzing::manifest),
    ("name", oci::fuzzing::name),
    ("range", oci::fuzzing::range),
    ("record", store::fuzzing::record),
    ("request", server::fuzzing::request),
    ("session", cache::fuzzing::session),
    ("token", upstream::fuzzing::token),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;
    use std::fs;
    use std::panic::catch_unwind;
    use std::path::Path;
    use std::time::SystemTime;

    /// Changed inputs per target, unless `LARDER_FUZZ_INPUTS` says how many.
    const INPUTS: u64 = 20_000;
    /// Bytes that an input may grow to.
    const LONGEST: usize = 4096;

    /// Bytes that mean something to one parser or another.
    const SPECIAL: &[u8] = b"\0\n\r \"%,-./0:;=<>?@[\\]_{|}~\x7f\x80\xc3\xff9aAzZ";

    /// Changes inputs, reproducibly (xorshift).
    struct Mutator(u64);

    impl Mutator {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, end: usize) -> usize {
            usize::try_from((self.next() >> 16) % end.max(1) as u64).unwrap_or(0)
        }

        /// A range of `bytes`, perhaps empty.
        fn part(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
            let start = self.below(bytes.len() + 1);
            start..start + self.below((bytes.len() - start).min(40) + 1)
        }

        fn change(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
            for _ in 0..=self.below(6) {
                let part = self.part(input);
                match self.below(7) {
                    0 => drop(input.drain(part)),
                    1 => {
                        let copy = input[part].to_vec();
                        let at = self.below(input.len() + 1);
                        input.splice(at..at, copy);
                    }
                    2 if !input.is_empty() => {
                        let at = self.below(input.len());
                        input[at] ^= 1 << self.below(8);
                    }
                    3 if !input.is_empty() => {
                        let at = self.below(input.len());
                        input[at] = SPECIAL[self.below(SPECIAL.len())];
                    }
                    4 => input.insert(part.start, u8::try_from(self.below(256)).unwrap_or(0)),
                    5 => input.truncate(part.end),
                    // A piece of another one.
                    _ => {
                        let other = &corpus[self.below(corpus.len())];
                        let piece = self.part(other);
                        input.splice(part, other[piece].iter().copied());
                    }
                }
            }
            input.truncate(LONGEST);
        }
    }

    fn corpus(name: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
        let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.iter().map(|path| fs::read(path).unwrap()).collect()
    }

    fn number(variable: &str) -> Option<u64> {
        std::env::var(variable).ok()?.parse().ok()
    }

    fn run(name: &str, target: Target) {
        let clock =
            || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |d| u64::from(d.subsec_nanos()));
        let seed = number("LARDER_FUZZ_SEED").unwrap_or_else(clock);
        let inputs = number("LARDER_FUZZ_INPUTS").unwrap_or(INPUTS);
        println!("{name}: {inputs} inputs, LARDER_FUZZ_SEED={seed}");
        let corpus = corpus(name);
        assert!(corpus.len() > 2, "no corpus of {name}");
        let mut mutator = Mutator(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut input = Vec::new();
        for number in 0..corpus.len() as u64 + inputs {
            let seeds = usize::try_from(number).ok().and_then(|number| corpus.get(number));
            // Some are changed again and again, most anew.
            if seeds.is_some() || number % 8 != 0 {
                input = seeds.unwrap_or(&corpus[mutator.below(corpus.len())]).clone();
            }
            if seeds.is_none() {
                mutator.change(&mut input, &corpus);
            }
            if catch_unwind(|| target(&input)).is_err() {
                let mut hex = String::new();
                for byte in &input {
                    let _ = write!(hex, "\\x{byte:02x}");
                }
                panic!("{name} with {:?}, which is b\"{hex}\"", String::from_utf8_lossy(&input));
            }
        }
    }

    macro_rules! targets {
        ($($name:ident)*) => {
            $(#[test]
            fn $name() {
                let name = stringify!($name);
                run(name, TARGETS.iter().find(|(known, _)| *known == name).unwrap().1);
            })*

            #[test]
            fn every_target_is_run() {
                assert_eq!(TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [$(stringify!($name)),*]);
            }
        };
    }

    targets! { answer certificate challenge config index link location manifest name range record request session token }
}
