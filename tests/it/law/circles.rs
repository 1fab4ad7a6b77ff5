//! Circles inside a room: files that cannot be read, or changed, one without the others.
//!
//! An arrow goes from a file to each file whose items it names. Paths are followed through the re-exports of a `mod.rs`, which
//! alone make no arrow. Method calls are not seen, but the import of their type is.
use super::{Source, complain, is_word, sources};
use std::collections::{BTreeMap, BTreeSet};

/// Files that may need each other.
const LARGEST: usize = 2;

/// Rooms that still have larger circles, and how many files each of these has. A line may get shorter or go; none may come.
const NOT_YET_CLEAN: &[(&str, &[usize])] = &[("access", &[6]), ("admin", &[3]), ("bundle", &[4]), ("cli", &[3])];

/// The modules of all rooms: path of the module → its file and what its code says, unit tests left out.
struct Modules<'a>(BTreeMap<Vec<&'a str>, Module<'a>>);

struct Module<'a> {
    file: &'a str,
    code: &'a str,
    reexports: Vec<Vec<&'a str>>,
}

impl<'a> Modules<'a> {
    fn of(sources: &'a [Source]) -> Self {
        let shipped = sources.iter().filter(|source| !source.test && source.room().is_some());
        let modules = shipped.map(|source| {
            let (reexports, code) = (reexports(source.code_without_tests()), source.code_without_tests());
            (module_path(&source.path), Module { file: &source.path, code, reexports })
        });
        Self(modules.collect())
    }

    fn children(&self, of: &[&'a str]) -> BTreeSet<&'a str> {
        let below = self.0.keys().filter(|path| path.len() == of.len() + 1 && path.starts_with(of));
        below.map(|path| path[of.len()]).collect()
    }

    /// The file that a path leads to, seen from module `from`.
    fn file_of(&self, from: &[&'a str], path: &[&'a str]) -> Option<&'a str> {
        self.follow(from, path, 0)
    }

    fn follow(&self, from: &[&'a str], path: &[&'a str], depth: usize) -> Option<&'a str> {
        let (mut at, mut rest): (Vec<&str>, &[&str]) = match path {
            ["crate", rest @ ..] => (Vec::new(), rest),
            _ => (from.to_vec(), path),
        };
        while let [first, more @ ..] = rest {
            match *first {
                "self" => {}
                "super" => drop(at.pop()),
                child if self.0.contains_key(&[&at[..], &[child]].concat()) => at.push(child),
                _ => break,
            }
            rest = more;
        }
        let module = self.0.get(&at)?;
        let reexport = rest.first().and_then(|name| {
            module.reexports.iter().find(|path| path.last() == Some(name) || path.last() == Some(&"*"))
        });
        match reexport {
            Some(path) if depth < 8 => {
                let path = if path.last() == Some(&"*") { &path[..path.len() - 1] } else { &path[..] };
                self.follow(&at, path, depth + 1)
            }
            _ => Some(module.file),
        }
    }

    /// The files of its own room that each file of a room names.
    fn arrows(&self, room: &str) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
        let of_room = self.0.iter().filter(|(path, _)| path.first() == Some(&room));
        let arrows = of_room.map(|(path, module)| {
            let children = self.children(path);
            let begins = |word: &str| matches!(word, "crate" | "self" | "super") || children.contains(word);
            let named = paths(module.code, begins);
            let reexported: BTreeSet<&Vec<&str>> = module.reexports.iter().collect();
            let used = named.iter().filter(|named| !reexported.contains(named));
            let files = used.filter_map(|used| self.file_of(path, used)).filter(|file| *file != module.file);
            let in_room = |file: &&str| file.split('/').next() == Some(room);
            (module.file, files.filter(in_room).collect())
        });
        arrows.collect()
    }
}

/// `store/index/mod.rs` → `store::index`.
fn module_path(file: &str) -> Vec<&str> {
    let mut path: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
    if path.last() == Some(&"mod") {
        path.pop();
    }
    path
}

/// The paths of `pub use` and `pub(…) use`.
fn reexports(code: &str) -> Vec<Vec<&str>> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let line = code[..at].rsplit('\n').next().unwrap_or_default().trim();
        if line.starts_with("pub") {
            let end = code[at..].find(';').map_or(code.len(), |end| at + end);
            expand(&code[at + 4..end], &[], &mut found);
        }
    }
    found
}

/// Every path in the code whose first word `begins` one; use trees are expanded.
fn paths(code: &str, begins: impl Fn(&str) -> bool) -> Vec<Vec<&str>> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("::") {
        let start = code[..at].rfind(|c| !is_word(c)).map_or(0, |before| before + 1);
        let before = code[..start].trim_end();
        // A visibility says who may use it, and uses nothing.
        let is_visibility = before.ends_with("pub(in");
        if begins(&code[start..at]) && !is_visibility && !before.ends_with("::") && !is_in_use_tree(before) {
            expand(&code[start..], &[], &mut found);
        }
    }
    found
}

/// Whether what comes next is inside the braces of a path, which is expanded from its beginning.
fn is_in_use_tree(before: &str) -> bool {
    let mut depth = 0;
    for (at, c) in before.char_indices().rev() {
        match c {
            '}' => depth += 1,
            '{' if depth == 0 => return before[..at].trim_end().ends_with("::"),
            '{' => depth -= 1,
            ';' => return false,
            _ => {}
        }
    }
    false
}

/// The paths of a use tree, or the one path that the text begins with; what comes behind it.
fn expand<'a>(text: &'a str, prefix: &[&'a str], found: &mut Vec<Vec<&'a str>>) -> &'a str {
    let mut path = prefix.to_vec();
    let mut rest = text.trim_start();
    loop {
        if let Some(mut tree) = rest.strip_prefix('{') {
            loop {
                tree = tree.trim_start().trim_start_matches(',').trim_start();
                if tree.is_empty() || tree.starts_with('}') {
                    return tree.get(1..).unwrap_or_default();
                }
                let behind = expand(tree, &path, found);
                if behind.len() == tree.len() {
                    return behind;
                }
                tree = behind
                    .trim_start()
                    .strip_prefix("as ")
                    .map_or(behind, |alias| alias.trim_start().trim_start_matches(is_word));
            }
        }
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        match &rest[..end] {
            "" if rest.starts_with('*') => {
                path.push("*");
                rest = &rest[1..];
            }
            "" => {}
            // In a tree, the module before it.
            "self" if !path.is_empty() => rest = &rest[end..],
            word => {
                path.push(word);
                rest = &rest[end..];
            }
        }
        match rest.strip_prefix("::") {
            Some(more) if !more.starts_with('<') => rest = more.trim_start(),
            _ => break,
        }
    }
    found.push(path);
    rest
}

/// Sets of files of which each leads to each.
fn circles<'a>(arrows: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<BTreeSet<&'a str>> {
    let mut found = all_circles(arrows);
    found.retain(|circle| circle.len() > LARGEST);
    found
}

fn all_circles<'a>(arrows: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<BTreeSet<&'a str>> {
    let reached = |from: &'a str| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(file) = next.pop() {
            next.extend(arrows.get(file).into_iter().flatten().filter(|to| seen.insert(**to)));
        }
        seen
    };
    let reach: BTreeMap<&str, BTreeSet<&str>> = arrows.keys().map(|file| (*file, reached(file))).collect();
    let mut found: Vec<BTreeSet<&str>> = Vec::new();
    for (file, reached) in &reach {
        if reached.contains(file) && !found.iter().any(|circle| circle.contains(file)) {
            found.push(reached.iter().filter(|other| reach[*other].contains(file)).copied().collect());
        }
    }
    found.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
    found
}

#[test]
fn no_room_has_a_circle_of_more_than_two_files() {
    let sources = sources();
    let modules = Modules::of(&sources);
    let rooms: BTreeSet<&str> = modules.0.keys().map(|path| path[0]).collect();
    let mut broken = Vec::new();
    for room in rooms {
        let found = circles(&modules.arrows(room));
        let known = NOT_YET_CLEAN.iter().find(|(name, _)| *name == room).map_or(&[][..], |(_, sizes)| sizes);
        let sizes: Vec<usize> = found.iter().map(BTreeSet::len).collect();
        if sizes != known {
            broken.push(format!("{room}: circles of {sizes:?} files, and the table says {known:?}: {found:?}"));
        }
    }
    complain(
        "files that need each other in a circle; if there are fewer than the table says, correct the table:",
        &broken,
    );
}

/// Rooms whose folders stand on each other in one order. More may come.
const LAYERED: &[&str] = &["cache", "store"];

/// The folder of a room that a file lies in; a file beside the folders stands for itself, but for the room's `mod.rs`.
fn folder(file: &str) -> Option<&str> {
    let inside = file.split_once('/')?.1;
    (inside != "mod.rs").then(|| inside.split('/').next().unwrap_or(inside))
}

#[test]
fn folders_of_a_layered_room_do_not_need_each_other_in_a_circle() {
    let sources = sources();
    let modules = Modules::of(&sources);
    let mut broken = Vec::new();
    for room in LAYERED {
        let mut folders: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (from, named) in modules.arrows(room) {
            let Some(from) = folder(from) else { continue };
            let to = named.into_iter().filter_map(folder).filter(|to| *to != from);
            folders.entry(from).or_default().extend(to);
        }
        broken.extend(all_circles(&folders).iter().map(|circle| format!("{room}: {circle:?}")));
    }
    complain("folders that need each other in a circle:", &broken);
}

/// Prints a room's arrows for a drawing: `LARDER_DRAW=store cargo test --test it draws_a_room -- --nocapture`.
#[test]
fn draws_a_room_and_knows_every_file_of_it() {
    let sources = sources();
    let modules = Modules::of(&sources);
    let room = std::env::var("LARDER_DRAW").unwrap_or_else(|_| "store".to_owned());
    let arrows = modules.arrows(&room);
    for (file, named) in &arrows {
        println!("{file} -> {}", named.iter().copied().collect::<Vec<_>>().join(" "));
    }
    let of_room = sources.iter().filter(|source| !source.test && source.room() == Some(&room));
    assert_eq!(arrows.len(), of_room.count());
    assert!(
        arrows.values().map(BTreeSet::len).sum::<usize>() >= arrows.len() / 2,
        "hardly any arrows: are paths read?"
    );
}

mod reading {
    use super::*;

    fn source(path: &str, code: &str) -> Source {
        Source { path: path.to_owned(), text: code.to_owned(), code: code.to_owned(), test: false }
    }

    #[test]
    fn paths_are_followed_through_trees_and_reexports() {
        let sources = [
            source("room/mod.rs", "mod a; mod b; mod c; mod d;\npub use b::{B, other::C as D};\nfn f() { c::g() }"),
            source("room/a.rs", "use super::{B, c::{self, E}};\nuse crate::room::d;\nuse crate::elsewhere::F;"),
            source("room/b/mod.rs", "mod other;\npub(super) use other::*;\nuse super::a::{\n  X,\n};\npub struct B;"),
            source("room/b/other.rs", "use super::super::c; struct C;"),
            source("room/c.rs", "pub(in crate::room::b) fn g() -> super::d::G<super::Top> { Self::new() }"),
            source("room/d.rs", "use std::fmt::{self, Debug};"),
            source("elsewhere.rs", ""),
        ];
        let modules = Modules::of(&sources);
        let arrows = modules.arrows("room");
        let of = |file: &str| arrows[file].iter().copied().collect::<Vec<_>>();
        assert_eq!(of("room/mod.rs"), ["room/c.rs"], "a re-export alone is no arrow");
        assert_eq!(
            of("room/a.rs"),
            ["room/b/other.rs", "room/c.rs", "room/d.rs"],
            "everything of `b` may be `other`'s"
        );
        assert_eq!(of("room/b/mod.rs"), ["room/a.rs"]);
        assert_eq!(of("room/b/other.rs"), ["room/c.rs"]);
        assert_eq!(of("room/c.rs"), ["room/d.rs", "room/mod.rs"]);
        assert_eq!(of("room/d.rs"), [""; 0]);
    }

    #[test]
    fn circles_are_found_whatever_leads_into_them() {
        let arrows = |pairs: &[(&'static str, &[&'static str])]| {
            pairs.iter().map(|(from, to)| (*from, to.iter().copied().collect())).collect::<BTreeMap<_, BTreeSet<_>>>()
        };
        let circle = arrows(&[("a", &["b"]), ("b", &["c"]), ("c", &["d"]), ("d", &["b", "e"]), ("e", &[])]);
        assert_eq!(circles(&circle), [BTreeSet::from(["b", "c", "d"])]);
        let pairs = arrows(&[("a", &["b"]), ("b", &["a", "c"]), ("c", &["d"]), ("d", &["c"])]);
        assert!(circles(&pairs).is_empty());
    }
}
