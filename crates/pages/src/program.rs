//! The page of a program: name, synopsis and options from its command line, the rest from a text in Markdown.

use clap::{Arg, Command};
use clap_mangen::Man;

use crate::Error;
use crate::markdown;

/// The manual page of a program. What `text` says before its first heading continues the description; its sections
/// follow the options.
pub(crate) fn page(command: &Command, text: &str) -> Result<String, Error> {
    let name = command.get_name();
    let source = concat!("moosefs-ucarp ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).title(name).section("8").date("").source(source).manual("MooseFS failover");
    let (description, sections) = text.split_at(text.find("\n## ").unwrap_or(text.len()));
    let mut page = Vec::new();
    let mut render = || {
        man.render_title(&mut page)?;
        man.render_name_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        if command.get_long_about().is_some() {
            man.render_description_section(&mut page)?;
        } else {
            page.extend(b".SH DESCRIPTION\n");
        }
        page.extend(markdown::to_roff(description).bytes());
        man.render_options_section(&mut page)?;
        page.extend(markdown::to_roff(sections).bytes());
        Ok(())
    };
    render().map_err(|source| Error::Render { program: name.to_owned(), source })?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// The options of both command lines without what is hidden from people, for completions, which would show it.
pub(crate) fn visible(command: &Command, other: &Command) -> Command {
    let is_new = |arg: &&Arg| command.get_arguments().all(|there| there.get_id() != arg.get_id());
    let all = command.get_arguments().chain(other.get_arguments().filter(is_new));
    let shown = all.filter(|arg| !arg.is_hide_set()).map(|arg| {
        let mut plain =
            Arg::new(arg.get_id().clone()).action(arg.get_action().clone()).value_hint(arg.get_value_hint());
        if let Some(short) = arg.get_short() {
            plain = plain.short(short);
        }
        if let Some(long) = arg.get_long() {
            // clap wants names that live as long as the program.
            plain = plain.long(&*long.to_owned().leak());
        }
        if let Some(help) = arg.get_help() {
            plain = plain.help(help.clone());
        }
        plain
    });
    Command::new("mfs-promote").version(env!("CARGO_PKG_VERSION")).args(shown)
}
