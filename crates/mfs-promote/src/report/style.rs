//! Colour, where a person looks.

use std::io::IsTerminal as _;

/// Whether to colour.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    coloured: bool,
}

impl Style {
    /// For standard output: only on a terminal, and not if `NO_COLOR` is set (<https://no-color.org>).
    pub(crate) fn of_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { coloured: std::io::stdout().is_terminal() && !unwanted }
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(crate) fn warning(self, text: &str) -> String {
        self.with("33", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_added_around_text_or_not_at_all() {
        assert_eq!(Style { coloured: true }.bad("no"), "\x1b[31mno\x1b[0m");
        assert_eq!(Style { coloured: false }.good("yes"), "yes");
        assert!(!Style::of_stdout().coloured || std::io::stdout().is_terminal());
    }
}
