// The tables of sessions and transfers.
"use strict";

// Keeps the rows of entries that still exist, so that progress bars grow and a selection stays.
class Rows {
  #body; #make; #rows = new Map();

  // `make` returns {row, update}.
  constructor(table, make) {
    [this.#body, this.#make] = [table.tBodies[0], make];
  }

  show(items) {
    const gone = new Set(this.#rows.keys());
    let next = this.#body.firstElementChild;
    for (const item of items) {
      gone.delete(item.key);
      let known = this.#rows.get(item.key);
      if (!known) {
        known = this.#make(item);
        this.#rows.set(item.key, known);
      }
      known.update(item);
      if (known.row === next) next = next.nextElementSibling;
      else this.#body.insertBefore(known.row, next);
    }
    for (const key of gone) {
      this.#rows.get(key).row.remove();
      this.#rows.delete(key);
    }
  }
}

function cell(row, label, className) {
  const made = element("td", className);
  made.setAttribute("role", "cell");
  // Shown on a narrow screen, where the head of the table is hidden.
  made.dataset.label = label;
  row.append(made);
  return made;
}

function tableRow(className) {
  const row = element("tr", className);
  row.setAttribute("role", "row");
  return row;
}

// A name from outside. The element isolates its writing direction from the text around it.
const name = (text, className) => element("bdi", className, text);

function transferRow(transfer) {
  const row = tableRow();
  cell(row, "User").append(name(transfer.user));
  const file = cell(row, "File", "file");
  file.append(element("span", `tag ${transfer.cmd}`, transfer.cmd), " ", name(transfer.path, "path"));
  const progress = cell(row, "Progress", "progress");
  const bar = element("progress", transfer.cmd);
  bar.setAttribute("aria-label", `${transfer.cmd} ${transfer.path}`);
  const text = element("span", "amount");
  progress.append(bar, text);
  const speed = cell(row, "Rate", "number");
  const left = cell(row, "Time left", "number");
  const meter = new Meter();
  const update = ({ size, offset, moved, at }) => {
    meter.push(at, moved);
    const perSecond = meter.rate();
    if (size === undefined) {
      bar.removeAttribute("value");
      setText(text, `${bytes(offset)} so far`);
    } else {
      const part = size === 0 ? 1 : Math.min(1, offset / size);
      bar.value = part;
      setText(text, `${Math.floor(part * 100)} % of ${bytes(size)}`);
    }
    setText(speed, perSecond === null ? "–" : rate(perSecond));
    setText(left, size === undefined || !perSecond ? "–" : duration(((size - offset) / perSecond) * 1000));
  };
  return { row, update };
}

function sessionRow(session) {
  const row = tableRow();
  cell(row, "User").append(name(session.user));
  cell(row, "From").append(name(session.peer, "mono"));
  const connection = cell(row, "Connection");
  connection.append(element("span", session.secure ? "tag tls" : "tag plain", session.secure ? "TLS" : "plain"));
  if (session.dialect === "classic") connection.append(" ", element("span", "tag", "classic"));
  const since = cell(row, "Since");
  since.title = session.since;
  cell(row, "Session").append(element("span", "mono faint", session.session));
  const transfers = cell(row, "Transfers", "number");
  const update = ({ running, transfers: shown, now }) => {
    setText(since, `${clock(session.since)}, ${duration(now - Date.parse(session.since))}`);
    setText(transfers, String(running - shown.filter((one) => !isTransfer(one)).length));
  };
  return { row, update };
}

// Other running requests, such as following the log, have no progress.
const isTransfer = ({ cmd }) => cmd === "get" || cmd === "put";

const transferRows = new Rows(byId("transfers"), transferRow);
const sessionRows = new Rows(byId("sessions"), sessionRow);

// Updates both tables from a snapshot.
function showTables(snapshot) {
  const now = Date.parse(snapshot.time);
  const transfers = snapshot.list.flatMap((session) =>
    session.transfers.filter(isTransfer).map((transfer) => ({
      ...transfer,
      key: `${session.session} ${transfer.id} ${transfer.since}`,
      user: session.user,
      at: snapshot.at,
    })),
  );
  transferRows.show(transfers);
  sessionRows.show(snapshot.list.map((session) => ({ ...session, key: session.session, now })));
  showCount("transfers", transfers.length, snapshot.transfers);
  showCount("sessions", snapshot.list.length, snapshot.sessions);
}

function showCount(what, shown, all) {
  // The two counts are not taken at the same moment, so `all` may be the smaller one.
  const more = shown === 0 ? 0 : Math.max(0, all - shown);
  setText(byId(`${what}-count`), all ? all.toLocaleString("en") : "");
  byId(what).hidden = shown === 0;
  byId(`${what}-empty`).hidden = shown !== 0;
  byId(`${what}-more`).hidden = more === 0;
  setText(byId(`${what}-more`), more ? `and ${more.toLocaleString("en")} more` : "");
}
