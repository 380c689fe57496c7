//! The steps of a script that send puts and cancel transfers.

use std::sync::Arc;

use haul::protocol::{Algorithm, ErrorCode, IfExists};
use serde_json::json;

use super::super::deltas::range_of;
use super::super::expect::{Expect, Stream, Then};
use super::super::model::Touch;
use super::super::putting::{UnfinishedPut, control, data};
use super::super::script::{CancelTarget, EndDigest, PutStep, Slot};
use super::{NOBODY, Play};

impl Play {
    pub(super) async fn put(&mut self, step: &PutStep) {
        let text = step.path.text();
        if !self.racy {
            let path = self.predict().resolve(&text).ok();
            let touches = path.as_ref().map(Touch::reads);
            self.settle_before(&Expect::new("put", Then::Anything).touching(touches))
                .await;
        }
        let before = self.slots[step.slot.index()]
            .as_ref()
            .map(|before| before.id);
        let before = before.map(|id| (id, self.waiting.get(&id)));
        match before {
            // Use an `id` whose data is still being discarded.
            Some((id, None)) if step.second => self.put_as(id, step, &text).await,
            Some((_, None)) | None => {
                let id = self.next_id();
                self.put_as(id, step, &text).await;
            }
            Some((id, Some(expect))) if step.second && expect.is_sure_to_be_open() => {
                let request = json!({"id": id, "cmd": "put", "path": text});
                self.breaks(control(&request)).await;
            }
            Some(_) => {}
        }
    }

    async fn put_as(&mut self, id: u32, step: &PutStep, text: &str) {
        let mut request = json!({"id": id, "cmd": "put", "path": text, "parents": step.parents});
        if let Some(size) = step.size {
            request["size"] = size.into();
        }
        if let Some(there) = step.if_exists {
            request["if_exists"] = json!(IfExists::from(there));
        }
        let digest = step.digest.map(Algorithm::from);
        if let Some(digest) = digest {
            request["digest"] = digest.name().into();
        }
        let path = self.predict().resolve(text).ok();
        let known = path.filter(|_| step.base && !self.racy);
        let known = known.and_then(|path| self.versions.get(&path));
        let base = known.map(|(base, version)| {
            request["base"] = version.into();
            base
        });
        let putting = UnfinishedPut {
            id,
            path: self.predict().resolve(text),
            size: step.size.map(u64::from),
            if_exists: step.if_exists.map_or(IfExists::Replace, IfExists::from),
            parents: step.parents,
            digest,
            sent: Vec::new(),
            base,
        };
        let expect = putting.expect_begin(&self.tree);
        self.slots[step.slot.index()] = Some(putting);
        self.waiting.insert(id, self.loosened(expect));
        self.note_pressure();
        self.write_frame(request.to_string().as_bytes()).await;
    }

    pub(super) async fn data(&mut self, slot: Slot, length: u16, fill: u8, over: bool) {
        let Some(putting) = &mut self.slots[slot.index()] else {
            return;
        };
        let left = putting.size.map_or(u64::MAX, |size| {
            size.saturating_sub(putting.sent.len() as u64)
        });
        let expect = self.waiting.get_mut(&putting.id);
        if over && left < u64::from(u16::MAX) {
            if expect.is_some_and(|expect| expect.is_sure_to_be_open()) {
                let length = usize::try_from(left).expect("small") + 1;
                let bad = data(putting.id, &vec![fill; length]);
                self.breaks(bad).await;
            }
            return;
        }
        let length = u64::from(length).min(left);
        if length == 0 {
            return;
        }
        let length = usize::try_from(length).expect("small");
        let bytes = (fill..=255).chain(0..fill).cycle();
        let chunk: Vec<u8> = bytes.take(length).collect();
        putting.sent.extend(&chunk);
        if let (Some(expect), None) = (expect, putting.size) {
            expect.holds.0 = putting.sent.len() as u64;
        }
        let frame = data(putting.id, &chunk);
        self.note_pressure();
        self.write(&frame).await;
    }

    /// Copies a range of the base, if the put is certainly open.
    pub(super) async fn copy(&mut self, slot: Slot, offset: u16, length: u16) {
        self.settle().await;
        let Some(putting) = &mut self.slots[slot.index()] else {
            return;
        };
        let left = putting.size.map_or(u64::MAX, |size| {
            size.saturating_sub(putting.sent.len() as u64)
        });
        let range = putting
            .base
            .as_ref()
            .and_then(|base| range_of(base, offset, length, left));
        let expect = self.waiting.get_mut(&putting.id);
        let expect = expect.filter(|expect| expect.is_sure_to_be_open());
        let (Some(base), Some((offset, length)), Some(expect)) = (&putting.base, range, expect)
        else {
            return;
        };
        putting
            .sent
            .extend_from_slice(&base[offset..offset + length]);
        if putting.size.is_none() {
            expect.holds.0 = putting.sent.len() as u64;
        }
        let copy = json!({"id": putting.id, "cmd": "copy", "offset": offset, "length": length});
        self.note_pressure();
        self.write(&control(&copy)).await;
    }

    pub(super) async fn end_put(&mut self, slot: Slot, digest: EndDigest) {
        let Some(putting) = self.slots[slot.index()].take() else {
            return;
        };
        if !self.racy && self.waiting.contains_key(&putting.id) {
            let touches = putting.landing_touch(&self.tree);
            self.settle_before(&Expect::new("put", Then::Anything).touching(touches))
                .await;
        }
        let frame = putting.end_frame(digest);
        self.contents.insert(Arc::new(putting.sent.clone()));
        if let Some(expect) = self.waiting.remove(&putting.id) {
            let expect = putting.expect_end(&self.tree, digest, expect);
            self.waiting.insert(putting.id, self.loosened(expect));
        }
        self.write(&frame).await;
    }

    pub(super) async fn cancel(&mut self, target: CancelTarget) {
        let id = match target {
            CancelTarget::Slot(slot) => self.slots[slot.index()].as_ref().map(|putting| putting.id),
            CancelTarget::LastRequest => Some(self.last_id),
            CancelTarget::Nothing => Some(NOBODY),
        };
        let Some(id) = id else {
            return;
        };
        let expect = Expect::new("cancel", Then::Is(json!({})));
        let expect = match self.waiting.get_mut(&id) {
            Some(transfer) if transfer.stream != Stream::None => {
                let open = transfer.is_sure_to_be_open();
                transfer.may.push(ErrorCode::Cancelled);
                expect.may_fail((!open).then_some(ErrorCode::NotFound))
            }
            _ => expect.fails([ErrorCode::NotFound]),
        };
        self.send_request(json!({"cmd": "cancel", "target": id}), expect)
            .await;
    }
}
