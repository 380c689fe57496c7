use proptest::prelude::*;

use super::*;
use crate::protocol::{Algorithm, Cd, DigestChoice, MAX_NUMBER, Put, Request, encode_request};

fn refused(json: &str) -> BadRequest {
    Request::parse(json.as_bytes()).expect_err(json)
}

#[test]
fn a_request_is_parsed_into_the_struct_of_its_command() {
    let (id, request) =
        Request::parse(br#"{"id":2,"cmd":"cd","path":"reports"}"#).expect("a sound request");
    assert_eq!(id, 2);
    assert_eq!(
        request,
        Request::Cd(Cd {
            path: "reports".into()
        })
    );
}

#[test]
fn an_absent_id_is_0_and_the_order_of_fields_does_not_matter() {
    let (id, request) = Request::parse(br#"{"path":"x","cmd":"stat"}"#).expect("a sound request");
    assert_eq!((id, request.cmd()), (0, "stat"));
}

#[test]
fn an_unknown_field_is_refused_by_name_with_the_id() {
    let bad = refused(r#"{"id":3,"cmd":"pwd","verbose":true}"#);
    assert_eq!((bad.id, bad.field.as_deref()), (3, Some("verbose")));
}

#[test]
fn a_missing_field_is_refused_by_name() {
    let bad = refused(r#"{"id":3,"cmd":"cd"}"#);
    assert_eq!((bad.id, bad.field.as_deref()), (3, Some("path")));
    assert_eq!(refused(r#"{"id":3}"#).field.as_deref(), Some("cmd"));
}

#[test]
fn a_duplicate_field_is_refused_by_name() {
    for (json, field) in [
        (r#"{"id":1,"cmd":"cd","path":"a","path":"b"}"#, "path"),
        (r#"{"id":1,"cmd":"cd","cmd":"rm","path":"a"}"#, "cmd"),
        (r#"{"id":1,"id":2,"cmd":"cd","path":"a"}"#, "id"),
    ] {
        assert_eq!(refused(json).field.as_deref(), Some(field), "{json}");
    }
}

#[test]
fn a_number_out_of_range_is_refused_by_name() {
    for value in [
        "-1",
        "1e3",
        "1.5",
        "9007199254740992",
        "18446744073709551616",
        "1e999",
        "\"5\"",
    ] {
        let json = format!(r#"{{"id":4,"cmd":"get","path":"a","offset":{value}}}"#);
        let bad = refused(&json);
        assert!(
            bad.field.as_deref() == Some("offset") || value == "1e999",
            "{json}: {bad:?}"
        );
    }
    let largest = br#"{"cmd":"get","path":"a","offset":9007199254740991}"#;
    assert!(Request::parse(largest).is_ok());
}

#[test]
fn an_id_out_of_range_is_refused_by_name() {
    for value in ["-1", "4294967296", "1.0", "null", "\"1\""] {
        let bad = refused(&format!(r#"{{"cmd":"pwd","id":{value}}}"#));
        assert_eq!(bad.field.as_deref(), Some("id"), "{value}");
    }
}

#[test]
fn an_unknown_command_is_bad() {
    let bad = refused(r#"{"id":5,"cmd":"fly"}"#);
    assert_eq!(bad.id, 5);
    assert_eq!(
        (bad.field.as_deref(), bad.unsupported),
        (Some("cmd"), false)
    );
}

#[test]
fn a_request_without_a_valid_command_is_refused_with_its_id() {
    for json in [
        r#"{"id":5}"#,
        r#"{"id":5,"path":"a"}"#,
        r#"{"cmd":7,"id":5}"#,
        r#"{"id":5,"cmd":null}"#,
        r#"{"id":5,"cmd":"cd","cmd":"rm"}"#,
        r#"{"id":5,"cmd":"\ud800"}"#,
    ] {
        let bad = refused(json);
        assert_eq!((bad.id, bad.cmd), (5, None), "{json}");
    }
    for json in [
        r#"{"id":5,"id":5}"#,
        r#"{"id":-1,"cmd":7}"#,
        r#"{"id":5,"cmd":7"#,
        "{}",
    ] {
        assert_eq!(refused(json).id, 0, "{json}");
    }
}

#[test]
fn the_command_is_known_before_the_other_fields_are_read() {
    let head = Request::parse_head(br#"{"id":6,"cmd":"cd","colour":"red"}"#).expect("a head");
    assert_eq!((head.id, head.command.name), (6, "cd"));
    let bad = Request::parse_fields(head).expect_err("an unknown field");
    assert_eq!((bad.id, bad.cmd), (6, Some("cd")));
}

#[test]
fn a_request_that_is_not_one_json_object_is_refused() {
    let deep = format!("{}{}", r#"{"cmd":"#, "[".repeat(100_000));
    for json in [
        "",
        "{",
        "[7]",
        "null",
        r#"{"cmd":"pwd"}x"#,
        r#"{"cmd":"pwd"}{"cmd":"pwd"}"#,
        "\u{feff}{\"cmd\":\"pwd\"}",
        r#"{"cmd":"cd","path":"\ud800"}"#,
        r#"{"cmd":["pwd"]}"#,
        &deep,
    ] {
        refused(json);
    }
    assert!(
        Request::parse(b"{\"cmd\":\"cd\",\"path\":\"\xff\"}").is_err(),
        "invalid UTF-8"
    );
    assert!(
        Request::parse(b"{\"cmd\":\"cd\",\"path\":\"\xc0\xaf\"}").is_err(),
        "overlong"
    );
}

#[test]
fn an_error_repeats_a_bounded_part_of_a_request() {
    let bad = refused(&format!(r#"{{"cmd":"{}"}}"#, "x".repeat(60_000)));
    assert!(bad.message.len() < 300, "{}", bad.message);
    let bad = refused(&format!(r#"{{"cmd":"pwd","{}":1}}"#, "x".repeat(60_000)));
    assert!(bad.message.len() < 1000, "{}", bad.message);
}

#[test]
fn a_secret_never_shows_in_debug_output() {
    let (_, login) = Request::parse(br#"{"cmd":"login","user":"a","password":"hunter2"}"#)
        .expect("a sound request");
    let shown = format!("{login:?}");
    assert!(
        !shown.contains("hunter2") && shown.contains("***"),
        "{shown}"
    );
}

#[test]
fn a_get_may_ask_for_a_digest_or_for_none() {
    for (word, choice) in [
        ("sha256", DigestChoice::Of(Algorithm::Sha256)),
        ("none", DigestChoice::NONE),
    ] {
        let json = format!(r#"{{"cmd":"get","path":"a","digest":"{word}"}}"#);
        let Ok((_, Request::Get(get))) = Request::parse(json.as_bytes()) else {
            panic!("{json} is sound");
        };
        assert_eq!(get.digest, Some(choice));
    }
    let bad = refused(r#"{"cmd":"get","path":"a","digest":"crc32"}"#);
    assert_eq!(bad.field.as_deref(), Some("digest"));
}

proptest! {
    #[test]
    fn a_put_reads_back_as_it_was_written(
        id: u32,
        path: String,
        size in prop::option::of(0..MAX_NUMBER),
        resume: bool,
        parents: bool,
    ) {
        let put = Put { path, size, resume, parents, ..Put::default() };
        let parsed = Request::parse(&encode_request(id, &put));
        prop_assert_eq!(parsed, Ok((id, Request::Put(put))));
    }

    #[test]
    fn arbitrary_bytes_are_a_request_or_refused_and_never_a_panic(bytes: Vec<u8>) {
        let _ = Request::parse(&bytes);
        let mut object = b"{\"cmd\":\"ls\",".to_vec();
        object.extend(bytes);
        let _ = Request::parse(&object);
    }
}
