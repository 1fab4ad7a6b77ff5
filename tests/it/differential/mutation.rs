//! What is done to an answer.

use super::Dice;

/// Numbers from here on are of mutations that concern an upstream as a whole: each needs one of its own.
pub(super) const WIDE: u64 = 1_000_000;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Tag,
    Digest,
    Head,
    Blob,
    /// The first tags, as oci-client asks for them.
    Tags,
    /// All tags, page by page, as Go clients follow them.
    Pages,
    Referrers,
    /// All repositories, page by page.
    Catalogue,
}

/// Which answers are touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    ManifestHead,
    ManifestGet,
    Manifest,
    Blob,
    Tags,
    Referrers,
    Catalogue,
}

/// What becomes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Another status, and another body where there is one.
    Status(&'static str, Body),
    /// A header without which an answer is the same.
    Without(&'static str),
    /// A header with another value; the one that was there goes.
    Header(&'static str, &'static str),
    /// A header besides.
    Besides(&'static str, &'static str),
    /// A success with another body.
    Body(Body),
    /// A redirect to the content at another path of the same host, which is written like this.
    Redirect(&'static str, &'static str),
    /// 429, with this `Retry-After` where there is one.
    Throttle(Option<&'static str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Same,
    Empty,
    Page,
    Json,
    Errors,
    Cut,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mutation {
    pub(super) target: Target,
    pub(super) deed: Deed,
    pub(super) changes: Vec<Change>,
}

const TARGETS: [Target; 6] =
    [Target::ManifestHead, Target::ManifestGet, Target::Manifest, Target::Blob, Target::Tags, Target::Referrers];

/// How long a registry wants to be left alone, in words that are good, bad or none.
const PAUSES: [Option<&str>; 8] =
    [None, Some("0"), Some("1"), Some("2"), Some(""), Some("soon"), Some("-1"), Some("Wed, 21 Oct 2015 07:28:00 GMT")];

/// Links to a next page that are wrong, or lead elsewhere.
const LINKS: [&str; 7] = [
    "",
    "<>",
    "nonsense",
    "<http://registry.invalid:5000/v2/elsewhere/tags/list?last=v3&n=3>; rel=\"next\"",
    "</v2/elsewhere/tags/list?last=v3&n=3>; rel=\"next\"",
    "</>; rel=\"next\"",
    "</x>; rel=\"prev\"",
];

/// Without 429, which concerns an upstream as a whole, and 401 with a challenge, which has tests of its own.
const STATUSES: [&str; 22] = [
    "201 Created",
    "202 Accepted",
    "203 Other",
    "204 No Content",
    "206 Partial Content",
    "300 Many",
    "304 Not Modified",
    "307 Temporary Redirect",
    "400 Bad Request",
    "401 Unauthorized",
    "403 Forbidden",
    "404 Not Found",
    "405 Method Not Allowed",
    "406 Not Acceptable",
    "410 Gone",
    "416 Range Not Satisfiable",
    "418 Teapot",
    "451 Legal",
    "500 Internal Server Error",
    "501 Not Implemented",
    "502 Bad Gateway",
    "503 Service Unavailable",
];

const BODIES: [Body; 6] = [Body::Same, Body::Empty, Body::Page, Body::Json, Body::Errors, Body::Cut];

const TYPES: [&str; 12] = [
    "",
    "text/plain",
    "text/plain; charset=utf-8",
    "text/html",
    "text/html; charset=utf-8",
    "application/octet-stream",
    "application/json",
    "application/json; charset=utf-8",
    "binary/octet-stream",
    "application/vnd.oci.image.manifest.v1+json; charset=utf-8",
    "nonsense",
    "application/xml",
];

const HARMLESS: [(&str, &str); 14] = [
    ("Content-Encoding", ""),
    ("Content-Encoding", "identity"),
    ("Content-Encoding", "utf-8"),
    ("Content-Encoding", "aws-chunked"),
    ("Location", ""),
    ("Location", "/elsewhere"),
    ("Link", ""),
    ("Link", "</x>; rel=\"prev\""),
    ("Retry-After", "60"),
    ("ETag", ""),
    ("Content-Range", "bytes 0-1/2"),
    ("Www-Authenticate", "Basic realm=\"x\""),
    ("Vary", "*"),
    ("X-Odd", "\u{e4}\u{f6}"),
];

const LOCATIONS: [&str; 10] = [
    "/alt{}",
    "//{host}/alt{}",
    "http://{host}/alt{}",
    "/alt/./x/..{}",
    "/a/../alt{}?a b=\"c\"",
    "/alt{}?\u{e4}=1",
    "http://{host}/alt{}#top",
    "/alt{}?x=|^`{}",
    "/alt{}?",
    " /alt{} ",
];

impl Mutation {
    /// The mutation with this number.
    pub(super) fn of(seed: u64, number: u64) -> Self {
        let mut dice = Dice::new(seed.wrapping_add(number.wrapping_mul(0x2545_f491_4f6c_dd1d)));
        for _ in 0..4 {
            dice.next();
        }
        let is_wide = number >= WIDE;
        let throttles = is_wide && dice.one_in(2);
        let target = if is_wide && !throttles { Target::Catalogue } else { *dice.pick(&TARGETS) };
        let count = 1 + dice.below(3);
        let mut changes: Vec<_> = (0..count).map(|_| Change::of(&mut dice)).collect();
        if throttles {
            changes = vec![Change::Throttle(*dice.pick::<Option<&'static str>>(&PAUSES))];
        }
        let deed = match target {
            Target::ManifestHead | Target::ManifestGet | Target::Manifest => {
                *dice.pick(&[Deed::Tag, Deed::Digest, Deed::Head])
            }
            Target::Blob => Deed::Blob,
            Target::Tags => *dice.pick(&[Deed::Tags, Deed::Pages]),
            Target::Referrers => Deed::Referrers,
            Target::Catalogue => Deed::Catalogue,
        };
        Self { target, deed, changes }
    }

    /// Whether it leads a list elsewhere.
    pub(super) fn redirects(&self) -> bool {
        let lists = matches!(self.deed, Deed::Pages | Deed::Catalogue);
        lists && self.changes.iter().any(|change| matches!(change, Change::Redirect(..)))
    }

    /// Whether it tells clients to come back later.
    pub(super) fn throttles(&self) -> bool {
        self.changes.iter().any(|change| matches!(change, Change::Throttle(_)))
    }
}

impl Change {
    fn of(dice: &mut Dice) -> Self {
        match dice.below(8) {
            0 | 1 => Self::Status(*dice.pick::<&'static str>(&STATUSES), *dice.pick(&BODIES)),
            2 => Self::Without(*dice.pick::<&'static str>(&[
                "Docker-Distribution-Api-Version",
                "Content-Type",
                "Docker-Content-Digest",
                "Link",
            ])),
            7 => Self::Header("Link", *dice.pick::<&'static str>(&LINKS)),
            3 => Self::Header("Content-Type", *dice.pick::<&'static str>(&TYPES)),
            4 => {
                let (name, value) = dice.pick(&HARMLESS);
                Self::Besides(name, value)
            }
            5 => Self::Body(*dice.pick(&BODIES)),
            _ => Self::Redirect(
                *dice.pick::<&'static str>(&[
                    "301 Moved",
                    "302 Found",
                    "303 See Other",
                    "307 Temporary Redirect",
                    "308 Permanent Redirect",
                ]),
                *dice.pick::<&'static str>(&LOCATIONS),
            ),
        }
    }
}
