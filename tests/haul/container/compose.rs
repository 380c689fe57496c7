//! A running server by one command of Docker Compose.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::engine::{client, free_port, inspect, lines_of_log, patiently, printed};
use super::image;
use crate::requirements;

/// A project with the compose files of this repository; it is removed when dropped.
struct Project {
    name: String,
    image: String,
    port: u16,
    files: &'static [&'static str],
    temp_dir: TempDir,
}

impl Project {
    fn up(image: &str, files: &'static [&'static str]) -> Self {
        let port = free_port();
        let project = Self {
            name: format!("haul{port}"),
            image: image.to_owned(),
            port,
            files,
            temp_dir: tempfile::tempdir().expect("a directory"),
        };
        let secret = project.temp_dir.path().join("secret");
        fs::write(&secret, "from a file\n").expect("written");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).expect("set");
        printed(&mut project.compose(&["up", "--detach", "--no-build"]));
        project
    }

    fn compose(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker-compose");
        for file in self.files {
            let path = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("docker")
                .join(file);
            command.arg("--file").arg(path);
        }
        command
            .args(["--project-name", &self.name])
            .args(args)
            .env("HAUL_IMAGE", &self.image)
            .env("HAUL_VOLUME", &self.name)
            .env("HAUL_ADDRESS", "127.0.0.1")
            .env("HAUL_PORT", self.port.to_string())
            .env("ADMIN_PASSWORD_FILE", self.temp_dir.path().join("secret"));
        command
    }

    /// The id of the container, once it listens, and the fingerprint of its certificate.
    fn listening(&self) -> (String, String) {
        let id = printed(&mut self.compose(&["ps", "-q", "haul"]));
        let id = id.trim_end().to_owned();
        let fingerprint = patiently("listening", || {
            let lines = lines_of_log(&id);
            lines.iter().find(|line| line["message"] == "listening")?;
            let certificate = lines.iter().find(|line| line["message"] == "certificate")?;
            Some(certificate["fingerprint"].as_str()?.to_owned())
        });
        (id, fingerprint)
    }

    fn client(&self, fingerprint: &str, password: &str, args: &[&str]) -> String {
        let temp_dir = self.temp_dir.path();
        printed(&mut client(
            temp_dir,
            self.port,
            fingerprint,
            password,
            args,
        ))
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = self.compose(&["down", "--volumes"]).output();
    }
}

#[test]
#[ignore = "needs an engine and the image"]
fn one_command_starts_a_confined_server_whose_data_survives_the_container() {
    let test = "compose::one_command";
    let Some(image) =
        image(test).filter(|_| requirements::program("docker-compose", "version", test))
    else {
        return;
    };
    let project = Project::up(&image, &["compose.yaml"]);
    let (id, fingerprint) = project.listening();
    for (template, expected) in [
        ("{{.HostConfig.ReadonlyRootfs}}", "true"),
        ("{{.HostConfig.CapDrop}}", "[ALL]"),
        ("{{.HostConfig.SecurityOpt}}", "[no-new-privileges]"),
        ("{{.HostConfig.Memory}}", "1073741824"),
        ("{{.HostConfig.PidsLimit}}", "256"),
        ("{{(index .HostConfig.Ulimits 0).Hard}}", "20000"),
        (
            "{{.HostConfig.LogConfig.Config}}",
            "map[max-file:5 max-size:10m]",
        ),
        ("{{.Config.StopTimeout}}", "10"),
    ] {
        assert_eq!(inspect(&id, template), expected, "{template}");
    }
    type_password(&project, "typed by a person");
    fs::write(project.temp_dir.path().join("file"), "kept").expect("written");
    let password = "typed by a person";
    project.client(&fingerprint, password, &["put", "file"]);
    printed(&mut project.compose(&["down"]));
    printed(&mut project.compose(&["up", "--detach", "--no-build"]));
    assert_eq!(project.listening().1, fingerprint);
    let got = project.client(&fingerprint, password, &["get", "file", "-"]);
    assert_eq!(got, "kept");
}

#[test]
#[ignore = "needs an engine and the image"]
fn the_first_password_can_be_read_from_a_file() {
    let test = "compose::the_first_password";
    let Some(image) =
        image(test).filter(|_| requirements::program("docker-compose", "version", test))
    else {
        return;
    };
    let project = Project::up(&image, &["compose.yaml", "compose.secret.yaml"]);
    let (id, fingerprint) = project.listening();
    let who = project.client(&fingerprint, "from a file", &["whoami"]);
    assert!(who.contains("admin"), "{who}");
    let log = format!("{:?}", lines_of_log(&id));
    let known = printed(Command::new("docker").args(["inspect", &id]));
    assert!(!log.contains("from a file") && !known.contains("from a file"));
}

/// Changes the password by `exec haul /haul user passwd admin`, as the compose file advises.
fn type_password(project: &Project, password: &str) {
    let mut passwd = project
        .compose(&["exec", "-T", "haul", "/haul", "user", "passwd", "admin"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut stdin = passwd.stdin.take().expect("piped");
    writeln!(stdin, "{password}").expect("it reads");
    drop(stdin);
    assert!(passwd.wait().expect("it ends").success());
}
