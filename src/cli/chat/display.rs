//! What a chat shows: messages, offers and the history.

use crate::cli::chat::events::ChatEvent;
use crate::cli::chat::{ChatSession, MAX_NUMBERED_OFFERS};
use crate::cli::output::print_json;
use crate::protocol::{Event, Message, Offer};

impl ChatSession<'_> {
    pub(super) async fn show(&mut self, heard: ChatEvent) -> anyhow::Result<()> {
        let anew = self.remote.session.server_resets();
        if anew > self.began_anew {
            // Other events have those places now.
            self.began_anew = anew;
            self.shown.clear();
            self.told_up_to = 0;
        }
        match heard {
            ChatEvent::Event(Event::Message(message)) => self.show_message(message).await,
            ChatEvent::Event(Event::Offer(offer)) if !self.shown.contains(&offer.seq) => {
                self.show_offer(offer).await
            }
            ChatEvent::Event(_) => Ok(()),
            ChatEvent::Note(note) => self.note(&note).await,
            ChatEvent::End(error) => Err(error.into()),
        }
    }

    async fn show_message(&mut self, message: Message) -> anyhow::Result<()> {
        if self.shown.contains(&message.seq) {
            return Ok(());
        }
        if message.seq < self.told_up_to && self.is_here(&message) {
            if !self.older {
                self.older = true;
                self.note("there are older unread messages; `/history 1000` shows them")
                    .await?;
            }
            return Ok(());
        }
        if self.remote.output.is_json() {
            return Ok(print_json(&Event::Message(message))?);
        }
        let text = self.style.message(&message, self.with.as_deref());
        self.print(text).await
    }

    /// Whether it belongs to the conversation.
    fn is_here(&self, message: &Message) -> bool {
        let Some(with) = self.with.as_deref() else {
            return false;
        };
        message.to == with || (message.from == with && message.to == self.me)
    }

    pub(super) async fn show_offer(&mut self, offer: Offer) -> anyhow::Result<()> {
        if self.remote.output.is_json() {
            return Ok(print_json(&Event::Offer(offer))?);
        }
        let text = self.style.offer(&offer, "/accept", "/decline");
        let known = self.offers.iter().position(|known| *known == offer.offer);
        let number = known.map_or(self.offers.len() + 1, |known| known + 1);
        if known.is_none() && self.offers.len() < MAX_NUMBERED_OFFERS {
            self.offers.push(offer.offer);
        }
        self.print(format!("{number}. {text}")).await
    }

    /// Above a thin line, if there is anything.
    pub(super) async fn show_history(&self, messages: &[Message]) -> anyhow::Result<()> {
        if self.remote.output.is_json() {
            for message in messages {
                print_json(&Event::Message(message.clone()))?;
            }
            return Ok(());
        }
        let with = self.with.as_deref();
        let shown = messages.iter().map(|said| self.style.message(said, with));
        let mut lines: Vec<_> = shown.collect();
        if lines.is_empty() {
            return Ok(());
        }
        if self.at_terminal {
            lines.push(self.style.aside(&"─".repeat(40)));
        }
        self.print(lines.join("\n")).await
    }
}
