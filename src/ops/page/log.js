// The last lines of the log, with a filter. Consecutive transfers of small files are one foldable item.
"use strict";

// The most items and lines of the list. The server keeps more.
const MAX_ITEMS = 500;
const MAX_LINES = 5000;
// The most lines of one folded item.
const MAX_FOLDED = 200;
const SMALL_FILE_BYTES = 128 * 1024;
// Transfers of several sessions alternate, so a line may belong to an item before the last one.
const FOLD_DISTANCE = 8;
const LEVELS = ["trace", "debug", "info", "warn", "error"];
// The fields that are not in the list of a line's other fields.
const HEAD = new Set(["time", "level", "message", "event", "line"]);

const log = byId("log");
const logFilter = byId("log-filter");
const logLevel = byId("log-level");
// The items of the list, the oldest first: {element, rank, lines, texts, key, update}.
let items = [];

function isWanted({ rank, texts }) {
  const words = logFilter.value.toLowerCase().split(/\s+/);
  return rank >= Number(logLevel.value) && texts.some((text) => words.every((word) => text.includes(word)));
}

const levelOf = (line) => String(line.level ?? "info").toLowerCase();

// The key of lines that are folded together; null for a line that is shown alone.
function foldKey(line) {
  const isSmallFile = line.event === "command" && ["get", "put"].includes(line.cmd) && line.outcome === "ok" && line.bytes <= SMALL_FILE_BYTES;
  return isSmallFile ? `${line.session} ${line.cmd} ${levelOf(line)}` : null;
}

function fieldsOf(line) {
  const fields = Object.entries(line).filter(([key, value]) => !HEAD.has(key) && value !== null);
  return fields.map(([key, value]) => `${key}=${typeof value === "object" ? JSON.stringify(value) : value}`).join(" ");
}

const messageOf = (line) => String(line.message ?? line.event ?? "");

// The text that the filter searches.
const searchText = (line) => `${levelOf(line)} ${messageOf(line)} event=${line.event ?? ""} ${fieldsOf(line)}`.toLowerCase();

function timeOf(line) {
  const time = element("time", "", clock(line.time));
  time.dateTime = String(line.time);
  return time;
}

// The parts of a line: time, level, message and other fields.
function parts(line, message, fields) {
  return [timeOf(line), " ", element("b", "level", levelOf(line)), " ", name(message, "message"), " ", name(fields, "fields")];
}

function newItem(line) {
  const level = levelOf(line);
  const item = {
    element: element("li", LEVELS.includes(level) ? level : "info"),
    rank: Math.max(0, LEVELS.indexOf(level)),
    lines: [line],
    texts: [searchText(line)],
    key: foldKey(line),
  };
  item.element.append(...parts(line, messageOf(line), fieldsOf(line)));
  return item;
}

// Adds a line to an item of small files, which becomes foldable with its second line.
function fold(item, line) {
  item.lines.push(line);
  item.texts.push(searchText(line));
  if (item.lines.length === 2) makeFoldable(item);
  const total = item.lines.reduce((sum, one) => sum + one.bytes, 0);
  const text = `${line.cmd} of ${plural(item.lines.length, "small file", "small files")}, ${bytes(total)}`;
  item.summary.replaceChildren(...parts(line, text, `user=${line.user} session=${line.session}`));
  if (item.details.open) item.list.append(foldedLine(line));
}

function makeFoldable(item) {
  [item.details, item.summary, item.list] = [element("details"), element("summary"), element("ol")];
  item.details.append(item.summary, item.list);
  item.element.replaceChildren(item.details);
  item.details.addEventListener("toggle", () => {
    item.list.replaceChildren(...(item.details.open ? item.lines.map(foldedLine) : []));
  });
}

function foldedLine(line) {
  const folded = element("li");
  folded.append(timeOf(line), " ", name(fieldsOf(line), "fields"));
  return folded;
}

function addLine(line) {
  const key = foldKey(line);
  const last = key && items.slice(-FOLD_DISTANCE).findLast((item) => item.key === key);
  if (last && last.lines.length < MAX_FOLDED) {
    fold(last, line);
    last.element.hidden = !isWanted(last);
    return;
  }
  const item = newItem(line);
  item.element.hidden = !isWanted(item);
  items.push(item);
  log.append(item.element);
}

const lineCount = () => items.reduce((sum, item) => sum + item.lines.length, 0);

function removeOldest() {
  let lines = lineCount();
  while (items.length > MAX_ITEMS || lines > MAX_LINES) {
    const oldest = items.shift();
    lines -= oldest.lines.length;
    oldest.element.remove();
  }
}

// The lines of one second, and the number of lines before them that the server left out.
function addLines({ missed, lines }) {
  // The list follows new lines only if it is scrolled to its end.
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 30;
  if (missed && items.length) lines.unshift({ level: "warn", message: `${plural(missed, "line", "lines")} left out here`, time: lines[0].time });
  for (const line of lines) addLine(line);
  removeOldest();
  byId("log-panel").hidden = false;
  countLines();
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

function countLines() {
  const all = items.length;
  const shown = items.filter((item) => !item.element.hidden).length;
  setText(byId("log-count"), shown === all ? "" : `${shown} of ${plural(all, "entry", "entries")}`);
  byId("log-empty").hidden = shown !== 0;
  setText(byId("log-empty"), all ? "No line matches the filter." : "There are no lines yet.");
}

function filterLines() {
  for (const item of items) item.element.hidden = !isWanted(item);
  countLines();
  log.scrollTop = log.scrollHeight;
}

function clearLines() {
  items = [];
  log.replaceChildren();
  countLines();
}

logFilter.addEventListener("input", filterLines);
logLevel.addEventListener("change", filterLines);
