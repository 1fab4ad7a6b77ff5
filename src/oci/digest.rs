use sha2::{Digest as _, Sha256, Sha512};
use std::fmt;
use std::str::FromStr;

/// A hash algorithm registered by the image specification that larder can verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// `sha256`, 64 hexadecimal characters.
    Sha256,
    /// `sha512`, 128 hexadecimal characters.
    Sha512,
}

impl Algorithm {
    /// The algorithm's name as it stands before the colon.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Length of the hash in bytes.
    #[must_use]
    pub fn hash_len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "sha256" => Some(Self::Sha256),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }
}

/// A content digest, `algorithm:hex` (image specification, descriptor, "Digests").
///
/// A blob may be known by two digests of different algorithms; nothing in larder assumes one name per content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    /// The hash, followed by zeros where the algorithm is shorter.
    hash: [u8; 64],
}

/// Why a text is not a digest that larder can verify.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDigest {
    /// No colon, or not lower-case hexadecimal of the right length behind it.
    #[error("'{0}' is not a digest: expected sha256: and 64, or sha512: and 128 lower-case hexadecimal characters")]
    Malformed(String),
    /// The text has the form of a digest, in an algorithm that larder cannot verify.
    #[error("digest algorithm '{0}' is not supported: sha256 and sha512 are")]
    Unsupported(String),
}

impl Digest {
    /// The digest of `content`.
    #[must_use]
    pub fn of(algorithm: Algorithm, content: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(content);
        hasher.finish()
    }

    /// The algorithm that the content must be hashed with.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hash itself, as many bytes as the algorithm has.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.hash[..self.algorithm.hash_len()]
    }

    /// The part behind the colon.
    #[must_use]
    pub fn hex(&self) -> String {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut hex = String::with_capacity(self.algorithm.hash_len() * 2);
        for byte in self.as_bytes() {
            hex.push(char::from(HEX[usize::from(byte >> 4)]));
            hex.push(char::from(HEX[usize::from(byte & 15)]));
        }
        hex
    }

    /// Whether `content` has this digest.
    #[must_use]
    pub fn matches(&self, content: &[u8]) -> bool {
        Self::of(self.algorithm, content) == *self
    }

    fn from_hash(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hash = [0; 64];
        hash[..algorithm.hash_len()].copy_from_slice(bytes);
        Self { algorithm, hash }
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let malformed = || InvalidDigest::Malformed(text.chars().take(200).collect());
        let (name, hex) = text.split_once(':').ok_or_else(malformed)?;
        let Some(algorithm) = Algorithm::from_name(name) else {
            return Err(if is_algorithm(name) && is_encoded(hex) {
                InvalidDigest::Unsupported(name.to_owned())
            } else {
                malformed()
            });
        };
        if hex.len() != algorithm.hash_len() * 2 {
            return Err(malformed());
        }
        let mut hash = [0; 64];
        for (byte, pair) in hash.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let (Some(high), Some(low)) = (nibble(pair[0]), nibble(pair[1])) else {
                return Err(malformed());
            };
            *byte = high << 4 | low;
        }
        Ok(Self { algorithm, hash })
    }
}

/// Lower case only: the specification's `sha256` encoding is `[a-f0-9]{64}`.
fn nibble(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

fn is_algorithm(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+._-".contains(&b))
}

fn is_encoded(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"=_-".contains(&b))
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.as_str(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A running hash of content that arrives in pieces.
#[derive(Clone, Debug)]
pub struct Hasher(State);

#[derive(Clone, Debug)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    /// A hash of nothing yet.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Sha512::new()),
        })
    }

    /// Adds the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        match &mut self.0 {
            State::Sha256(hash) => hash.update(piece),
            State::Sha512(hash) => hash.update(piece),
        }
    }

    /// The digest of all pieces.
    #[must_use]
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(hash) => Digest::from_hash(Algorithm::Sha256, &hash.finalize()),
            State::Sha512(hash) => Digest::from_hash(Algorithm::Sha512, &hash.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn parses_prints_and_verifies() {
        let digest: Digest = EMPTY.parse().unwrap();
        assert_eq!(digest.to_string(), EMPTY);
        assert!(digest.matches(b""));
        assert!(!digest.matches(b"x"));
        let long = Digest::of(Algorithm::Sha512, b"abc");
        assert_eq!(long.to_string().parse(), Ok(long));
        assert_eq!(long.hex().len(), 128);
    }

    #[test]
    fn refuses_what_it_could_not_verify() {
        for text in ["", "sha256", "sha256:", "sha256:abc", &EMPTY.to_uppercase(), "sha256:g", ":", "md5:", "no colon"]
        {
            assert!(matches!(text.parse::<Digest>(), Err(InvalidDigest::Malformed(_))), "{text}");
        }
        let upper = format!("sha256:{}", &EMPTY[7..].to_uppercase());
        assert!(matches!(upper.parse::<Digest>(), Err(InvalidDigest::Malformed(_))));
        assert_eq!(
            format!("blake3:{}", &EMPTY[7..]).parse::<Digest>(),
            Err(InvalidDigest::Unsupported("blake3".into()))
        );
    }

    #[test]
    fn hashes_in_pieces_as_in_one() {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hasher.finish(), Digest::of(Algorithm::Sha256, b"abc"));
    }
}
