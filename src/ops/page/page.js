// Listens to the server, and shows what it says.
"use strict";

const STATES = {
  starting: "starting",
  ready: "ready",
  draining: "draining: no new work is taken",
  degraded: "degraded: the disk has failed to keep something",
};
const KEPT_SAMPLES = 360;
// A server that lives says something every second.
const SILENCE = 6000;
const AGAIN = 2000;

let source = null;
let samples = [];
let heard = Date.now();
let tried = 0;
let lostAt = null;
let received = new Meter();
let sent = new Meter();

const throughput = new Chart(
  byId("throughput"),
  "Throughput",
  [{ key: "received", name: "received" }, { key: "sent", name: "sent" }],
  rate,
  byteScale,
);
const latency = new Chart(
  byId("latency"),
  "Latency",
  [{ key: "p50", name: "p50" }, { key: "p99", name: "p99" }],
  seconds,
  decadeScale,
);

function connect() {
  source?.close();
  tried = Date.now();
  source = new EventSource("live");
  source.addEventListener("history", (event) => begin(JSON.parse(event.data)));
  source.addEventListener("now", (event) => show(JSON.parse(event.data)));
  source.addEventListener("log", (event) => addLines(JSON.parse(event.data)));
  source.addEventListener("error", lose);
}

// What has been; also after a connection was lost, perhaps to a server that has been restarted.
function begin(history) {
  heard = Date.now();
  samples = history.samples;
  [received, sent] = [new Meter(), new Meter()];
  clearLines();
}

function show(snapshot) {
  heard = Date.now();
  find();
  const { sample } = snapshot;
  if (sample && sample.at > (samples.at(-1)?.at ?? 0)) samples = [...samples, sample].slice(-KEPT_SAMPLES);
  received.push(snapshot.at, snapshot.received);
  sent.push(snapshot.at, snapshot.sent);
  showState(snapshot.state, STATES[snapshot.state] ?? snapshot.state);
  say(byId("about"), `version ${snapshot.version}, up ${duration(snapshot.at)}`);
  showFigures(snapshot);
  showTables(snapshot);
  showCharts(snapshot);
}

function showFigures(snapshot) {
  const perSecond = (meter) => (meter.rate() === null ? "–" : rate(meter.rate()));
  say(byId("figure-sessions"), snapshot.sessions.toLocaleString("en"));
  say(byId("figure-transfers"), snapshot.transfers.toLocaleString("en"));
  say(byId("figure-received"), perSecond(received));
  say(byId("figure-sent"), perSecond(sent));
  const { disk, latency: measured } = snapshot;
  say(byId("figure-disk"), disk ? bytes(disk.free) : "–");
  byId("figure-disk").title = disk ? `of ${bytes(disk.total)}` : "";
  say(byId("figure-p50"), measured ? seconds(measured.p50) : "–");
  say(byId("figure-p99"), measured ? seconds(measured.p99) : "–");
}

// The line goes up to this moment, which has no sample of its own yet.
function showCharts(snapshot) {
  const time = Date.parse(snapshot.time);
  const rates = { at: snapshot.at, received: received.rate(), sent: sent.rate() };
  throughput.draw([...samples, rates], snapshot.at, time);
  latency.draw(samples, snapshot.at, time);
}

function showState(state, text) {
  byId("state").dataset.state = state;
  say(byId("state-text"), text);
}

function lose() {
  if (lostAt === null) {
    lostAt = Date.now();
    showState("lost", "connection lost, trying again");
    byId("lost").hidden = false;
    say(byId("lost"), `The server has not answered since ${clock(heard)}. What is below is what it said last. Trying again …`);
    document.body.classList.add("stale");
  }
}

function find() {
  if (lostAt === null) return;
  lostAt = null;
  byId("lost").hidden = true;
  document.body.classList.remove("stale");
}

// The browser tries again by itself only after some failures, and not at all where nothing comes.
function watch() {
  if (Date.now() - heard > SILENCE) lose();
  const isTrying = source.readyState !== EventSource.CLOSED && Date.now() - tried < SILENCE;
  if (lostAt !== null && !isTrying) connect();
}

say(byId("host"), location.host);
document.title = `haul ${location.host}`;
connect();
setInterval(watch, AGAIN);
