//! How long functions are.
use super::{Source, complain, is_word, sources};
use std::collections::BTreeMap;

/// Lines of the longest function, from its `fn` to its last brace.
const LONGEST: usize = 60;
/// Nine functions of ten in every room have no more lines.
const USUAL: usize = 40;

/// Functions that are still longer. None may come.
const NOT_YET_SHORT: &[&str] = &[];

/// The functions of a file that have a body: name and lines.
fn functions(code: &str) -> Vec<(&str, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let name = &code[at + 3..];
        let name = &name[..name.find(|c| !is_word(c)).unwrap_or(name.len())];
        if name.is_empty() || code[..at].ends_with(is_word) {
            continue;
        }
        if let Some(end) = end_of_body(&code[at..]) {
            found.push((name, code[at..at + end].lines().count()));
        }
    }
    found
}

/// Where the body that follows ends; none if there is a `;` instead.
fn end_of_body(code: &str) -> Option<usize> {
    let (mut braces, mut brackets) = (0, 0);
    for (at, c) in code.char_indices() {
        match c {
            '{' => braces += 1,
            '}' if braces == 1 => return Some(at + 1),
            '}' => braces -= 1,
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            ';' if braces == 0 && brackets == 0 => return None,
            _ => {}
        }
    }
    None
}

#[test]
fn functions_are_short() {
    let sources = sources();
    let shipped: Vec<&Source> = sources.iter().filter(|source| !source.test).collect();
    let mut rooms: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let (mut broken, mut long) = (Vec::new(), Vec::new());
    for source in shipped {
        for (name, lines) in functions(source.code_without_tests()) {
            rooms.entry(source.room().unwrap_or_default()).or_default().push(lines);
            let named = format!("{} {name}", source.path);
            if lines > LONGEST && !NOT_YET_SHORT.contains(&&*named) {
                broken.push(format!("src/{named}: {lines} lines, {LONGEST} at most"));
            } else if lines > LONGEST {
                long.push(named);
            }
        }
    }
    let gone = NOT_YET_SHORT.iter().filter(|known| !long.iter().any(|named| named == *known));
    broken.extend(gone.map(|known| format!("{known} is short now: take it off the list")));
    for (room, mut lines) in rooms {
        lines.sort_unstable();
        let usual = lines[lines.len() * 9 / 10];
        if usual > USUAL {
            broken.push(format!("{room}: one function of ten has {usual} lines or more, {USUAL} at most"));
        }
    }
    complain("split what does several things:", &broken);
}

#[test]
fn functions_are_measured_from_their_name_to_their_last_brace() {
    let code = "trait T { fn a(&self) -> [u8; 4]; }\nfn b<F: Fn() -> u8>(f: F)\nwhere\n  F: Copy,\n{\n  if x { y }\n}\nfn c() {}\n";
    assert_eq!(functions(code), [("b", 6), ("c", 1)]);
}
