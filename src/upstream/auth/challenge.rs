use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// One challenge of a `WWW-Authenticate` header (RFC 9110, section 11.6.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::upstream) struct Challenge {
    /// The scheme, in lower case.
    pub(in crate::upstream) scheme: String,
    /// Parameters in the order in which they came; names in lower case.
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The parameter's value, if there is one.
    pub(in crate::upstream) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(any(test, fuzzing))]
impl Challenge {
    /// As a header would have it, every value quoted.
    pub(in crate::upstream) fn written(&self) -> String {
        let quoted = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"");
        let parameters = self.parameters.iter().map(|(name, value)| format!("{name}=\"{}\"", quoted(value)));
        format!("{} {}", self.scheme, parameters.collect::<Vec<_>>().join(", "))
    }
}

/// All challenges of all header lines. What cannot be read is left out.
pub(in crate::upstream) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let lines = headers.get_all(WWW_AUTHENTICATE);
    lines.iter().flat_map(|line| parse(&String::from_utf8_lossy(line.as_bytes()))).collect()
}

/// The challenges of one line. A comma separates parameters as well as challenges: an element that begins with two tokens, or
/// is a token alone, begins a challenge.
fn parse(line: &str) -> Vec<Challenge> {
    let mut rest = Cursor { text: line };
    let mut found: Vec<Challenge> = Vec::new();
    loop {
        rest.skip(|c| c == ',' || c.is_ascii_whitespace());
        if rest.text.is_empty() {
            return found;
        }
        let word = rest.token();
        if word.is_empty() {
            rest.next_element();
            continue;
        }
        if let Some(value) = rest.value() {
            // A parameter before any scheme belongs to nothing.
            if let Some(challenge) = found.last_mut() {
                challenge.parameters.push((word.to_ascii_lowercase(), value));
            }
            continue;
        }
        found.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
        rest.skip_token68();
    }
}

struct Cursor<'a> {
    text: &'a str,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.text.find(|c| !wanted(c)).unwrap_or(self.text.len());
        let (taken, rest) = self.text.split_at(end);
        self.text = rest;
        taken
    }

    fn skip(&mut self, unwanted: impl Fn(char) -> bool) {
        self.take(unwanted);
    }

    fn token(&mut self) -> &'a str {
        self.take(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
    }

    /// Gives up on an element that is no list member.
    fn next_element(&mut self) {
        self.skip(|c| c != ',');
    }

    /// `= value`, if that is what follows; nothing is consumed otherwise.
    fn value(&mut self) -> Option<String> {
        let after = self.text.trim_start().strip_prefix('=')?.trim_start();
        if let Some(quoted) = after.strip_prefix('"') {
            let (value, rest) = unquote(quoted);
            self.text = rest;
            return Some(value);
        }
        let end = after.find(|c: char| c == ',' || c.is_ascii_whitespace()).unwrap_or(after.len());
        self.text = &after[end..];
        Some(after[..end].to_owned())
    }

    /// Behind a scheme, one token68 may stand in place of parameters (`Negotiate YII=`). larder does not read it.
    fn skip_token68(&mut self) {
        let mut ahead = Cursor { text: self.text.trim_start() };
        let word = ahead.take(|c| c.is_ascii_alphanumeric() || "-._~+/".contains(c));
        ahead.skip(|c| c == '=');
        let after = ahead.text.trim_start();
        if !word.is_empty() && (after.is_empty() || after.starts_with(',')) {
            self.text = after;
        }
    }
}

/// The content of a quoted string and what follows it; an unclosed one ends with the line.
fn unquote(quoted: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn get<'a>(challenges: &'a [Challenge], scheme: &str, name: &str) -> Option<&'a str> {
        challenges.iter().find(|c| c.scheme == scheme)?.get(name)
    }

    #[test]
    fn reads_the_challenge_of_acr() {
        let line = "Bearer realm=\"https://myacr.azurecr.io/oauth2/token\",service=\"myacr.azurecr.io\",\
                    scope=\"repository:samples/config:pull\",error=\"insufficient_scope\"";
        let found = parse(line);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].get("realm"), Some("https://myacr.azurecr.io/oauth2/token"));
        assert_eq!(found[0].get("service"), Some("myacr.azurecr.io"));
        assert_eq!(found[0].get("scope"), Some("repository:samples/config:pull"));
        assert_eq!(found[0].get("error"), Some("insufficient_scope"));
    }

    #[test]
    fn order_case_spaces_quotes_and_escapes_do_not_matter() {
        let found = parse("bEaReR  scope = \"a:b:pull,push c:d:e\" , REALM=\"https://h/\\\"x\\\"\",service=plain");
        assert_eq!(get(&found, "bearer", "scope"), Some("a:b:pull,push c:d:e"));
        assert_eq!(get(&found, "bearer", "realm"), Some("https://h/\"x\""));
        assert_eq!(get(&found, "bearer", "service"), Some("plain"));
    }

    #[test]
    fn several_challenges_in_a_line_and_several_lines() {
        let found = parse("Negotiate, NTLM TlRMTVNTUAABAAAA==, Basic realm=\"a, b\", Bearer realm=\"r\"");
        let schemes: Vec<_> = found.iter().map(|c| c.scheme.as_str()).collect();
        assert_eq!(schemes, ["negotiate", "ntlm", "basic", "bearer"]);
        assert_eq!(get(&found, "basic", "realm"), Some("a, b"));
        let mut headers = HeaderMap::new();
        headers.append(WWW_AUTHENTICATE, "Basic realm=\"x\"".parse().unwrap());
        headers.append(WWW_AUTHENTICATE, "Bearer realm=\"y\"".parse().unwrap());
        assert_eq!(get(&challenges(&headers), "bearer", "realm"), Some("y"));
    }

    proptest! {
        #[test]
        fn never_panics(line in ".{0,200}") {
            parse(&line);
        }

        #[test]
        fn never_panics_on_the_characters_that_matter(line in "[a-z=,\" \\\\/é]{0,80}") {
            parse(&line);
        }

        #[test]
        fn any_quoted_value_comes_back(value in "[ -~]{0,60}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            let found = parse(&format!("Basic a=b, Bearer service=\"x\",realm=\"{quoted}\""));
            prop_assert_eq!(get(&found, "bearer", "realm"), Some(value.as_str()));
        }
    }
}
