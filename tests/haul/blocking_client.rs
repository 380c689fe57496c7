//! A raw client on a blocking socket, for threads whose server may be killed: a lost connection is
//! a value here. It shares no code with haul.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{control, data};

/// No test waits longer than this for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A session on a blocking socket.
pub(crate) struct BlockingSession {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
    /// The id of a put that runs in the background. It may be refused at any time; its refusal is
    /// ignored.
    pub(crate) beside: Option<u64>,
}

/// The part of an upload that the server has.
#[derive(Debug)]
pub(crate) struct UploadOffer {
    pub(crate) upload: String,
    /// The number of bytes.
    pub(crate) offset: usize,
    /// Their digest.
    pub(crate) prefix: Option<String>,
}

/// A frame from the server.
#[derive(Debug)]
pub(crate) enum ReceivedFrame {
    Control(Value),
    Data(Vec<u8>),
}

impl BlockingSession {
    /// Connects and logs in.
    pub(crate) fn log_in(address: &str, token: &str) -> io::Result<Self> {
        Self::log_in_with(address, &json!({"cmd": "login", "token": token}))
    }

    /// Connects and logs in by this request.
    pub(crate) fn log_in_with(address: &str, login: &Value) -> io::Result<Self> {
        let writer = TcpStream::connect(address)?;
        writer.set_nodelay(true)?;
        writer.set_read_timeout(Some(PATIENCE))?;
        writer.set_write_timeout(Some(PATIENCE))?;
        let reader = BufReader::with_capacity(256 * 1024, writer.try_clone()?);
        let mut line = Self {
            reader,
            writer,
            beside: None,
        };
        let reply = line.call(login)?;
        assert!(reply["ok"].is_object(), "the login was answered {reply}");
        Ok(line)
    }

    /// The address of the server.
    pub(crate) fn peer(&self) -> String {
        self.writer.peer_addr().expect("connected").to_string()
    }

    /// Sends a control frame.
    pub(crate) fn send(&mut self, request: &Value) -> io::Result<()> {
        alive(self.writer.write_all(&control(request)))
    }

    /// Sends a data frame.
    pub(crate) fn send_data(&mut self, stream: u32, chunk: &[u8]) -> io::Result<()> {
        alive(self.writer.write_all(&data(stream, chunk)))
    }

    /// The next frame that is neither an event nor a refusal of the background put.
    pub(crate) fn receive(&mut self) -> io::Result<ReceivedFrame> {
        loop {
            match self.receive_any()? {
                ReceivedFrame::Control(json) if json.get("event").is_some() => {}
                ReceivedFrame::Control(json)
                    if self.beside.is_some()
                        && json["id"].as_u64() == self.beside
                        && json["error"]["code"] == "quota_exceeded" => {}
                frame => return Ok(frame),
            }
        }
    }

    /// The next frame.
    pub(crate) fn receive_any(&mut self) -> io::Result<ReceivedFrame> {
        let mut length = [0; 4];
        alive(self.reader.read_exact(&mut length))?;
        let mut payload = vec![0; u32::from_be_bytes(length) as usize];
        alive(self.reader.read_exact(&mut payload))?;
        if payload.first() == Some(&1) {
            return Ok(ReceivedFrame::Data(payload.split_off(5)));
        }
        Ok(ReceivedFrame::Control(
            serde_json::from_slice(&payload).expect("JSON"),
        ))
    }

    /// The next control frame.
    pub(crate) fn reply(&mut self) -> io::Result<Value> {
        match self.receive()? {
            ReceivedFrame::Control(json) => Ok(json),
            ReceivedFrame::Data(chunk) => panic!("{} bytes that nobody asked for", chunk.len()),
        }
    }

    /// The next final reply.
    pub(crate) fn final_reply(&mut self) -> io::Result<Value> {
        loop {
            let reply = self.reply()?;
            if reply.get("begin").is_none() {
                return Ok(reply);
            }
        }
    }

    /// Sends a request and returns its final reply.
    pub(crate) fn call(&mut self, request: &Value) -> io::Result<Value> {
        self.send(request)?;
        self.final_reply()
    }

    /// Sends a request that must succeed, to a server that must be running; returns `ok`.
    pub(crate) fn ok(&mut self, request: &Value) -> Value {
        let mut reply = self.call(request).expect("the server lives");
        assert!(reply["ok"].is_object(), "{request} was answered {reply}");
        reply["ok"].take()
    }

    /// Sends the `end` of an upload of `content`.
    pub(crate) fn send_end(&mut self, id: u32, content: &[u8]) -> io::Result<()> {
        let digest = format!("blake3:{}", blake3::hash(content).to_hex());
        self.send(&json!({"id": id, "cmd": "end", "digest": digest}))
    }

    /// Puts a complete file; returns the final reply.
    pub(crate) fn put(&mut self, mut request: Value, content: &[u8]) -> io::Result<Value> {
        request["id"] = json!(900);
        request["cmd"] = json!("put");
        self.send(&request)?;
        self.send_from(0, content)
    }

    /// Resumes an interrupted upload of `content`; returns the final reply.
    pub(crate) fn go_on(&mut self, mut request: Value, content: &[u8]) -> io::Result<Value> {
        request["id"] = json!(900);
        request["cmd"] = json!("put");
        request["resume"] = json!(true);
        self.send(&request)?;
        let offer = match self.offer()? {
            Ok(offer) => offer,
            Err(refused) => return Ok(refused),
        };
        if offer.offset > 0 {
            let prefix = blake3::hash(&content[..offer.offset]).to_hex();
            assert_eq!(offer.prefix, Some(format!("blake3:{prefix}")));
        }
        self.send_from(offer.offset, content)
    }

    fn send_from(&mut self, offset: usize, content: &[u8]) -> io::Result<Value> {
        for chunk in content[offset..].chunks(100_000) {
            self.send_data(900, chunk)?;
        }
        self.send_end(900, content)?;
        self.final_reply()
    }

    /// The server's state of a requested upload, or its refusal.
    pub(crate) fn offer(&mut self) -> io::Result<Result<UploadOffer, Value>> {
        let reply = self.reply()?;
        let begin = &reply["begin"];
        let Some(offset) = begin["offset"].as_u64() else {
            return Ok(Err(reply));
        };
        Ok(Ok(UploadOffer {
            upload: begin["upload"].as_str().expect("a name").to_owned(),
            offset: usize::try_from(offset).expect("small"),
            prefix: begin["prefix"].as_str().map(str::to_owned),
        }))
    }

    /// Gets a complete file; returns its bytes and the final reply.
    pub(crate) fn get(&mut self, path: &str) -> io::Result<(Vec<u8>, Value)> {
        self.send(&json!({"id": 901, "cmd": "get", "path": path}))?;
        let mut content = Vec::new();
        loop {
            match self.receive()? {
                ReceivedFrame::Data(chunk) => content.extend(chunk),
                ReceivedFrame::Control(reply) if reply.get("begin").is_some() => {}
                ReceivedFrame::Control(reply) => return Ok((content, reply)),
            }
        }
    }
}

/// A lost connection is a value; a server that hangs is a failure.
fn alive<T>(result: io::Result<T>) -> io::Result<T> {
    if let Err(error) = &result {
        let hangs = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        assert!(!hangs, "the server does not answer");
    }
    result
}
