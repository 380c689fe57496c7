//! `help`: what can be asked, for a person with a bare framed client.

use crate::protocol::{Help, HelpReply, Request};
use crate::server::error::CommandError;

pub(crate) fn answer(help: &Help) -> Result<HelpReply, CommandError> {
    let mut commands = Request::help();
    if let Some(about) = &help.about {
        commands.retain(|command| command.name == *about);
        if commands.is_empty() {
            let message = "no command is called that; `help` without `about` lists them";
            return Err(CommandError::invalid_field("about", message));
        }
    }
    Ok(HelpReply { commands })
}
