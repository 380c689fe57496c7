// Receives the events of the server and shows them.
"use strict";

const STATES = {
  starting: "starting",
  ready: "ready",
  draining: "draining: accepts no new work",
  degraded: "degraded: the disk has failed to store something",
};
const MAX_SAMPLES = 360;
// The server sends an event every second.
const EVENT_TIMEOUT_MS = 6000;
const RETRY_INTERVAL_MS = 2000;

let source = null;
let samples = [];
let lastEvent = Date.now();
let lastAttempt = 0;
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
  lastAttempt = Date.now();
  source = new EventSource("live");
  source.addEventListener("history", (event) => showHistory(JSON.parse(event.data)));
  source.addEventListener("now", (event) => showSnapshot(JSON.parse(event.data)));
  source.addEventListener("log", (event) => addLines(JSON.parse(event.data)));
  source.addEventListener("error", markLost);
}

// The first event of a connection. After a lost connection, the server may be another process.
function showHistory(history) {
  lastEvent = Date.now();
  samples = history.samples;
  [received, sent] = [new Meter(), new Meter()];
  clearLines();
}

function showSnapshot(snapshot) {
  lastEvent = Date.now();
  markConnected();
  const { sample } = snapshot;
  if (sample && sample.at > (samples.at(-1)?.at ?? 0)) samples = [...samples, sample].slice(-MAX_SAMPLES);
  received.push(snapshot.at, snapshot.received);
  sent.push(snapshot.at, snapshot.sent);
  showState(snapshot.state, STATES[snapshot.state] ?? snapshot.state);
  const machine = `${snapshot.machine}:${snapshot.port}`;
  setText(byId("machine"), machine);
  document.title = `haul ${machine}`;
  setText(byId("about"), `version ${snapshot.version}, up ${duration(snapshot.at)}`);
  showFigures(snapshot);
  showTables(snapshot);
  showCharts(snapshot);
}

function showFigures({ sessions, transfers, disk, recent, internal_errors: internalErrors }) {
  const show = (id, text) => setText(byId(`figure-${id}`), text);
  const recently = (key, format) => (hasValue(recent, key) ? format(recent[key]) : "–");
  const count = (number) => number.toLocaleString("en");
  show("sessions", count(sessions));
  show("transfers", count(transfers));
  show("received", recently("received", rate));
  show("sent", recently("sent", rate));
  show("p50", recently("p50", seconds));
  show("p99", recently("p99", seconds));
  show("failed-logins", recently("failed_logins", count));
  show("errors", recently("failed_commands", count));
  byId("internal-errors").hidden = internalErrors === 0;
  setText(byId("internal-errors"), `${count(internalErrors)} internal since the start`);
  showDisk(disk);
}

function showDisk(disk) {
  const used = disk?.total ? 1 - disk.free / disk.total : null;
  setText(byId("figure-disk"), used === null ? "–" : `${Math.floor(used * 100)} %`);
  byId("disk-meter").value = used ?? 0;
  setText(byId("disk-free"), used === null ? "unknown" : `${bytes(disk.free)} of ${bytes(disk.total)} free`);
}

// The line of the throughput reaches to this moment, for which there is no sample yet.
function showCharts(snapshot) {
  const time = Date.parse(snapshot.time);
  const rates = { at: snapshot.at, received: received.rate(), sent: sent.rate() };
  throughput.draw([...samples, rates], snapshot.recent, snapshot.at, time);
  latency.draw(samples, snapshot.recent, snapshot.at, time);
}

function showState(state, text) {
  byId("state").dataset.state = state;
  setText(byId("state-text"), text);
}

function markLost() {
  if (lostAt === null) {
    lostAt = Date.now();
    showState("lost", "connection lost, trying again");
    byId("lost").hidden = false;
    setText(byId("lost"), `The server has sent nothing since ${clock(lastEvent)}. The page shows its last state. Trying again …`);
    document.body.classList.add("stale");
  }
}

function markConnected() {
  if (lostAt === null) return;
  lostAt = null;
  byId("lost").hidden = true;
  document.body.classList.remove("stale");
}

// The browser reconnects only after some kinds of failures, and not if the server is silent.
function watch() {
  if (Date.now() - lastEvent > EVENT_TIMEOUT_MS) markLost();
  const isTrying = source.readyState !== EventSource.CLOSED && Date.now() - lastAttempt < EVENT_TIMEOUT_MS;
  if (lostAt !== null && !isTrying) connect();
}

connect();
setInterval(watch, RETRY_INTERVAL_MS);
