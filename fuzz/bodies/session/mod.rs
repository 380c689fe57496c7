//! A complete session over a pipe, compared with a model.
//!
//! A script of a client's actions is made from any bytes and run against a real server. A request
//! waits for earlier ones on which its outcome depends, so that the model knows each reply. In a
//! racy script no request waits, and only properties that hold for every order are checked.

mod deltas;
mod expect;
mod model;
mod play;
mod predict;
mod putting;
mod script;

use std::cell::OnceCell;
use std::path::Path;
use std::time::Duration;

use haul::accounts::{Accounts, HashingCost, NewUser, UserName};
use haul::config::Config;
use haul::protocol::Secret;
use haul::server::{Peer, Server, Shutdown};
use haul::storage::{SpaceLimits, Store};
use tempfile::TempDir;
use tokio::io::{DuplexStream, duplex};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use self::model::FileModel;
use self::play::Play;
use self::script::Script;

const PASSWORD: &str = "correct horse";

/// The quota of the user with the small quota: bytes and entries.
const TIGHT: (u64, u64) = (40_000, 8);

/// The longest time of a script; a hang is a failure.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) fn check(input: &[u8]) {
    let script = Script::read(input);
    let script = Shown(script);
    thread_local! {
        static WORLD: OnceCell<World> = const { OnceCell::new() };
    }
    WORLD.with(|world| {
        let world = world.get_or_init(World::new);
        world.runtime.block_on(async {
            let played = timeout(PATIENCE, world.play(&script.0)).await;
            played.expect("no hang");
        });
    });
}

/// A script that is printed if it fails.
struct Shown(Script);

impl Drop for Shown {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:#?}", self.0);
        }
    }
}

/// The state that all scripts of a thread share, because creating accounts takes longer than a
/// session.
struct World {
    runtime: Runtime,
    accounts: Accounts,
    _place: TempDir,
}

impl World {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let place = temporary_directory();
        let accounts = runtime.block_on(async {
            let accounts = Accounts::open(place.path()).await.expect("accounts");
            let accounts = accounts.with_hashing_cost(HashingCost::MIN);
            let tight = SpaceLimits {
                bytes: Some(TIGHT.0),
                files: Some(TIGHT.1),
            };
            add_user(&accounts, "free", SpaceLimits::default()).await;
            add_user(&accounts, "tight", tight).await;
            accounts
        });
        Self {
            runtime,
            accounts,
            _place: place,
        }
    }

    async fn play(&self, script: &Script) {
        let data = temporary_directory();
        let store = Store::open(data.path()).expect("a store");
        let messages = haul::messages::Messages::open(data.path());
        let messages = messages.await.expect("messages");
        let mut config = Config::default();
        // No timeout may end a script.
        config.limits.login_timeout = PATIENCE;
        config.limits.frame_timeout = PATIENCE;
        config.limits.frame_timeout_before_login = PATIENCE;
        config.limits.write_timeout = PATIENCE;
        let server = Server::new(self.accounts.clone(), store, messages, config);
        let user = if script.tight { "tight" } else { "free" };
        let (near, session) = connect(&server, 8 << (script.pipe % 14));
        let mut play = Play::log_in(near, user, script).await;
        for step in &script.steps {
            play.step(step).await;
        }
        let known = play.end(script.ending).await;
        session.await.expect("the session does not panic");
        let home = data.path().join("homes").join(user);
        let last = connect(&server, 64 * 1024);
        check_leftovers(&home, &data.path().join("staging"), last, user, script).await;
        known.check(&FileModel::read(&home));
    }
}

/// In memory if possible, because the disk is not under test.
fn temporary_directory() -> TempDir {
    let in_memory = tempfile::tempdir_in("/dev/shm");
    in_memory
        .or_else(|_| tempfile::tempdir())
        .expect("a temporary directory")
}

async fn add_user(accounts: &Accounts, name: &str, limits: SpaceLimits) {
    let name: UserName = name.parse().expect("a user name");
    let new = NewUser {
        admin: false,
        limits,
    };
    let password = Secret::new(PASSWORD.into());
    let added = accounts.add_user(&name, &password, new).await;
    added.expect("a new user");
}

fn connect(server: &Server, pipe: usize) -> (DuplexStream, JoinHandle<()>) {
    let (near, far) = duplex(pipe);
    let (reader, writer) = tokio::io::split(far);
    let server = server.clone();
    let session = tokio::spawn(async move {
        let shutdown = Shutdown::default();
        server
            .serve(reader, writer, Peer::in_process(), shutdown)
            .await;
    });
    (near, session)
}

/// Checks that nothing is staged and that the quota equals the files on the disk, once the work of
/// the session is complete.
async fn check_leftovers(
    home: &Path,
    staging: &Path,
    (near, session): (DuplexStream, JoinHandle<()>),
    user: &str,
    script: &Script,
) {
    let mut last = Play::log_in(near, user, script).await;
    let give_up = Instant::now() + Duration::from_secs(10);
    loop {
        // A large interrupted upload is kept, to be resumed.
        last.discard_partial_uploads().await;
        let staging_now = staged(staging);
        let in_use = last.usage().await;
        let held = FileModel::read(home).usage();
        if (staging_now, in_use) == (0, held) {
            break;
        }
        assert!(
            Instant::now() < give_up,
            "{staging_now} are staged, {in_use:?} in use, {held:?} on the disk"
        );
        sleep(Duration::from_millis(2)).await;
    }
    let bytes = FileModel::read(home).usage();
    assert!(
        !script.tight || bytes.0 <= TIGHT.0 && bytes.1 <= TIGHT.1,
        "{bytes:?}"
    );
    last.quit().await;
    session.await.expect("the session does not panic");
}

/// The entries of staging that belong to uploads.
fn staged(staging: &Path) -> usize {
    let entries = std::fs::read_dir(staging).expect("a directory");
    entries.filter(|entry| entry.as_ref().is_ok()).count()
}
