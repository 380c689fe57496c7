//! Requests: any bytes are either a request that is encoded to the same value, or refused with a
//! short message.

use std::collections::HashSet;
use std::sync::LazyLock;

use haul::protocol::{BadRequest, Request, ServerMessage, WireError, encode_error, encode_request};
use haul::server::CommandError;
use serde_json::{Map, Value};

/// The most bytes of a refusal, far fewer than a frame can hold.
const MAX_REFUSAL: usize = 16 * 1024;

pub(crate) fn check(input: &[u8]) {
    let object = serde_json::from_slice::<Map<String, Value>>(input).ok();
    match Request::parse(input) {
        Ok((id, request)) => {
            check_accepted(id, &request, &object.expect("a request is one JSON object"));
        }
        Err(bad) => check_refused(&bad, object.as_ref()),
    }
}

fn check_accepted(id: u32, request: &Request, object: &Map<String, Value>) {
    assert_eq!(
        object.get("cmd").and_then(Value::as_str),
        Some(request.cmd())
    );
    let given = object.get("id").map_or(Some(0), Value::as_u64);
    assert_eq!(given, Some(u64::from(id)));
    for name in object.keys() {
        assert!(is_field(request.cmd(), name), "{name} was silently dropped");
    }
    let again = encode(id, request);
    let parsed = Request::parse(&again);
    assert_eq!(parsed.as_ref(), Ok(&(id, request.clone())));
}

fn check_refused(bad: &BadRequest, object: Option<&Map<String, Value>>) {
    if let (Some(field), Some(object)) = (&bad.field, object) {
        let known = bad.cmd.is_some_and(|cmd| is_field(cmd, field));
        let given = object.keys().any(|name| shown(name) == *field);
        assert!(known || given || field == "cmd" || field == "id", "{bad:?}");
    }
    let error = WireError::from(&CommandError::from(bad.clone()));
    assert!(!error.message.contains(char::is_control), "{bad:?}");
    assert!(!error.retryable);
    let reply = encode_error(bad.id, &error);
    assert!(reply.len() < MAX_REFUSAL, "{} bytes", reply.len());
    let reply = ServerMessage::parse(&reply);
    assert!(
        matches!(reply, Ok(ServerMessage::Reply(_, Err(_)))),
        "{reply:?}"
    );
}

/// The name of a member in the form in which an error repeats it.
fn shown(name: &str) -> String {
    name.chars()
        .take(200)
        .flat_map(char::escape_debug)
        .collect()
}

fn is_field(cmd: &str, name: &str) -> bool {
    static FIELDS: LazyLock<HashSet<(String, String)>> = LazyLock::new(|| {
        let commands = Request::help().into_iter();
        let fields = commands.flat_map(|command| {
            let names = command.fields.replace(['[', ']', '|'], " ");
            let names = names.split_whitespace().map(str::to_owned);
            let names: Vec<_> = names.chain(["id".into(), "cmd".into()]).collect();
            names
                .into_iter()
                .map(move |name| (command.name.clone(), name))
        });
        fields.collect()
    });
    FIELDS.contains(&(cmd.to_owned(), name.to_owned()))
}

fn encode(id: u32, request: &Request) -> Vec<u8> {
    macro_rules! encode {
        ($($name:ident)*) => {
            match request {
                $(Request::$name(request) => encode_request(id, request),)*
            }
        };
    }
    encode!(Hello Login Whoami Passwd Ping Quit Help Pwd Cd Ls Stat SetStat Mkdir Rm Mv Cp Get Put End CopyRange Cancel Uploads Discard Hash Chunks Df Who Say History Join Leave SendTo Offers Accept Decline Watch Unwatch Ticket Sessions Logs SetLogLevel Kick Users ReloadSettings Drain
        Tokens TokenAdd TokenRemove UserAdd UserSet UserPasswd UserRemove Folders FolderAdd FolderGrant
        FolderRevoke FolderRemove)
}
