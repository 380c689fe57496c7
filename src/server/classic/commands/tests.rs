use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::protocol::{Call, encode_request};
use crate::server::classic::frame::TRANSLATION_OVERHEAD_BYTES;

fn typed(cmd: &str) -> Result<ClassicCommand, ClassicCommandError> {
    ClassicCommand::parse(&ClassicRequest {
        cmd: cmd.into(),
        ..ClassicRequest::default()
    })
}

fn put(cmd: &str, filename: &str, dst_dir: &str) -> Result<String, ClassicCommandError> {
    let request = ClassicRequest {
        cmd: cmd.into(),
        filename: filename.into(),
        dst_dir: dst_dir.into(),
        ..ClassicRequest::default()
    };
    match ClassicCommand::parse(&request)? {
        ClassicCommand::Put(upload) => Ok(upload.path),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unknown_or_incomplete_command_is_refused_with_advice() {
    let says = |cmd| typed(cmd).expect_err(cmd).to_string();
    assert!(says("").contains("\"help\""));
    assert!(says("frobnicate secret").contains("\"frobnicate\"; \"help\""));
    assert!(says("mv a").contains("mv FROM TO"));
    assert!(says("cd a b").contains("double quotes"));
    assert!(says("say bob").contains("say TO TEXT"));
    assert!(says("register bob").contains("register USER PASSWORD"));
    assert!(says("cd \"a b").contains("not closed"));
    assert!(matches!(typed("HELP"), Ok(ClassicCommand::Help)));
}

#[test]
fn a_login_is_in_the_fields_or_in_the_words() {
    let login = |cmd: &str, user: &str, psd: &str| {
        let request = ClassicRequest {
            cmd: cmd.into(),
            user: user.into(),
            psd: psd.into(),
            ..ClassicRequest::default()
        };
        match ClassicCommand::parse(&request) {
            Ok(ClassicCommand::Login(login)) => (
                login.user.unwrap_or_default(),
                login.password.map_or(String::new(), |p| p.expose().into()),
            ),
            other => panic!("{other:?}"),
        }
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(login("login", "bob", "pw"), pair("bob", "pw"));
    assert_eq!(login("login bob \"p w\"", "", ""), pair("bob", "p w"));
    assert_eq!(login("login bob pw", "", "other"), pair("bob", "other"));
    assert_eq!(login("login bob pw", "eve", ""), pair("bob", "pw"));
    assert_eq!(login("login", "", ""), pair("", ""));
}

#[test]
fn an_upload_is_stored_under_its_plain_name_in_the_directory_of_the_field_or_the_second_word() {
    for (cmd, filename, dst_dir, path) in [
        ("put a.txt", "", "", "a.txt"),
        ("put /home/eve/a.txt", "", "", "a.txt"),
        ("put \"C:\\my docs\\a b.txt\"", "", "", "a b.txt"),
        ("put x sub", "", "", "sub/x"),
        ("put x sub", "y", "", "sub/y"),
        ("put x sub", "y", "/other/", "/other/y"),
        ("put", "年 报.txt", "", "年 报.txt"),
        ("put", "../../etc/passwd", "", "passwd"),
        ("put", "a\\b", "", "a\\b"),
        ("put C:\\my docs\\a.txt now", "a.txt", "", "a.txt"),
        ("put x /", "", "", "/x"),
    ] {
        assert_eq!(put(cmd, filename, dst_dir).as_deref(), Ok(path), "{cmd}");
    }
    assert!(put("put", "", "").is_err());
    for name in ["/", "..", "a/", "a/.."] {
        let error = put("put", name, "").expect_err(name);
        assert!(matches!(error, ClassicCommandError::NoName(_)), "{name}");
    }
}

#[test]
fn a_download_repeats_the_target_directory_of_the_client() {
    let get = |cmd: &str, dst_dir: &str| {
        let request = ClassicRequest {
            cmd: cmd.into(),
            filename: "field".into(),
            dst_dir: dst_dir.into(),
            ..ClassicRequest::default()
        };
        match ClassicCommand::parse(&request) {
            Ok(ClassicCommand::Get(get)) => (get.path, get.dst_dir),
            other => panic!("{other:?}"),
        }
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(get("get a", ""), pair("a", ""));
    assert_eq!(get("get a there", ""), pair("a", "there"));
    assert_eq!(get("get a there", "field"), pair("a", "field"));
    assert_eq!(get("get", ""), pair("field", ""));
}

#[test]
fn an_md5_may_be_of_any_case_empty_or_missing_and_nothing_else() {
    let digest = "md5:d41d8cd98f00b204e9800998ecf8427e".parse().ok();
    for hex in [
        "D41D8CD98F00B204E9800998ECF8427E",
        " d41d8cd98f00b204e9800998ecf8427e\n",
    ] {
        assert_eq!(parse_md5(hex), Ok(digest), "{hex}");
    }
    assert_eq!(parse_md5(" "), Ok(None));
    assert_eq!(parse_md5("d41d"), Err(ClassicCommandError::NoHash));
    assert_eq!(parse_md5(&"g".repeat(32)), Err(ClassicCommandError::NoHash));
}

#[test]
fn a_message_is_the_text_after_the_name() {
    for (cmd, text) in [
        ("say bob hello  there", "hello  there"),
        ("say bob \"hello  there\"", "hello  there"),
        ("say bob a 5\" disk", "a 5\" disk"),
        ("say bob \"a\" and \"b\"", "\"a\" and \"b\""),
    ] {
        let expected = ClassicCommand::Say {
            to: "bob".into(),
            text: text.into(),
        };
        assert_eq!(typed(cmd), Ok(expected), "{cmd}");
    }
}

#[test]
fn every_command_in_the_help_is_parsed() {
    for (name, usage) in CLASSIC_COMMANDS {
        assert!(help().contains(usage), "{name}");
        let line = usage.replace(['[', ']'], "");
        assert!(typed(&line).is_ok(), "{line}");
    }
}

/// By how many bytes the framed request is longer.
fn growth<C: Call>(request: &C, classic: usize) -> usize {
    let framed = encode_request(u32::MAX, request).len();
    framed.saturating_sub(classic)
}

proptest! {
    #[test]
    fn no_line_makes_the_parser_panic(line: String, order in 0..CLASSIC_COMMANDS.len()) {
        let _ = typed(&line);
        let _ = typed(&format!("{} {line}", CLASSIC_COMMANDS[order].0));
    }

    #[test]
    fn a_framed_request_is_hardly_longer_than_the_classic_one(
        a in "\\PC{0,40}|[\u{0}-\u{20}]{0,40}", b: String, order in 0_usize..4,
    ) {
        let quoted = |text: &str| text.replace('"', "");
        let (a, b) = (quoted(&a), quoted(&b));
        let cmd = match order {
            0 => format!("login \"{a}\" \"{b}\""),
            1 => format!("mv \"{a}\" \"{b}\""),
            2 => format!("put \"{a}\" \"{b}\""),
            _ => format!("get \"{a}\""),
        };
        let classic = json!({"cmd": cmd}).to_string().len();
        let grown = match typed(&cmd) {
            Ok(ClassicCommand::Login(login)) => growth(&login, classic),
            Ok(ClassicCommand::Mv(mv)) => growth(&mv, classic),
            Ok(ClassicCommand::Put(ClassicUpload { path, .. })) => {
                let size = Some((1 << 53) - 1);
                growth(&crate::protocol::Put { path, size, ..<_>::default() }, classic)
            }
            Ok(ClassicCommand::Get(ClassicDownload { path, .. })) => {
                growth(
                    &Hash {
                        path,
                        ..Hash::default()
                    },
                    classic,
                )
            }
            _ => 0,
        };
        prop_assert!(grown <= TRANSLATION_OVERHEAD_BYTES - 100, "{grown}");
    }
}
