//! A line of the log: time, level, event and message, then the fields of the event and of its spans, all
//! at the top level. No value can break the line or control a terminal.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::Arc;

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use crate::telemetry::audit_target::AUDIT;
use crate::telemetry::format::{
    FieldValue, LineFormat, time, write_for_people, write_text, write_value,
};
use crate::telemetry::tail::{Tail, TailLine};

/// Writes a line for every event to every output.
pub(super) struct LineLayer {
    outputs: Vec<(LineFormat, BoxMakeWriter)>,
    /// The latest lines, for followers of the log.
    tail: Option<Tail>,
    clock: fn() -> Timestamp,
}

impl Default for LineLayer {
    fn default() -> Self {
        Self {
            outputs: Vec::new(),
            tail: None,
            clock: Timestamp::now,
        }
    }
}

impl LineLayer {
    pub(super) fn add_output(
        &mut self,
        format: LineFormat,
        writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static,
    ) {
        self.outputs.push((format, BoxMakeWriter::new(writer)));
    }

    /// Adds every line to the tail.
    pub(super) fn set_tail(&mut self, tail: Tail) {
        self.tail = Some(tail);
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LineLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = LineFields::default();
            attributes.record(&mut fields);
            // Another layer may have stored the fields already; they are the same.
            span.extensions_mut().replace(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<LineFields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = LineFields::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(of_span) = span.extensions().get::<LineFields>() {
                fields.add_missing(of_span);
            }
        }
        let line = LogLine {
            time: (self.clock)(),
            level: *event.metadata().level(),
            event: event_name(event.metadata()),
            audit: event.metadata().target() == AUDIT,
            fields,
        };
        let Ok(json) = line.render(LineFormat::Json) else {
            return;
        };
        for (format, writer) in &self.outputs {
            let text = match format {
                LineFormat::Json => None,
                text @ LineFormat::Text { .. } => line.render(*text).ok(),
            };
            let bytes = text.as_ref().unwrap_or(&json).as_bytes();
            // The writer counts what it cannot write.
            let _ = writer.make_writer().write_all(bytes);
        }
        if let Some(tail) = &self.tail {
            tail.add(|number| line.for_tail(number, &json));
        }
    }
}

/// The stable code of an event: its name, or its target if it has no name, as the events of libraries.
fn event_name(metadata: &'static Metadata<'static>) -> &'static str {
    let name = metadata.name();
    // The macros name an event without a name after its position in the source.
    if name.starts_with("event ") {
        metadata.target()
    } else {
        name
    }
}

/// The fields of an event or a span, in the order they were given. The message is one of them.
#[derive(Debug, Default)]
struct LineFields(Vec<(&'static str, FieldValue)>);

impl LineFields {
    fn set(&mut self, field: &Field, value: FieldValue) {
        let known = self.0.iter_mut().find(|(name, _)| *name == field.name());
        match known {
            Some((_, old)) => *old = value,
            None => self.0.push((field.name(), value)),
        }
    }

    /// Adds the fields of an outer span that are not set yet.
    fn add_missing(&mut self, outer: &Self) {
        for (name, value) in &outer.0 {
            if self.0.iter().all(|(known, _)| known != name) {
                self.0.push((name, value.clone()));
            }
        }
    }
}

impl Visit for LineFields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, FieldValue::Text(format!("{value:?}").into()));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, FieldValue::Signed(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, FieldValue::Unsigned(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, FieldValue::Float(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, FieldValue::Bool(value));
    }
}

/// The initial capacity of a line. Most lines need no more.
const TYPICAL_LINE_BYTES: usize = 384;

struct LogLine {
    time: Timestamp,
    level: Level,
    /// The stable code of the event.
    event: &'static str,
    /// Whether it belongs to the audit.
    audit: bool,
    fields: LineFields,
}

impl LogLine {
    fn render(&self, format: LineFormat) -> Result<String, fmt::Error> {
        let mut line = String::with_capacity(TYPICAL_LINE_BYTES);
        match format {
            LineFormat::Json => self.write_json(&mut line)?,
            LineFormat::Text { colour } => self.write_for_people(&mut line, colour)?,
        }
        Ok(line)
    }

    /// The line, rendered as `json`, with its number.
    fn for_tail(&self, number: u64, json: &str) -> TailLine {
        let json = json.trim_end_matches("}\n");
        TailLine {
            number,
            json: format!("{json},\"line\":{number}}}\n").into(),
            level: self.level,
            event: self.event,
            session: self.text("session"),
            user: self.text("user"),
            cmd: self.text("cmd"),
            path: self.text("path"),
            to: self.text("to"),
        }
    }

    fn text(&self, field: &str) -> Option<Arc<str>> {
        let found = self.fields.0.iter().find(|(name, _)| *name == field);
        match found {
            Some((_, FieldValue::Text(text))) => Some(Arc::clone(text)),
            _ => None,
        }
    }

    fn time(&self) -> impl fmt::Display {
        time(self.time)
    }

    fn message(&self) -> &str {
        let message = self.fields.0.iter().find(|(name, _)| *name == "message");
        match message {
            Some((_, FieldValue::Text(text))) => text,
            _ => "",
        }
    }

    /// The fields without the message. Those with the name of a standard field are renamed.
    fn other_fields(&self) -> impl Iterator<Item = (&'static str, &FieldValue)> {
        let others = self.fields.0.iter().filter(|(name, _)| *name != "message");
        others.map(|(name, value)| match *name {
            "time" => ("time_", value),
            "level" => ("level_", value),
            "event" => ("event_", value),
            "line" => ("line_", value),
            "audit" => ("audit_", value),
            name => (name, value),
        })
    }

    /// Writes the fields one by one, since a JSON map would sort them.
    fn write_json(&self, line: &mut String) -> fmt::Result {
        let level = match self.level {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        write!(line, r#"{{"time":"{}","level":"{level}""#, self.time())?;
        line.push_str(r#","event":"#);
        write_text(line, self.event)?;
        line.push_str(r#","message":"#);
        write_text(line, self.message())?;
        if self.audit {
            line.push_str(r#","audit":true"#);
        }
        for (name, value) in self.other_fields() {
            line.push(',');
            write_text(line, name)?;
            line.push(':');
            write_value(line, value)?;
        }
        line.push_str("}\n");
        Ok(())
    }

    fn write_for_people(&self, line: &mut String, colour: bool) -> fmt::Result {
        let time = self.time().to_string();
        let head = (&*time, self.level, self.message());
        write_for_people(line, head, self.other_fields(), colour)
    }
}

#[cfg(test)]
mod tests;
