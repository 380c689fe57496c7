//! The program with a server, as people and scripts use it.

mod connect;
mod files;
mod interruption;
mod output;
mod person;

pub(crate) use crate::command_line::person::{Person, run};
