//! Runs one folder both ways, stock `mfsmaster` on the files themselves and on what our plan stages from them, and
//! judges both by the valid history of the folder.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex};

use super::case::{Case, Ours, Situation};
use super::history::{History, METAID};
use super::master::Master;
use crate::metadata::{EpochJump, Image, Loss, Plan, Refusal, Severity, Version, inventory, plan, stage};
use crate::sys::cancel::Cancel;
use crate::sys::folder::Folder;

/// What was found for one case.
pub(super) struct Finding {
    pub(super) truth: String,
    pub(super) stock: String,
    pub(super) ours: String,
    /// Where ours is not what it must be.
    pub(super) problems: Vec<String>,
}

/// Runs a case.
pub(super) fn judge(case: &Case) -> Finding {
    let situations = (case.build)();
    let alone = situations.len() == 1;
    let (mut truth, mut stock, mut ours) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut problems = Vec::new();
    for (index, situation) in situations.iter().enumerate() {
        // Of a family stock mfsmaster gets every eighth and the last one: it takes half a second for each.
        let stock_too = index % 8 == 0 || index + 1 == situations.len();
        let (promoted, found) = run(situation, stock_too);
        truth.insert(situation.truth.version().to_string());
        stock.extend(found.iter().map(Stock::to_string));
        ours.insert(in_words(&promoted, alone));
        let problem = check(&case.ours, &promoted, situation).err();
        problems.extend(problem.map(|problem| format!("{}: {problem}", case.name)));
    }
    let all = |found: BTreeSet<String>| found.into_iter().collect::<Vec<_>>().join("; or ");
    Finding { truth: all(truth), stock: all(stock), ours: all(ours), problems }
}

type Promoted = Result<(Plan, Staged), Refusal>;

/// Our promotion, which must be the same in any order of the files, and if wished the result of stock `mfsmaster`.
fn run(situation: &Situation, stock_too: bool) -> (Promoted, BTreeSet<Stock>) {
    let mut found = BTreeSet::new();
    let mut promoted: Option<Promoted> = None;
    for backwards in [false, true] {
        let master = Master::new();
        situation.set.write(&master.data(), backwards);
        let folder = Folder::open(&master.data()).unwrap();
        let mut inventory = inventory::take(&folder).unwrap();
        (inventory.served_last, inventory.unserved) = (situation.served_last, situation.unserved);
        let plan = plan::make(&inventory, Loss::Refuse);
        match &promoted {
            Some(before) => assert_eq!(before.as_ref().map(|(plan, _)| plan), plan.as_ref(), "the order matters"),
            None => {
                promoted = Some(plan.map(|plan| {
                    let staged = Staged::new(&folder, &plan);
                    (plan, staged)
                }));
            }
        }
        // The order matters only between different histories; a master that hangs once hangs again.
        let again = !situation.strays.is_empty() && !found.contains(&Stock::Hangs);
        if stock_too && (!backwards || again) {
            found.insert(Stock::restore(&master, situation));
        }
    }
    (promoted.expect("one run"), found)
}

/// The set that our plan staged, and the result of the real master.
struct Staged {
    log: String,
    jump: EpochJump,
    served: Version,
    loaded: Arc<Loaded>,
}

struct Loaded {
    success: bool,
    image: Option<Image>,
    names: HashSet<String>,
    text: String,
}

impl Staged {
    fn new(folder: &Folder, plan: &Plan) -> Self {
        let master = Master::new();
        let (stage, cancel) = (Folder::open(&master.data()).unwrap(), Cancel::new());
        let jump = plan.jump();
        stage::copy_image(folder, plan, &stage, master.owner, jump, &cancel).unwrap();
        let served = stage::write_log(folder, plan, &stage, master.owner, jump, &cancel).unwrap().served;
        let read = |name| std::fs::read(master.data().join(name)).unwrap();
        let set = (read(stage::IMAGE), read(stage::LOG));
        let log = String::from_utf8(set.1.clone()).expect("text");
        Self { log, jump, served, loaded: load(&master, set) }
    }
}

/// Many cases stage the same two files, on purpose: one run of the master proves it for all.
fn load(master: &Master, set: (Vec<u8>, Vec<u8>)) -> Arc<Loaded> {
    type Known = HashMap<(Vec<u8>, Vec<u8>), Arc<Loaded>>;
    static KNOWN: Mutex<Option<Known>> = Mutex::new(None);
    if let Some(loaded) = KNOWN.lock().unwrap().get_or_insert_default().get(&set) {
        return Arc::clone(loaded);
    }
    let output = master.restore().expect("a restore of what was staged in time");
    let names = names(&master.restored_bytes().unwrap_or_default());
    let loaded = Loaded { success: output.success(), image: master.restored(), names, text: output.text };
    let loaded = Arc::new(loaded);
    KNOWN.lock().unwrap().get_or_insert_default().insert(set, Arc::clone(&loaded));
    loaded
}

/// All names in an image: in it each one follows its length, a u16.
fn names(image: &[u8]) -> HashSet<String> {
    let starts = image.windows(2).enumerate().map(|(at, length)| (at + 2, u16::from_be_bytes([length[0], length[1]])));
    let texts = starts.filter_map(|(at, length)| image.get(at..at + usize::from(length)));
    let texts = texts.filter(|text| (1..=20).contains(&text.len()) && text.iter().all(u8::is_ascii_alphanumeric));
    texts.map(|text| String::from_utf8(text.to_vec()).expect("ASCII")).collect()
}

/// What is wrong with our result.
fn check(expected: &Ours, promoted: &Promoted, situation: &Situation) -> Result<(), String> {
    match (expected, promoted) {
        (Ours::Refuses(reason), Err(refusal)) => {
            let text = refusal.to_string();
            if text.contains(reason) { Ok(()) } else { Err(format!("refuses for another reason: {text}")) }
        }
        (Ours::Refuses(_), Ok((plan, _))) => Err(format!("is not refused:\n{plan:#?}")),
        (_, Err(refusal)) => Err(format!("is refused: {refusal}")),
        (Ours::Serves, Ok((plan, staged))) => {
            let warnings = warnings(plan);
            if !warnings.is_empty() {
                return Err(format!("warns: {}", warnings.join("; ")));
            }
            check_staged(plan, staged, situation)
        }
        (Ours::Warns(reason), Ok((plan, staged))) => {
            if !warnings(plan).iter().any(|warning| warning.contains(reason)) {
                return Err(format!("does not warn of {reason:?}:\n{plan:#?}"));
            }
            check_staged(plan, staged, situation)
        }
    }
}

/// The staged set is the valid history, all of it and nothing else, and so is what the real master makes of it.
fn check_staged(plan: &Plan, staged: &Staged, situation: &Situation) -> Result<(), String> {
    let (truth, loaded) = (&situation.truth, &staged.loaded);
    if plan.end_version != Version(truth.version()) {
        return Err(format!("ends at {} and not at {}:\n{plan:#?}", plan.end_version, truth.version()));
    }
    let history = truth.numbered(plan.base_version.0..plan.end_version.0, staged.jump.0);
    // Each promotion to a later epoch skips ids of chunks.
    let ending = staged.log.strip_prefix(&history).map(|ending| ending.lines().collect::<Vec<_>>());
    let right = match ending.as_deref() {
        Some([]) => staged.jump == EpochJump::NONE,
        Some([skip]) => staged.jump > EpochJump::NONE && skip.contains("|NEXTCHUNKID("),
        _ => false,
    };
    if !right {
        return Err(format!("the staged log is not the valid history:\n{plan:#?}"));
    }
    let expected = Image::Complete { signature: *b"MFSM 2.0", version: staged.served, metaid: METAID };
    if !loaded.success || loaded.image != Some(expected) || plan.metaid != METAID {
        return Err(format!("restored to {:?}:\n{}\n{plan:#?}", loaded.image, loaded.text));
    }
    let lost = lost(&loaded.names, plan.end_version.0, situation);
    let strays = strays(&loaded.names, situation);
    if lost.is_empty() && strays == 0 { Ok(()) } else { Err(format!("{lost:?} lost, {strays} of another history")) }
}

fn warnings(plan: &Plan) -> Vec<String> {
    let warnings = plan.notes.iter().filter(|note| note.severity() == Severity::Warning);
    warnings.map(ToString::to_string).collect()
}

/// Changes of the valid history that an image of these names and this version lacks.
fn lost(names: &HashSet<String>, version: u64, situation: &Situation) -> Vec<u64> {
    let missing = |id: u64| situation.truth.name(id).is_some_and(|name| !names.contains(name));
    (1..situation.truth.version()).filter(|id| *id >= version || missing(*id)).collect()
}

/// How many changes of other histories are in it.
fn strays(names: &HashSet<String>, situation: &Situation) -> usize {
    let valid: HashSet<&str> = situation.truth.names().collect();
    let strays: HashSet<&str> = situation.strays.iter().flat_map(History::names).collect();
    strays.difference(&valid).filter(|name| names.contains(**name)).count()
}

fn in_words(promoted: &Promoted, alone: bool) -> String {
    match promoted {
        Ok((plan, _)) if alone => {
            let warnings = warnings(plan).into_iter().map(|warning| format!("; warns: {warning}"));
            format!("version {}{}", plan.end_version, warnings.collect::<String>())
        }
        Ok((plan, _)) => format!("version {}, and a warning that names it", plan.end_version),
        Err(refusal) => {
            // Without the remedy, which is much the same everywhere.
            let text = refusal.to_string();
            let remedies = [": copy ", ": move ", ": restart ", ": run ", ": serve ", ": start "];
            let end = remedies.iter().filter_map(|remedy| text.find(remedy)).min();
            format!("refuses: {}", &text[..end.unwrap_or(text.len())])
        }
    }
}

/// What stock `mfsmaster` did.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stock {
    Hangs,
    /// Success, and no file that a plain start would take.
    NoImage,
    Refuses {
        code: Option<i32>,
    },
    Serves {
        version: u64,
        lost: Vec<u64>,
        strays: usize,
    },
}

impl Stock {
    fn restore(master: &Master, situation: &Situation) -> Self {
        let Some(output) = master.restore() else {
            return Self::Hangs;
        };
        if !output.success() {
            return Self::Refuses { code: output.status.code() };
        }
        let Some(image) = master.restored_bytes() else {
            return Self::NoImage;
        };
        // Read without checks: an impossible version is a result, too.
        let version = u64::from_be_bytes(image[8..16].try_into().expect("eight bytes"));
        let names = names(&image);
        Self::Serves { version, lost: lost(&names, version, situation), strays: strays(&names, situation) }
    }
}

impl fmt::Display for Stock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hangs => f.write_str("never ends"),
            Self::NoImage => f.write_str("exit 0, **no `metadata.mfs` written**"),
            Self::Refuses { code: Some(code) } => write!(f, "exit {code}, refuses"),
            Self::Refuses { code: None } => f.write_str("killed by a signal"),
            Self::Serves { version, lost, strays } => {
                write!(f, "exit 0, version {version}")?;
                match lost.as_slice() {
                    [] => {}
                    [one] => write!(f, ", **change {one} lost**")?,
                    [first, .., last] if last - first + 1 == lost.len() as u64 => {
                        write!(f, ", **changes {first} to {last} lost**")?;
                    }
                    [first, .., last] => write!(f, ", **{} changes from {first} to {last} lost**", lost.len())?,
                }
                if *strays > 0 {
                    write!(f, ", **{strays} changes of another history in it**")?;
                }
                Ok(())
            }
        }
    }
}
