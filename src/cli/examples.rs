//! Two examples for each command, shown first in its help.

/// A line to type, and a comment on it, which may be empty.
pub(super) type Example = (&'static str, &'static str);

/// The examples of a command, such as `user add`.
pub(super) fn examples(command: &str) -> &'static [Example] {
    let found = EXAMPLES.iter().find(|(names, _)| names.contains(&command));
    found.map_or(&[], |(_, examples)| examples)
}

const EXAMPLES: &[(&[&str], [Example; 2])] = &[
    (
        &[""],
        [
            ("haul connect haul://alice@files.example.org", "log in once"),
            ("haul put photos", "upload a directory"),
        ],
    ),
    (
        &["serve"],
        [
            ("haul serve", "serve ./haul-data on port 9000"),
            ("haul serve --data /srv/haul --listen 0.0.0.0:9000", ""),
        ],
    ),
    (
        &["connect"],
        [
            ("haul connect haul://alice@files.example.org", ""),
            (
                "haul connect --as work haul://alice@10.0.0.5:9000",
                "save it as profile work",
            ),
        ],
    ),
    (
        &["profiles"],
        [
            ("haul profiles", ""),
            ("haul --json profiles | jq -r .profile", ""),
        ],
    ),
    (
        &["use"],
        [
            ("haul use work", "in all terminals"),
            ("haul --profile work ls", "for one command"),
        ],
    ),
    (&["logout"], [("haul logout", ""), ("haul logout work", "")]),
    (
        &["user", "user add"],
        [
            ("haul user add alice --quota 10GiB", ""),
            ("haul user add root --admin < password.txt", ""),
        ],
    ),
    (
        &["sync"],
        [
            ("haul sync ./site :/www --delete", "up, exactly"),
            ("haul sync :/team ./team --dry-run", "down, only shown"),
        ],
    ),
    (
        &["user list"],
        [
            ("haul user list", ""),
            ("haul --json user list | jq -r .name", ""),
        ],
    ),
    (
        &["user set"],
        [
            ("haul user set alice --quota none", ""),
            (
                "haul user set alice --disable",
                "end her sessions and refuse her logins",
            ),
        ],
    ),
    (
        &["user disable"],
        [
            ("haul user disable alice", ""),
            ("haul user disable alice --data /srv/haul", ""),
        ],
    ),
    (
        &["user enable"],
        [
            ("haul user enable alice", ""),
            ("haul user enable alice --data /srv/haul", ""),
        ],
    ),
    (
        &["user passwd"],
        [
            ("haul user passwd alice", ""),
            ("haul user passwd alice < password.txt", ""),
        ],
    ),
    (
        &["user remove"],
        [
            ("haul user remove alice", ""),
            ("haul user remove alice --data /srv/haul", ""),
        ],
    ),
    (
        &["folder", "folder add"],
        [
            ("haul folder add team --quota 100GiB", ""),
            (
                "haul folder grant team alice rw",
                "let alice read and write it",
            ),
        ],
    ),
    (
        &["folder list"],
        [
            ("haul folder list", ""),
            ("haul --json folder list | jq -r .name", ""),
        ],
    ),
    (
        &["folder grant"],
        [
            ("haul folder grant team alice rw", ""),
            (
                "haul folder grant inbox bob drop",
                "put files without seeing any",
            ),
        ],
    ),
    (
        &["folder revoke"],
        [
            ("haul folder revoke team alice", ""),
            ("haul folder revoke team alice --data /srv/haul", ""),
        ],
    ),
    (
        &["folder remove"],
        [
            ("haul folder remove team", ""),
            ("haul folder remove team --data /srv/haul", ""),
        ],
    ),
    (
        &["token", "token add"],
        [
            (
                "haul token add --label backup > backup.token",
                "for yourself",
            ),
            (
                "haul token add robot --expires 90d",
                "on the server's machine",
            ),
        ],
    ),
    (
        &["token list"],
        [
            ("haul token list", "your own tokens"),
            ("haul token list robot", "on the server's machine"),
        ],
    ),
    (
        &["token remove"],
        [
            ("haul token list", "show the numbers of the tokens"),
            ("haul token remove 3", ""),
        ],
    ),
    (
        &["backup"],
        [
            ("haul backup /backup/$(date +%F)", ""),
            (
                "haul serve --data /backup/2026-11-30",
                "serve a copy of that day",
            ),
        ],
    ),
    (
        &["check-config"],
        [
            ("haul check-config /etc/haul.toml", ""),
            ("haul --json check-config /etc/haul.toml | jq .limits", ""),
        ],
    ),
    (
        &["healthcheck"],
        [
            ("haul healthcheck", ""),
            (
                "haul healthcheck --config /etc/haul.toml || echo unhealthy",
                "",
            ),
        ],
    ),
    (
        &["discover"],
        [
            ("haul discover", ""),
            ("haul discover --wait 3 192.168.7.255", ""),
        ],
    ),
    (
        &["bench"],
        [("haul bench", ""), ("haul bench --seconds 20", "")],
    ),
    (
        &["shell"],
        [
            ("haul shell", ""),
            ("haul shell < commands.txt", "run a script"),
        ],
    ),
    (
        &["demo"],
        [("haul demo", ""), ("haul demo --sessions 8 photos", "")],
    ),
    (
        &["completions"],
        [
            ("haul completions zsh > ~/.zfunc/_haul", ""),
            (
                "haul completions bash > ~/.local/share/bash-completion/completions/haul",
                "",
            ),
        ],
    ),
    (
        &["man"],
        [
            ("haul man ~/.local/share/man/man1", ""),
            ("man haul-put", "read one"),
        ],
    ),
    (
        &["get"],
        [
            ("haul get report.pdf", "into the current directory"),
            (
                "haul get '/team/*.csv' -t data",
                "into the local directory data",
            ),
        ],
    ),
    (
        &["put"],
        [
            (
                "haul put photos",
                "into the current directory on the server",
            ),
            ("haul put -t /team a.pdf b.pdf", "into the directory /team"),
        ],
    ),
    (
        &["ls"],
        [
            ("haul ls -l /team", ""),
            ("haul ls '*.txt'", "the server's files that match"),
        ],
    ),
    (
        &["cat"],
        [
            ("haul cat notes.txt", ""),
            ("haul cat 'logs/*.log' | grep error", ""),
        ],
    ),
    (
        &["find"],
        [
            ("haul find -name '*.iso' -size +1G", ""),
            (
                "haul find /team -type f -mtime -7",
                "changed in the last week",
            ),
        ],
    ),
    (
        &["tree"],
        [("haul tree", ""), ("haul tree -L 2 /team", "two levels")],
    ),
    (
        &["du"],
        [
            ("haul du -s '*'", "the sum of each entry"),
            ("haul du -d 1 /team", ""),
        ],
    ),
    (
        &["stat"],
        [
            ("haul stat report.pdf", ""),
            ("haul --json stat report.pdf", ""),
        ],
    ),
    (
        &["mkdir"],
        [
            ("haul mkdir photos", ""),
            ("haul mkdir -p photos/2026/may", ""),
        ],
    ),
    (
        &["rm"],
        [("haul rm old.txt", ""), ("haul rm -r '/team/tmp*'", "")],
    ),
    (
        &["mv"],
        [
            ("haul mv draft.txt final.txt", ""),
            ("haul mv '*.csv' /team/", "into the directory /team"),
        ],
    ),
    (
        &["cp"],
        [
            ("haul cp report.pdf /team/", ""),
            ("haul cp photos photos-copy", "a directory with its content"),
        ],
    ),
    (
        &["hash"],
        [
            ("haul hash report.pdf", ""),
            (
                "haul hash --digest sha256 --check-format a b | sha256sum -c",
                "",
            ),
        ],
    ),
    (&["df"], [("haul df", ""), ("haul df --bytes", "")]),
    (
        &["passwd"],
        [("haul passwd", ""), ("haul passwd < old-and-new.txt", "")],
    ),
    (
        &["uploads"],
        [
            ("haul uploads", ""),
            ("haul --json uploads | jq -r .path", ""),
        ],
    ),
    (
        &["discard"],
        [
            ("haul uploads", "show the names of the uploads"),
            ("haul discard 1f8e2b9c", ""),
        ],
    ),
    (&["ping"], [("haul ping", ""), ("haul ping --count 10", "")]),
    (
        &["whoami"],
        [("haul whoami", ""), ("haul --json whoami | jq .quota", "")],
    ),
    (
        &["who"],
        [("haul who", ""), ("haul --json who | jq -r .user", "")],
    ),
    (
        &["say"],
        [
            ("haul say bob the report is in /team", ""),
            ("haul say '#ops' backup done", "to a room"),
        ],
    ),
    (
        &["history"],
        [("haul history bob", ""), ("haul history -n 20 '#ops'", "")],
    ),
    (
        &["join"],
        [("haul join '#ops'", ""), ("haul --json join '#ops'", "")],
    ),
    (
        &["leave"],
        [("haul leave '#ops'", ""), ("haul --json leave '#ops'", "")],
    ),
    (&["chat"], [("haul chat bob", ""), ("haul chat '#ops'", "")]),
    (
        &["send"],
        [
            ("haul send bob report.pdf", ""),
            ("haul send bob /team/data.csv", ""),
        ],
    ),
    (
        &["offers"],
        [
            ("haul offers", ""),
            ("haul --json offers | jq -r .path", ""),
        ],
    ),
    (
        &["accept"],
        [
            ("haul accept", "the only offer"),
            ("haul accept e1972c37b3392774 copy.txt", ""),
        ],
    ),
    (
        &["withdraw"],
        [
            ("haul withdraw e1972c37b3392774", ""),
            ("haul offers --sent", "lists them"),
        ],
    ),
    (
        &["decline"],
        [
            ("haul offers", "show the names of the offers"),
            ("haul decline e1972c37b3392774", ""),
        ],
    ),
    (
        &["watch"],
        [
            ("haul watch /team", ""),
            ("haul --json watch /team | jq -r .path", ""),
        ],
    ),
    (
        &["admin"],
        [
            ("haul admin sessions", ""),
            ("haul admin logs -f --level warn", ""),
        ],
    ),
    (
        &["admin sessions"],
        [
            ("haul admin sessions", ""),
            ("haul admin sessions --user alice", ""),
        ],
    ),
    (
        &["admin users"],
        [
            ("haul admin users", ""),
            ("haul --json admin users | jq -r .user", ""),
        ],
    ),
    (
        &["admin user", "admin user add"],
        [
            ("haul admin user add alice --quota 10GiB", ""),
            ("haul admin user add root --admin < password.txt", ""),
        ],
    ),
    (
        &["admin user list"],
        [
            ("haul admin user list", ""),
            ("haul --json admin user list | jq -r .name", ""),
        ],
    ),
    (
        &["admin user set"],
        [
            ("haul admin user set alice --quota none", ""),
            ("haul admin user set alice --admin", ""),
        ],
    ),
    (
        &["admin user disable", "admin user enable"],
        [
            ("haul admin user disable alice", ""),
            ("haul admin user enable alice", ""),
        ],
    ),
    (
        &["admin user passwd"],
        [
            ("haul admin user passwd alice", ""),
            ("haul admin user passwd alice < password.txt", ""),
        ],
    ),
    (
        &["admin user remove"],
        [
            ("haul admin user list", "show the names of the users"),
            ("haul admin user remove alice", ""),
        ],
    ),
    (
        &["admin folder", "admin folder add"],
        [
            ("haul admin folder add team --quota 100GiB", ""),
            (
                "haul admin folder grant team alice rw",
                "let alice read and write it",
            ),
        ],
    ),
    (
        &["admin folder list"],
        [
            ("haul admin folder list", ""),
            ("haul --json admin folder list | jq -r .name", ""),
        ],
    ),
    (
        &["admin folder grant"],
        [
            ("haul admin folder grant team alice rw", ""),
            (
                "haul admin folder grant inbox bob drop",
                "put files without seeing any",
            ),
        ],
    ),
    (
        &["admin folder revoke", "admin folder remove"],
        [
            ("haul admin folder revoke team alice", ""),
            ("haul admin folder remove team", ""),
        ],
    ),
    (
        &["admin token", "admin token add"],
        [
            ("haul admin token add robot --label backup", ""),
            ("haul admin token add robot --expires 90d", ""),
        ],
    ),
    (
        &["admin token list", "admin token remove"],
        [
            ("haul admin token list robot", ""),
            ("haul admin token remove robot 3", ""),
        ],
    ),
    (
        &["admin kick"],
        [
            ("haul admin kick --user alice", ""),
            ("haul admin kick 3f2a9c0d11e4b7a6", ""),
        ],
    ),
    (
        &["admin reload"],
        [
            ("haul admin reload", ""),
            ("haul admin reload --dry-run", ""),
        ],
    ),
    (
        &["admin drain"],
        [
            ("haul admin drain", ""),
            ("haul admin drain --seconds 60", ""),
        ],
    ),
    (
        &["admin logs"],
        [
            ("haul admin logs -f --level warn", ""),
            ("haul admin logs -n 100 --user alice --cmd put", ""),
        ],
    ),
    (
        &["admin log-level"],
        [
            ("haul admin log-level debug --seconds 600", ""),
            ("haul admin log-level info,haul::server=debug", ""),
        ],
    ),
];
