//! The contents and labels of the image, and the client in it.

use std::fs;
use std::process::Command;

use super::engine::{free_port, patiently};
use super::{Container, RunOptions, docker, docker_fails, image};
use crate::harness::PASSWORD;
use crate::tls::authority::CertificateAuthority;

#[test]
#[ignore = "needs an engine and the image"]
fn the_image_is_under_30_mb_and_holds_the_program_the_authorities_and_nothing_else() {
    let Some(image) = image("image::the_image_is_under_30_mb") else {
        return;
    };
    let size: u64 = docker(&["image", "inspect", "--format", "{{.Size}}", &image])
        .parse()
        .expect("a number");
    assert!(size < 30_000_000, "{size}");
    let temp_dir = tempfile::tempdir().expect("a directory");
    let container = docker(&["create", &image]);
    let tar = temp_dir.path().join("image.tar");
    docker(&[
        "export",
        "--output",
        tar.to_str().expect("text"),
        &container,
    ]);
    docker(&["rm", "--volumes", &container]);
    let tarred = |args: &[&str]| {
        let output = Command::new("tar").args(args).arg("-f").arg(&tar).output();
        String::from_utf8(output.expect("it runs").stdout).expect("text")
    };
    let listed = tarred(&["--list"]);
    // The engine adds these to every container.
    let of_the_engine = [
        ".dockerenv",
        "dev/",
        "proc/",
        "sys/",
        "etc/hosts",
        "etc/hostname",
        "etc/mtab",
        "etc/resolv.conf",
    ];
    let mut own: Vec<_> = listed
        .lines()
        .filter(|name| !of_the_engine.iter().any(|prefix| name.starts_with(prefix)))
        .filter(|name| !name.ends_with('/') || *name == "data/")
        .collect();
    own.sort_unstable();
    assert_eq!(own, ["data/", "etc/ssl/certs/ca-certificates.crt", "haul"]);
    let authorities = Command::new("tar")
        .args(["--extract", "--to-stdout", "-f"])
        .arg(&tar)
        .arg("etc/ssl/certs/ca-certificates.crt")
        .output();
    let authorities = String::from_utf8(authorities.expect("it runs").stdout).expect("text");
    assert!(authorities.matches("BEGIN CERTIFICATE").count() > 50);
}

#[test]
#[ignore = "needs an engine and the image"]
fn the_labels_of_the_image_describe_how_to_run_it() {
    let Some(image) = image("image::the_labels_of_the_image_describe_how_to_run_it") else {
        return;
    };
    for (template, expected) in [
        ("{{.Config.User}}", "65532:65532"),
        ("{{.Config.StopSignal}}", "SIGTERM"),
        ("{{json .Config.Entrypoint}}", r#"["/haul"]"#),
        ("{{json .Config.Cmd}}", r#"["serve"]"#),
        ("{{json .Config.Volumes}}", r#"{"/data":{}}"#),
        (
            "{{json .Config.Healthcheck.Test}}",
            r#"["CMD","/haul","healthcheck"]"#,
        ),
        (
            r#"{{index .Config.Labels "org.opencontainers.image.title"}}"#,
            "haul",
        ),
    ] {
        let stderr = docker(&["image", "inspect", "--format", template, &image]);
        assert_eq!(stderr, expected, "{template}");
    }
    let stderr = docker(&["run", "--rm", "--read-only", &image, "--version"]);
    assert_eq!(stderr, format!("haul {}", env!("CARGO_PKG_VERSION")));
}

#[test]
#[ignore = "needs an engine and the image"]
fn nothing_secret_is_in_the_image_or_in_what_the_engine_keeps_of_a_container() {
    let Some(image) = image("image::nothing_secret") else {
        return;
    };
    let options = RunOptions {
        makes_up_password: true,
        ..RunOptions::default()
    };
    for (container, is_given) in [
        (Container::run(&image, &RunOptions::default()), true),
        (Container::run(&image, &options), false),
    ] {
        let password = if is_given {
            container.succeeds(&["mkdir", "d"]);
            PASSWORD.to_owned()
        } else {
            let made = container.wait_for_log_line("the first account was made");
            let file = made["password_file"].as_str().expect("a path");
            assert_eq!(file, "/data/admin-password");
            let copy = container.temp_dir.path().join("copy");
            let from = format!("{}:{file}", container.name);
            docker(&["cp", &from, copy.to_str().expect("text")]);
            let password = fs::read_to_string(copy).expect("text");
            assert_eq!(password.trim_end().len(), 20);
            password.trim_end().to_owned()
        };
        let log = format!("{:?}", container.log());
        let history = docker(&["history", "--no-trunc", &image]);
        let known = docker(&["inspect", &container.name]);
        for kept in [log, history, known] {
            assert!(!kept.contains(&password), "{kept}");
        }
    }
}

#[test]
#[ignore = "needs an engine and the image"]
fn the_terminal_of_a_container_shows_no_password_because_the_engine_keeps_what_it_shows() {
    let Some(image) = image("image::the_terminal_of_a_container") else {
        return;
    };
    let name = format!("haul-terminal-{}", free_port());
    let volume = format!("--volume={name}:/data");
    docker(&["run", "--detach", "--tty", "--name", &name, &volume, &image]);
    let log = patiently("listening", || {
        let log = docker(&["logs", &name]);
        log.contains(" listening ").then_some(log)
    });
    let temp_dir = tempfile::tempdir().expect("a directory");
    let copy = temp_dir.path().join("copy");
    let from = format!("{name}:/data/admin-password");
    docker(&["cp", &from, copy.to_str().expect("text")]);
    docker(&["rm", "--force", &name]);
    docker(&["volume", "rm", &name]);
    let password = fs::read_to_string(copy).expect("text");
    assert_eq!(password.trim_end().len(), 20);
    assert!(!log.contains(password.trim_end()), "{log}");
}

#[test]
#[ignore = "needs an engine and the image"]
fn the_client_in_the_image_finds_servers_by_name_and_trusts_the_authorities_of_the_image() {
    let Some(image) = image("image::the_client_in_the_image") else {
        return;
    };
    let authority = CertificateAuthority::new();
    let network = ContainerNetwork::new();
    let temp_dir = tempfile::tempdir().expect("a directory");
    let (certificate, key) = authority.certify(&["files.test", "files"]);
    let mounted = |name: &str, content: &str, at: &str| {
        let path = temp_dir.path().join(name);
        fs::write(&path, content).expect("written");
        format!("--volume={}:{at}:ro", path.display())
    };
    let server = Container::run(
        &image,
        &RunOptions {
            run: &[
                &format!("--network={}", network.0),
                "--network-alias=files",
                &mounted("cert.pem", &certificate, "/tls/cert.pem"),
                &mounted("key.pem", &key, "/tls/key.pem"),
                "--env=HAUL_TLS_CERTIFICATE=/tls/cert.pem",
                "--env=HAUL_TLS_KEY=/tls/key.pem",
            ],
            ..RunOptions::default()
        },
    );
    let address = server.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
    let password = mounted("password", PASSWORD, "/password");
    let bundle = "/etc/ssl/certs/ca-certificates.crt";
    let trusted = mounted("authorities.pem", &authority.pem, bundle);
    let network = format!("--network={}", network.0);
    let host = format!("--add-host=files.test:{address}");
    let words = |name: &str, more: &[&str]| {
        let url = format!("haul://admin@{name}:9000");
        let mut words: Vec<_> = ["run", "--rm", "--read-only", "--cap-drop=ALL"].into();
        words.extend([&*network, &host, &password]);
        words.extend(more);
        words.extend([
            &*image,
            "--server",
            &url,
            "--password-file=/password",
            "whoami",
        ]);
        words.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    // By the name service of the engine, and by /etc/hosts.
    for name in ["files", "files.test"] {
        let words = words(name, &[&trusted]);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        assert!(docker(&words).contains("admin"), "{name}");
    }
    let refused = words("files", &[]);
    let refused: Vec<_> = refused.iter().map(String::as_str).collect();
    let stderr = docker_fails(&refused, 3);
    assert!(
        stderr.contains("not known") || stderr.contains("not trusted"),
        "{stderr}"
    );
}

/// A network of containers; removed when dropped.
struct ContainerNetwork(String);

impl ContainerNetwork {
    fn new() -> Self {
        let name = format!("haul-test-{}", free_port());
        docker(&["network", "create", &name]);
        Self(name)
    }
}

impl Drop for ContainerNetwork {
    fn drop(&mut self) {
        let _ = Command::new("docker")
            .args(["network", "rm", &self.0])
            .output();
    }
}
