//! RELIABILITY, Transfers: a stored file is complete, and an incomplete upload changes nothing.

pub(crate) mod bit_rot;
mod concurrency;
mod downloads;
mod frames;
mod quotas;
mod uploads;

use haul::protocol::{Algorithm, Digest};
use serde_json::{Value, json};

use crate::harness::RawClient;

fn digest(algorithm: Algorithm, bytes: &[u8]) -> Value {
    json!(Digest::compute(algorithm, bytes))
}

async fn begin_put(client: &mut RawClient, id: u32, request: Value) {
    client.send(request).await;
    let reply = client.reply().await;
    assert!(
        reply["id"] == id && reply["begin"]["upload"].is_string(),
        "{reply}"
    );
}
