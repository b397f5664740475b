//! The table in `lib.rs` is the order of the rooms: every room is in it, imports go upwards in it only, and no two files
//! import each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Everything below a folder that ends in `.rs`.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The modules of the library with their production code: no tests, no comments.
fn modules() -> BTreeMap<Vec<String>, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut tests = BTreeSet::new();
    let mut modules = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a source file");
        let path = file.strip_prefix(&root).expect("below the root").with_extension("");
        let module: Vec<String> = path.iter().map(|part| part.to_str().expect("a plain name").to_owned()).collect();
        let lines: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let mut code = String::new();
        for (at, line) in lines.iter().enumerate() {
            if at > 0 && lines[at - 1].trim() == "#[cfg(test)]" {
                match line.trim().strip_prefix("mod ").and_then(|name| name.strip_suffix(';')) {
                    Some(name) => {
                        tests.insert([&module[..], &[name.to_owned()]].concat());
                        continue;
                    }
                    None if line.trim_start().starts_with("mod ") => break,
                    None => (),
                }
            }
            code += line;
            code.push('\n');
        }
        modules.insert(module, code);
    }
    modules.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
    modules
}

/// The paths that begin with `crate::` in `code`, those in braces one by one.
fn imports(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        expand(&code[at + "crate::".len()..], &[], &mut found);
    }
    found
}

/// Reads one path, or the list of paths in braces, and returns what is behind it.
fn expand<'a>(mut rest: &'a str, before: &[String], found: &mut Vec<Vec<String>>) -> &'a str {
    let mut path = before.to_vec();
    loop {
        rest = rest.trim_start();
        if let Some(mut list) = rest.strip_prefix('{') {
            loop {
                list = expand(list, &path, found).trim_start();
                list = list.strip_prefix(',').unwrap_or(list).trim_start();
                if let Some(behind) = list.strip_prefix('}') {
                    return behind;
                }
            }
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        path.push(rest[..end].to_owned());
        rest = &rest[end..];
        let Some(behind) = rest.strip_prefix("::") else {
            found.push(path);
            return rest;
        };
        rest = behind;
    }
}

/// The order of the rooms.
fn table() -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("lib.rs");
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | `")?.split('`').next().map(str::to_owned));
    rows.collect()
}

#[test]
fn every_room_is_in_the_table_and_imports_only_from_those_above_it() {
    let table = table();
    let place = |room: &String| table.iter().position(|known| known == room);
    let modules = modules();
    let rooms: BTreeSet<_> = modules.keys().map(|module| module[0].clone()).filter(|room| room != "lib").collect();
    assert_eq!(rooms, table.iter().cloned().collect(), "the table and the rooms");
    let mut wrong = Vec::new();
    for (module, code) in modules.iter().filter(|(module, _)| module[0] != "lib") {
        for import in imports(code) {
            let (from, to) = (place(&module[0]), place(&import[0]));
            if to.is_none() || (from < to) {
                wrong.push(format!("{} imports {}", module.join("::"), import.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let modules = modules();
    let mut arrows = BTreeMap::new();
    for (module, code) in &modules {
        let mut targets: BTreeSet<&Vec<String>> = BTreeSet::new();
        for import in imports(code) {
            let longest = (1..=import.len()).rev().find_map(|length| modules.get_key_value(&import[..length]));
            targets.extend(longest.map(|(target, _)| target).filter(|target| *target != module));
        }
        arrows.insert(module, targets);
    }
    // Files that nothing left imports go, until none is left or each of the rest is in a circle or leads into one.
    loop {
        let idle: Vec<_> = arrows.iter().filter(|(_, targets)| targets.is_empty()).map(|(module, _)| *module).collect();
        if idle.is_empty() {
            break;
        }
        for module in idle {
            arrows.remove(module);
            for targets in arrows.values_mut() {
                targets.retain(|target| *target != module);
            }
        }
    }
    let left: Vec<_> = arrows
        .iter()
        .map(|(module, targets)| {
            let targets: Vec<_> = targets.iter().map(|target| target.join("::")).collect();
            format!("{} -> {}", module.join("::"), targets.join(", "))
        })
        .collect();
    assert!(left.is_empty(), "{}", left.join("\n"));
}

#[test]
fn imports_are_read_as_the_compiler_reads_them() {
    let found = imports("use crate::a;\nuse crate::b::{self, C, d::{E, F}};\nfn f() { crate::g::h(1) }");
    let found: Vec<_> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["a", "b::self", "b::C", "b::d::E", "b::d::F", "g::h"]);
}
