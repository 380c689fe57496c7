// Figures as people read them, and the few things that all scripts need of the document.
"use strict";

const byId = (id) => document.getElementById(id);

// An element with this text. All text goes through here or `say`: it is never markup.
function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Changes a text only where it differs, so that what is selected stays so.
function say(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

// The unit in which so many bytes are best told: its number in UNITS.
function unitOf(bytes) {
  let unit = 0;
  while (bytes >= 1024 && unit < UNITS.length - 1) {
    bytes /= 1024;
    unit += 1;
  }
  return unit;
}

function bytes(count, unit = unitOf(count)) {
  const value = count / 1024 ** unit;
  const digits = unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

const rate = (perSecond) => `${bytes(perSecond)}/s`;

function seconds(value) {
  if (value >= 1) return `${value >= 10 ? value.toFixed(0) : value.toFixed(1)} s`;
  const ms = value * 1000;
  if (ms >= 1) return `${ms >= 10 ? ms.toFixed(0) : ms.toFixed(1)} ms`;
  return `${Math.max(1, Math.round(ms * 1000))} µs`;
}

// A length of time in its two largest units.
function duration(ms) {
  const all = Math.max(0, Math.round(ms / 1000));
  const [days, hours, minutes] = [Math.floor(all / 86400), Math.floor(all / 3600) % 24, Math.floor(all / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  if (minutes) return minutes < 10 ? `${minutes} min ${all % 60} s` : `${minutes} min`;
  return `${all} s`;
}

const clock = (time) => new Date(time).toLocaleTimeString([], { hour12: false });

const plural = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

// The rate of a count that grows, over the last seconds.
class Meter {
  #seen = [];

  push(at, count) {
    const last = this.#seen.at(-1);
    if (last && (at <= last[0] || count < last[1])) this.#seen = [];
    this.#seen.push([at, count]);
    while (this.#seen.length > 2 && at - this.#seen[0][0] > 5500) this.#seen.shift();
  }

  // Nothing before there are two counts.
  rate() {
    if (this.#seen.length < 2) return null;
    const [[from, before], [to, now]] = [this.#seen[0], this.#seen.at(-1)];
    return ((now - before) / (to - from)) * 1000;
  }
}
