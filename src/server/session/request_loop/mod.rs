//! The request loop of a session whose user has logged in.
//!
//! It reads the frames of the session one after the other. Requests start in the order in which they
//! arrive. Most finish before the next frame is read. A bounded number of long ones run beside the
//! later requests; at the bound, the session stops reading until one of them ends.

mod dispatch;
mod events;
mod run;
mod small_uploads;
mod state;
mod transfers;
mod uploads;

pub(crate) use crate::server::session::request_loop::state::RequestLoop;
