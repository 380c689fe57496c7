//! The throughput of one room and the latency of its messages, with server and clients on this
//! machine: `cargo bench --bench messages`.
//!
//! Each round sends a number of messages per second to a room of a hundred members. Each member
//! sends an equal share and receives all messages of the others, over TCP and from a database that
//! syncs. Every member must receive every message once and in order. The rate doubles each round
//! until the server cannot keep up. For comparison, a loop without a server writes the same frames
//! to the same number of sockets.
//!
//! `HAUL_MEMBERS`, `HAUL_RATE` and `HAUL_SECONDS` change the number of members, the rate of the
//! first round and its length.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use haul::accounts::{Accounts, HashingCost, NewUser, UserName};
use haul::config::Config;
use haul::connection::{FrameSink, Outbox};
use haul::connection::{Receiver, write_frames};
use haul::messages::Messages;
use haul::protocol::{
    Event, Frame, FrameCodec, Join, Login, Message, Say, Secret, ServerMessage, encode_event,
    encode_request,
};
use haul::server::Server;
use haul::storage::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

type MessageBenchResult<T> = Result<T, Box<dyn Error + Send + Sync>>;

const ROOM: &str = "#bench";
const LONG: Duration = Duration::from_mins(10);

/// The measurements of a round.
struct Round {
    offered: u64,
    took: Duration,
    deliveries: u64,
    /// The latencies of deliveries, from before the message is sent until it is read; sorted.
    latencies: Vec<Duration>,
}

fn main() -> MessageBenchResult<()> {
    let members = number("HAUL_MEMBERS", 100)?;
    let mut rate = number("HAUL_RATE", 1000)?;
    let seconds = number("HAUL_SECONDS", 5)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let bare = runtime.block_on(bare_loop(members, Duration::from_secs(seconds)))?;
    println!("bare loop, the same frames to {members} sockets: {bare:.0} deliveries/s");
    println!("messages/s  deliveries/s  of bare   p50 ms   p99 ms   max ms");
    loop {
        let round = runtime.block_on(round(members, rate, seconds))?;
        let delivered = f64::from(u32::try_from(round.deliveries)?) / round.took.as_secs_f64();
        let at = |part: usize| {
            let index = (round.latencies.len() - 1) * part / 100;
            round.latencies[index].as_secs_f64() * 1000.0
        };
        println!(
            "{rate:>10}  {delivered:>12.0}  {:>6.2}  {:>8.1} {:>8.1} {:>8.1}",
            delivered / bare,
            at(50),
            at(99),
            at(100)
        );
        let wanted = round.offered * (members - 1);
        assert_eq!(
            round.deliveries, wanted,
            "every message arrives at every member"
        );
        if round.took > Duration::from_secs(seconds).mul_f64(1.2) {
            println!(
                "it keeps up no more: {:.1} s for {seconds} s",
                round.took.as_secs_f64()
            );
            return Ok(());
        }
        rate *= 2;
    }
}

fn number(variable: &str, usual: u64) -> MessageBenchResult<u64> {
    match std::env::var(variable) {
        Ok(text) => Ok(text.parse()?),
        Err(_) => Ok(usual),
    }
}

/// A member of the room.
struct BenchMember {
    receiver: Receiver<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

async fn round(members: u64, rate: u64, seconds: u64) -> MessageBenchResult<Round> {
    let place = tempfile::tempdir()?;
    let accounts = Accounts::open(place.path()).await?;
    let accounts = accounts.with_hashing_cost(HashingCost::MIN);
    let mut config = Config::default();
    config.server.data = place.path().to_owned();
    config.limits.sessions_per_address = 0;
    config.limits.messages_per_user = 0;
    let messages = Messages::open(place.path()).await?;
    let store = Store::open(place.path())?;
    let server = Server::new(accounts.clone(), store, messages, config);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { server.run(listener, stop).await }
    });
    let mut joined = Vec::new();
    for number in 0..members {
        let name: UserName = format!("user-{number}").parse()?;
        let password = Secret::new("correct horse".into());
        accounts
            .add_user(&name, &password, NewUser::default())
            .await?;
        joined.push(BenchMember::join(&address.to_string(), &name, &password).await?);
    }
    let total = rate * seconds;
    let start = Instant::now();
    let mut work = JoinSet::new();
    for (number, member) in (0u32..).zip(joined) {
        let BenchMember { receiver, writer } = member;
        let own = share(total, members, number.into());
        work.spawn(talk(
            writer,
            own,
            number,
            Duration::from_secs(seconds),
            start,
        ));
        work.spawn(listen(receiver, own, total - own, start));
    }
    let mut round = Round {
        offered: total,
        took: Duration::ZERO,
        deliveries: 0,
        latencies: Vec::new(),
    };
    while let Some(received) = timeout(LONG, work.join_next()).await? {
        let received = received??;
        round.deliveries += received.len() as u64;
        round.latencies.extend(received);
    }
    round.took = start.elapsed();
    round.latencies.sort();
    stop.cancel();
    running.await?;
    Ok(round)
}

/// The number of the `total` messages that a member sends.
fn share(total: u64, members: u64, number: u64) -> u64 {
    total / members + u64::from(number < total % members)
}

impl BenchMember {
    async fn join(address: &str, name: &UserName, password: &Secret) -> MessageBenchResult<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        let mut member = Self {
            receiver: Receiver::new(reader, FrameCodec::new(), LONG),
            writer,
        };
        let login = Login {
            user: Some(name.to_string()),
            password: Some(password.clone()),
            ..Login::default()
        };
        send(&mut member.writer, encode_request(1, &login)).await?;
        member.answered(1).await?;
        let join = Join { room: ROOM.into() };
        send(&mut member.writer, encode_request(2, &join)).await?;
        member.answered(2).await?;
        // The member is live once it receives its own message.
        let say = Say {
            to: name.to_string(),
            text: "do I hear?".into(),
        };
        loop {
            send(&mut member.writer, encode_request(3, &say)).await?;
            if member.answered(3).await?.contains("\"delivered\":1") {
                return Ok(member);
            }
        }
    }

    /// The reply to a request.
    async fn answered(&mut self, id: u32) -> MessageBenchResult<String> {
        loop {
            let frame = self.receiver.next().await?.ok_or("closed")?;
            let Frame::Control(json) = frame else {
                return Err("bytes that nobody asked for".into());
            };
            match ServerMessage::parse(&json)? {
                ServerMessage::Reply(of, Ok(reply)) if of == id => return Ok(reply.to_string()),
                ServerMessage::Event(_) => {}
                other => return Err(format!("{other:?}").into()),
            }
        }
    }
}

async fn send(writer: &mut OwnedWriteHalf, json: Vec<u8>) -> MessageBenchResult<()> {
    let length = u32::try_from(json.len())?;
    writer
        .write_all(&[&length.to_be_bytes()[..], &json].concat())
        .await?;
    Ok(())
}

/// Sends `count` messages at a constant rate; each contains the time at which it is sent.
async fn talk(
    mut writer: OwnedWriteHalf,
    own: u64,
    number: u32,
    time: Duration,
    start: Instant,
) -> MessageBenchResult<Vec<Duration>> {
    if own > 0 {
        let mut ticks = interval(time / u32::try_from(own)?);
        // The members do not all send at the same moment.
        tokio::time::sleep(Duration::from_micros(u64::from(number) * 97)).await;
        for _ in 0..own {
            ticks.tick().await;
            let say = Say {
                to: ROOM.into(),
                text: start.elapsed().as_micros().to_string(),
            };
            send(&mut writer, encode_request(number + 10, &say)).await?;
        }
    }
    // The connection stays open until the others have received the message.
    std::mem::forget(writer);
    Ok(Vec::new())
}

/// Reads the given numbers of messages and of replies.
async fn listen(
    mut receiver: Receiver<OwnedReadHalf>,
    replies: u64,
    messages: u64,
    start: Instant,
) -> MessageBenchResult<Vec<Duration>> {
    let mut latencies = Vec::with_capacity(usize::try_from(messages)?);
    let (mut answered, mut last) = (0, 0);
    while answered < replies || (latencies.len() as u64) < messages {
        let frame = receiver.next().await?.ok_or("closed")?;
        let Frame::Control(json) = frame else {
            return Err("bytes that nobody asked for".into());
        };
        match ServerMessage::parse(&json)? {
            ServerMessage::Reply(_, Ok(_)) => answered += 1,
            ServerMessage::Event(Event::Message(message)) if message.to == ROOM => {
                assert!(message.seq > last, "in order, and each once");
                last = message.seq;
                let sent = Duration::from_micros(message.text.parse()?);
                latencies.push(start.elapsed().saturating_sub(sent));
            }
            ServerMessage::Event(_) => {}
            other => return Err(format!("{other:?}").into()),
        }
    }
    Ok(latencies)
}

/// Deliveries per second of a loop that writes each message to all of a number of sockets.
async fn bare_loop(members: u64, time: Duration) -> MessageBenchResult<f64> {
    let json = encode_event(&Event::Message(Message {
        seq: 1,
        from: "user-1".into(),
        to: ROOM.into(),
        text: "1234567".into(),
        time: "2026-01-01T00:00:00Z".parse()?,
    }));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut outboxes = Vec::new();
    let mut work = JoinSet::new();
    for _ in 0..members {
        let mut near = TcpStream::connect(listener.local_addr()?).await?;
        let (far, _) = listener.accept().await?;
        let (outbox, queue) = Outbox::new();
        outboxes.push(outbox);
        tokio::spawn(write_frames(FrameSink::new(far), queue, LONG));
        work.spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            while matches!(near.read(&mut buffer).await, Ok(1..)) {}
        });
    }
    let outboxes = Arc::new(outboxes);
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < time {
        for outbox in outboxes.iter() {
            outbox.send(json.clone()).await?;
            sent += 1;
        }
    }
    drop(outboxes);
    while work.join_next().await.is_some() {}
    Ok(f64::from(sent) / start.elapsed().as_secs_f64())
}
