//! How a ucarp was started, read from its command line the way its own getopt reads it.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sys::text::strtoul;

/// The letters that take a value. `-m` is missing from the list in ucarp 1.5.2 itself, which then only knows
/// `--mcastip`; a version that knows it gives it a value.
const WITH_VALUE: &str = "ismvpabkxudrfo";

/// The long names and their letters, as ucarp has them.
const LONG: [(&str, char); 22] = [
    ("interface", 'i'),
    ("srcip", 's'),
    ("mcastip", 'm'),
    ("vhid", 'v'),
    ("pass", 'p'),
    ("preempt", 'P'),
    ("neutral", 'n'),
    ("addr", 'a'),
    ("help", 'h'),
    ("advbase", 'b'),
    ("advskew", 'k'),
    ("upscript", 'u'),
    ("downscript", 'd'),
    ("deadratio", 'r'),
    ("debug", 'D'),
    ("shutdown", 'z'),
    ("facility", 'f'),
    ("daemonize", 'B'),
    ("ignoreifstate", 'S'),
    ("nomcast", 'M'),
    ("passfile", 'o'),
    ("xparam", 'x'),
];

/// Where the password of the group is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Password {
    /// `-p`: everybody who lists processes sees it.
    Visible(String),
    /// `-o`
    File(PathBuf),
}

impl std::fmt::Debug for Password {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Visible(_) => f.write_str("Visible"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// What of ucarp's options matters here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Options {
    /// Virtual host id, the number that advertisements carry; 0 if none was given.
    pub(crate) vhid: u8,
    /// Seconds between advertisements.
    pub(crate) advbase: u8,
    /// 256ths of a second added to that.
    pub(crate) advskew: u8,
    /// How many intervals without an advertisement mean death.
    pub(crate) deadratio: u32,
    /// The virtual IP.
    pub(crate) vip: Option<Ipv4Addr>,
    /// The interface; without one ucarp takes the first.
    pub(crate) interface: Option<String>,
    /// Where advertisements go.
    pub(crate) group: Ipv4Addr,
    /// `-z`: runs `vip-down` when it is told to end.
    pub(crate) shutdown_script: bool,
    /// `-P`: takes over from a slower MASTER.
    pub(crate) preempt: bool,
    /// `-n`: runs no `vip-down` when it starts.
    pub(crate) neutral: bool,
    /// `-x`: the hooks' third argument.
    pub(crate) xparam: Option<String>,
    /// `-u`: called when it becomes MASTER.
    pub(crate) up_script: Option<String>,
    /// `-d`: called when it becomes BACKUP.
    pub(crate) down_script: Option<String>,
    /// `-p` or `-o`, the last one.
    pub(crate) password: Option<Password>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            vhid: 0,
            advbase: 1,
            advskew: 0,
            deadratio: 3,
            vip: None,
            interface: None,
            group: Ipv4Addr::new(224, 0, 0, 18),
            shutdown_script: false,
            preempt: false,
            neutral: false,
            xparam: None,
            up_script: None,
            down_script: None,
            password: None,
        }
    }
}

impl Options {
    /// Reads a command line, the program's name first. As getopt does it: letters in a cluster, values attached or
    /// in the next word, long names cut short, the last of several counts. What ucarp would refuse is passed over.
    pub(crate) fn parse<S: AsRef<OsStr>>(argv: &[S]) -> Self {
        let mut options = Self::default();
        let words: Vec<_> = argv.iter().map(|word| word.as_ref().to_string_lossy()).collect();
        let mut words = words.iter().skip(1).map(AsRef::as_ref);
        while let Some(word) = words.next() {
            if word == "--" {
                break;
            } else if let Some(long) = word.strip_prefix("--") {
                let (name, attached) = long.split_once('=').map_or((long, None), |(n, v)| (n, Some(v)));
                let Some(letter) = long_option(name) else { continue };
                let value = if WITH_VALUE.contains(letter) { attached.or_else(|| words.next()) } else { None };
                options.set(letter, value.unwrap_or_default());
            } else if let Some(cluster) = word.strip_prefix('-') {
                options.set_cluster(cluster, &mut words);
            }
        }
        options
    }

    /// Whether everybody who lists processes sees the password.
    pub(crate) fn has_visible_password(&self) -> bool {
        matches!(self.password, Some(Password::Visible(_)))
    }

    /// What the skew adds to its times.
    pub(crate) fn skew(&self) -> Duration {
        skew(self.advskew)
    }

    /// The time between two advertisements.
    pub(crate) fn interval(&self) -> Duration {
        Duration::from_secs(self.advbase.into()) + self.skew()
    }

    /// How long no advertisement must be heard until a BACKUP becomes MASTER.
    pub(crate) fn dead_time(&self) -> Duration {
        self.dead() + self.skew()
    }

    /// When a BACKUP that hears nothing else becomes MASTER, counted from the last advertisement: it looks once in each interval
    /// only (`docarp` in ucarp's carp.c).
    pub(crate) fn declares_dead(&self) -> Duration {
        let interval = self.interval();
        let looks = self.dead_time().as_micros().div_ceil(interval.as_micros().max(1));
        interval * u32::try_from(looks).unwrap_or(u32::MAX)
    }

    /// The dead time without the skew.
    pub(crate) fn dead(&self) -> Duration {
        Duration::from_secs(u64::from(self.advbase) * u64::from(self.deadratio))
    }

    fn set_cluster<'a>(&mut self, cluster: &'a str, words: &mut impl Iterator<Item = &'a str>) {
        for (at, letter) in cluster.char_indices() {
            if WITH_VALUE.contains(letter) {
                let attached = &cluster[at + letter.len_utf8()..];
                let value = if attached.is_empty() { words.next().unwrap_or_default() } else { attached };
                return self.set(letter, value);
            }
            self.set(letter, "");
        }
    }

    fn set(&mut self, letter: char, value: &str) {
        match letter {
            'i' => self.interface = Some(value.to_owned()),
            'x' => self.xparam = Some(value.to_owned()),
            'u' => self.up_script = Some(value.to_owned()),
            'd' => self.down_script = Some(value.to_owned()),
            'p' => self.password = Some(Password::Visible(value.to_owned())),
            'o' => self.password = Some(Password::File(value.into())),
            'a' => self.vip = value.parse().ok().or(self.vip),
            'm' => self.group = value.parse().unwrap_or(self.group),
            'v' => self.vhid = byte(value),
            'b' => self.advbase = byte(value),
            'k' => self.advskew = byte(value),
            'r' => self.deadratio = (strtoul(value, 0).0 & u64::from(u32::MAX)).try_into().unwrap_or_default(),
            'z' => self.shutdown_script = true,
            'P' => self.preempt = true,
            'n' => self.neutral = true,
            _ => {}
        }
    }
}

/// The letter of a long name: an exact one, or the only one that begins so.
fn long_option(name: &str) -> Option<char> {
    let mut starting = LONG.iter().filter(|(long, _)| long.starts_with(name));
    if let Some((_, letter)) = LONG.iter().find(|(long, _)| *long == name) {
        return Some(*letter);
    }
    let (_, letter) = starting.next()?;
    starting.next().is_none().then_some(*letter)
}

fn skew(skew: u8) -> Duration {
    Duration::from_micros(u64::from(skew) * 1_000_000 / 256)
}

/// As ucarp stores small numbers: the low byte of what strtoul(3) makes of the text.
fn byte(text: &str) -> u8 {
    strtoul(text, 0).0.to_le_bytes()[0]
}
