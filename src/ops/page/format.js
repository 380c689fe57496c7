// Formats figures for people, and has the helpers that all scripts use.
"use strict";

const byId = (id) => document.getElementById(id);

// Creates an element. All text is set here or by `setText`, so it is never markup.
function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Sets a text only if it differs, so that a selection stays.
function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

// The index in UNITS of the unit in which a number of bytes is shown.
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

// A duration in its two largest units.
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

// The rate of a growing count over the last seconds.
class Meter {
  #counts = [];

  push(at, count) {
    const last = this.#counts.at(-1);
    if (last && (at <= last[0] || count < last[1])) this.#counts = [];
    this.#counts.push([at, count]);
    while (this.#counts.length > 2 && at - this.#counts[0][0] > 5500) this.#counts.shift();
  }

  // Null before there are two counts.
  rate() {
    if (this.#counts.length < 2) return null;
    const [[from, before], [to, now]] = [this.#counts[0], this.#counts.at(-1)];
    return ((now - before) / (to - from)) * 1000;
  }
}
