//! What is written for people agrees with the programs.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Everything, written into a folder that the test keeps.
fn written() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_pages")).arg(folder.path()).output().expect("pages");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
}

/// The standard output of a program of this workspace, which is beside `pages`, and its standard error.
fn run(name: &str, args: &[&str]) -> (String, String) {
    let program = Path::new(env!("CARGO_BIN_EXE_pages")).with_file_name(name);
    let output = Command::new(&program).args(args).output();
    let output = output.unwrap_or_else(|e| {
        panic!("{}: {e}; build the programs first: cargo build --workspace --bins", program.display())
    });
    (String::from_utf8(output.stdout).expect("text"), String::from_utf8(output.stderr).expect("text"))
}

fn help(name: &str) -> String {
    run(name, &["--help"]).0
}

/// A key as `mfs-promote --check-config` shows it.
struct Setting {
    key: String,
    value: String,
    origin: String,
}

/// All keys, with this configuration.
fn settings(configuration: &Path) -> Vec<Setting> {
    let path = configuration.to_str().expect("text");
    // The daemons, which come after the settings, need not be installed.
    let (shown, complaints) = run("mfs-promote", &["--check-config", "--config", path]);
    let columns =
        |line: &str| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect();
    let rows: Vec<Vec<String>> = shown.lines().skip(1).take_while(|line| !line.is_empty()).map(columns).collect();
    assert!(rows.len() > 20, "{shown}{complaints}");
    let setting = |row: Vec<String>| {
        let [key, value, origin, _meaning] = row.try_into().expect("key, value, origin and meaning");
        Setting { key, value, origin }
    };
    rows.into_iter().map(setting).collect()
}

/// The long options that a text names, each once.
fn options(text: &str) -> Vec<String> {
    let plain = text.replace("\\-", "-");
    let words = plain.split(|c: char| !(c.is_ascii_lowercase() || c == '-'));
    let mut found: Vec<String> =
        words.filter(|word| word.starts_with("--") && word.len() > 3).map(str::to_owned).collect();
    found.sort();
    found.dedup();
    found
}

/// What `man` shows, and what it complains about.
fn shown(page: &Path) -> (String, String) {
    let mut man = Command::new("man");
    man.args(["--warnings=w", "--local-file"])
        .arg(page)
        .env("MANWIDTH", "80")
        .env("MANROFFSEQ", "")
        .env("LC_ALL", "C.UTF-8");
    let output = man.output().expect("man: scripts/setup installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    (text, String::from_utf8(output.stderr).expect("text"))
}

#[test]
fn pages_name_the_options_of_the_programs_and_no_others() {
    let folder = written();
    for name in ["mfs-promote", "vip-up", "vip-down"] {
        let page = read(folder.path().join(format!("man/{name}.8")));
        let mut helps = help(name);
        if name == "mfs-promote" {
            helps += &run(name, &["--init", "--help"]).0;
        }
        assert_eq!(options(&page), options(&helps), "{name}");
        assert!(!page.contains("hook\\fR"), "options for the hooks alone are not documented");
    }
}

#[test]
fn completions_name_the_options_of_mfs_promote_and_no_others() {
    let folder = written();
    let wanted = options(&(help("mfs-promote") + &run("mfs-promote", &["--init", "--help"]).0));
    for name in ["mfs-promote", "_mfs-promote"] {
        let script = read(folder.path().join("completions").join(name));
        for option in &wanted {
            assert!(script.contains(option.as_str()), "{name}: {option}");
        }
        assert!(!script.contains("--ticket") && !script.contains("--hook"), "{name}");
    }
    let fish = read(folder.path().join("completions/mfs-promote.fish"));
    for option in &wanted {
        assert!(fish.contains(&format!("-l {}", option.trim_start_matches('-'))), "fish: {option}");
    }
}

#[test]
fn bash_completes_the_options() {
    let folder = written();
    let script = folder.path().join("completions/mfs-promote");
    let ask = "source \"$0\"; f=$(complete -p mfs-promote); f=${f#*-F }; COMP_WORDS=(mfs-promote --dr); COMP_CWORD=1; \
               ${f%% *} mfs-promote --dr mfs-promote; echo \"${COMPREPLY[*]}\"";
    let output = Command::new("bash").arg("-c").arg(ask).arg(&script).output().expect("bash");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "--dry-run",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn man_shows_every_page_without_complaint() {
    let folder = written();
    let pages: [(&str, &[&str]); 4] = [
        ("mfs-promote.8", &["SYNOPSIS", "--allow-data-loss", "EXIT STATUS", "    mfs-promote --dry-run", "ucarp(8)"]),
        ("vip-up.8", &["SYNOPSIS", "<INTERFACE>", "EXIT STATUS"]),
        ("vip-down.8", &["SYNOPSIS", "<INTERFACE>", "EXIT STATUS"]),
        ("mfspromote.cfg.5", &["FLAP_LIMIT", "default: 8", "    ARCHIVE_FORMAT = tlz", "MFS_VERSION"]),
    ];
    for (name, wanted) in pages {
        let (text, complaints) = shown(&folder.path().join("man").join(name));
        assert_eq!(complaints, "", "{name}");
        for part in wanted {
            assert!(text.contains(part), "{name} lacks {part:?}:\n{text}");
        }
        assert!(!text.contains('`'), "{name}: Markdown is left:\n{text}");
    }
}

#[test]
fn the_page_and_the_example_have_every_key_with_its_default() {
    let folder = written();
    let page = read(folder.path().join("man/mfspromote.cfg.5"));
    let example = read(folder.path().join("mfspromote.cfg"));
    assert!(example.lines().all(|line| line.is_empty() || line.starts_with('#')), "it changes nothing as it is");
    let empty = folder.path().join("empty.cfg");
    fs::write(&empty, "").expect("an empty file");
    let defaults = settings(&empty);
    let first = defaults.iter().position(|setting| setting.key == "DATA_PATH").expect("MooseFS's keys");
    let ours: Vec<&str> = defaults[..first].iter().map(|setting| setting.key.as_str()).collect();
    for key in &ours {
        assert!(page.contains(&format!("\\fB{key}\\fR")), "{key}");
        assert!(example.contains(&format!("\n# {key} =")), "{key}");
    }

    // Uncommented, it has the values that are in force without it.
    let is_setting =
        |line: &&str| line.split_once(" = ").is_some_and(|(key, value)| ours.contains(&key) && !value.is_empty());
    let given: Vec<&str> = example.lines().filter_map(|line| line.strip_prefix("# ")).filter(is_setting).collect();
    assert!(given.len() > 5, "{given:?}");
    let path = folder.path().join("uncommented.cfg");
    fs::write(&path, given.join("\n")).expect("the example");
    let mut compared = 0;
    for (set, default) in settings(&path).iter().zip(&defaults) {
        assert_eq!(set.key, default.key);
        if set.origin.starts_with(path.to_str().expect("text")) {
            assert_eq!(set.value, default.value, "{}", set.key);
            compared += 1;
        }
    }
    assert_eq!(compared, given.len());
}
