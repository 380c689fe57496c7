// The last lines of the log, as they come, and a filter over them.
"use strict";

// Lines that are kept here. The log itself keeps more.
const MOST_LINES = 500;
const LEVELS = ["trace", "debug", "info", "warn", "error"];
// What a line shows before its other fields.
const HEAD = new Set(["time", "level", "message", "event", "line"]);

const log = byId("log");
const logFilter = byId("log-filter");
const logLevel = byId("log-level");

function isWanted(item) {
  const words = logFilter.value.toLowerCase().split(/\s+/);
  return Number(item.dataset.rank) >= Number(logLevel.value) && words.every((word) => item.dataset.text.includes(word));
}

// `line` is one object of the log.
function logItem(line) {
  const level = String(line.level ?? "info").toLowerCase();
  const item = element("li", LEVELS.includes(level) ? level : "info");
  const time = element("time", "", clock(line.time));
  time.dateTime = String(line.time);
  const fields = Object.entries(line).filter(([key, value]) => !HEAD.has(key) && value !== null);
  const rest = fields.map(([key, value]) => `${key}=${typeof value === "object" ? JSON.stringify(value) : value}`).join(" ");
  const message = String(line.message ?? line.event ?? "");
  item.append(time, " ", element("b", "level", level), " ", name(message, "message"), " ", name(rest, "fields"));
  item.dataset.rank = String(Math.max(0, LEVELS.indexOf(level)));
  item.dataset.text = `${level} ${message} event=${line.event ?? ""} ${rest}`.toLowerCase();
  return item;
}

// What came in one second: `lines`, and how many before them were left out of a flood.
function addLines({ missed, lines }) {
  // Who reads further up is left there.
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 30;
  if (missed && log.childElementCount) lines.unshift({ level: "warn", message: `${plural(missed, "line", "lines")} left out here`, time: lines[0].time });
  for (const line of lines) {
    const item = logItem(line);
    item.hidden = !isWanted(item);
    log.append(item);
  }
  while (log.childElementCount > MOST_LINES) log.firstElementChild.remove();
  byId("log-panel").hidden = false;
  countLines();
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

function countLines() {
  const all = log.childElementCount;
  const shown = [...log.children].filter((item) => !item.hidden).length;
  say(byId("log-count"), shown === all ? "" : `${shown} of ${plural(all, "line", "lines")}`);
  byId("log-empty").hidden = shown !== 0;
  say(byId("log-empty"), all ? "No line is like that." : "No line yet.");
}

function filterLines() {
  for (const item of log.children) item.hidden = !isWanted(item);
  countLines();
  log.scrollTop = log.scrollHeight;
}

function clearLines() {
  log.replaceChildren();
  countLines();
}

logFilter.addEventListener("input", filterLines);
logLevel.addEventListener("change", filterLines);
