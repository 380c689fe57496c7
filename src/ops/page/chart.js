// A chart of two lines over the last hour. The legend shows the figures of the last minute, or those of the
// sample under the pointer.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const HOUR = 3600_000;
// The time spans that a chart shows: the shortest one that contains the whole uptime.
const SPANS = [5, 10, 15, 30, 60].map((minutes) => minutes * 60_000);

const RECENT = "last minute";

const hasValue = (point, key) => point?.[key] !== null && point?.[key] !== undefined;

function shape(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// From 0 to a round number of bytes a second.
function byteScale(most) {
  const unit = 1024 ** unitOf(Math.max(most, 1024));
  const rough = Math.max(most, 1024) / unit / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= rough) * unit;
  const top = Math.ceil(Math.max(most, 1024) / step) * step;
  const ticks = [];
  for (let value = 0; value <= top * 1.001; value += step) ticks.push(value);
  return {
    ticks,
    place: (value) => value / top,
    label: (value) => (value === 0 ? "0" : `${+(value / unit).toFixed(2)} ${UNITS[Math.round(Math.log2(unit) / 10)]}/s`),
  };
}

// A logarithmic scale, because replies from memory and from the disk differ by decades.
function decadeScale(most, least) {
  const from = Math.floor(Math.log10(Math.max(least, 1e-6)) + 1e-9);
  const to = Math.max(from + 2, Math.ceil(Math.log10(Math.max(most, 1e-6)) - 1e-9));
  const ticks = [];
  for (let power = from; power <= to; power += 1) ticks.push(10 ** power);
  const label = (value) => (value >= 0.999 ? `${Math.round(value)} s` : value >= 0.000999 ? `${Math.round(value * 1e3)} ms` : `${Math.round(value * 1e6)} µs`);
  return { ticks, label, place: (value) => (Math.log10(Math.max(value, 10 ** from)) - from) / (to - from) };
}

class Chart {
  #figure; #name; #lines; #format; #scale; #svg; #legend; #when;
  #points = []; #recent = null; #now = 0; #clock = 0; #width = 0; #height = 190; #pointed = null;

  // `lines`: [{key, name}, {key, name}] of the points that `draw` gets.
  constructor(figure, name, lines, format, scale) {
    [this.#figure, this.#name, this.#lines, this.#format, this.#scale] = [figure, name, lines, format, scale];
    const caption = element("figcaption", "legend");
    this.#legend = lines.map((line, number) => {
      const item = element("span", `key line-${number}`);
      const swatch = shape("svg", { width: 22, height: 10, "aria-hidden": "true" });
      swatch.append(shape("path", { d: "M1 5H21", class: `line line-${number}` }));
      const value = element("b", "", "–");
      item.append(swatch, element("span", "", ` ${line.name} `), value);
      caption.append(item);
      return value;
    });
    this.#when = element("span", "when", RECENT);
    caption.append(this.#when);
    this.#svg = shape("svg", { class: "plot", role: "img", tabindex: 0, height: this.#height });
    figure.append(caption, this.#svg);
    this.#svg.addEventListener("pointermove", (event) => this.#point(this.#timeAt(event)));
    this.#svg.addEventListener("pointerleave", () => this.#point(null));
    this.#svg.addEventListener("blur", () => this.#point(null));
    this.#svg.addEventListener("keydown", (event) => this.#step(event));
    new ResizeObserver(() => this.#paint()).observe(figure);
  }

  // `points`: [{at, …}], oldest first; `at` is in milliseconds of the server's uptime, which is `now` at the
  // time `clock`. `recent` has the figures of the last minute.
  draw(points, recent, now, clock) {
    [this.#points, this.#recent, this.#now, this.#clock] = [points, recent, now, clock];
    this.#paint();
  }

  get #span() {
    return SPANS.find((span) => span >= Math.min(this.#now, HOUR));
  }

  get #plot() {
    return { left: 70, right: this.#width - 8, top: 8, bottom: this.#height - 22 };
  }

  #x(at) {
    const { left, right } = this.#plot;
    return right - ((this.#now - at) / this.#span) * (right - left);
  }

  #shown() {
    return this.#points.filter((point) => point.at >= this.#now - this.#span);
  }

  #paint() {
    this.#width = Math.floor(this.#figure.clientWidth);
    if (this.#width < 120) return;
    const points = this.#shown();
    const values = points.flatMap((point) => this.#lines.map(({ key }) => point[key])).filter((value) => value !== null && value !== undefined);
    const scale = values.length ? this.#scale(Math.max(...values), Math.min(...values)) : this.#scale(0.1, 0.001);
    const { left, right, top, bottom } = this.#plot;
    const y = (value) => bottom - scale.place(value) * (bottom - top);
    const marks = [];
    for (const tick of scale.ticks) {
      const at = Math.round(y(tick)) + 0.5;
      marks.push(shape("path", { d: `M${left} ${at}H${right}`, class: "grid" }));
      marks.push(shape("text", { x: left - 8, y: at + 4, class: "tick-y" }, scale.label(tick)));
    }
    marks.push(...this.#times(right - left));
    const lines = this.#lines.map(({ key }, number) => shape("path", { d: this.#line(points, key, y), class: `line line-${number}` }));
    if (values.length === 0) marks.push(shape("text", { x: (left + right) / 2, y: (top + bottom) / 2, class: "nothing" }, "no data yet"));
    this.#svg.setAttribute("width", this.#width);
    this.#svg.setAttribute("viewBox", `0 0 ${this.#width} ${this.#height}`);
    const isolated = this.#lines.flatMap(({ key }, number) => this.#isolated(points, key, y, number));
    this.#svg.replaceChildren(...marks, ...lines.reverse(), ...isolated, ...this.#cursor(points, y));
    this.#describe(points, values.length > 0);
  }

  #times(width) {
    const minutes = this.#span / 60_000;
    const step = (width < 360 ? { 5: 2, 10: 5, 15: 5, 30: 10, 60: 20 } : { 5: 1, 10: 2, 15: 3, 30: 5, 60: 10 })[minutes];
    const { bottom } = this.#plot;
    const marks = [];
    for (let ago = 0; ago <= minutes; ago += step) {
      const x = Math.round(this.#x(this.#now - ago * 60_000)) + 0.5;
      const text = ago === 0 ? "now" : `−${ago} min`;
      marks.push(shape("path", { d: `M${x} ${bottom}v4`, class: "grid" }));
      marks.push(shape("text", { x, y: bottom + 17, class: ago === 0 ? "tick-x last" : "tick-x" }, text));
    }
    return marks;
  }

  // The line has a gap where there is no value.
  #line(points, key, y) {
    let path = "";
    let isDown = false;
    for (const point of points) {
      if (!hasValue(point, key)) {
        isDown = false;
        continue;
      }
      path += `${isDown ? "L" : "M"}${this.#x(point.at).toFixed(1)} ${y(point[key]).toFixed(1)}`;
      isDown = true;
    }
    return path;
  }

  // A dot for each value without neighbours, which no line connects.
  #isolated(points, key, y, number) {
    const alone = points.filter((point, index) => hasValue(point, key) && !hasValue(points[index - 1], key) && !hasValue(points[index + 1], key));
    return alone.map((point) => shape("circle", { cx: this.#x(point.at).toFixed(1), cy: y(point[key]).toFixed(1), r: 2.5, class: `point-${number}` }));
  }

  #cursor(points, y) {
    const point = this.#pointed === null ? null : this.#nearest(points, this.#pointed);
    const shown = point ?? this.#recent;
    this.#lines.forEach(({ key }, number) => {
      setText(this.#legend[number], hasValue(shown, key) ? this.#format(shown[key]) : "–");
    });
    setText(this.#when, point ? clock(this.#clock - (this.#now - point.at)) : RECENT);
    if (!point) return [];
    const { top, bottom } = this.#plot;
    const x = this.#x(point.at);
    const dots = this.#lines.flatMap(({ key }, number) =>
      hasValue(point, key) ? [shape("circle", { cx: x, cy: y(point[key]), r: 3.5, class: `dot-${number}` })] : [],
    );
    return [shape("path", { d: `M${Math.round(x) + 0.5} ${top}V${bottom}`, class: "cursor" }), ...dots];
  }

  #nearest(points, at) {
    let nearest = null;
    for (const point of points) {
      if (nearest === null || Math.abs(point.at - at) < Math.abs(nearest.at - at)) nearest = point;
    }
    return nearest;
  }

  #timeAt(event) {
    const { left, right } = this.#plot;
    const x = event.clientX - this.#svg.getBoundingClientRect().left;
    return this.#now - ((right - x) / (right - left)) * this.#span;
  }

  #point(at) {
    this.#pointed = at;
    this.#paint();
  }

  #step(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") return this.#point(null);
    const points = this.#shown();
    if (!by || points.length === 0) return;
    event.preventDefault();
    const from = points.indexOf(this.#nearest(points, this.#pointed ?? this.#now));
    const to = points[Math.min(points.length - 1, Math.max(0, from + by))];
    this.#point(to.at);
  }

  // Describes the drawing for screen readers.
  #describe(points, hasValues) {
    const minutes = this.#span / 60_000;
    const parts = this.#lines.map(({ key, name }) => {
      const values = points.map((point) => point[key]).filter((value) => value !== null && value !== undefined);
      return values.length === 0 ? `${name}: nothing` : `${name}: at most ${this.#format(Math.max(...values))}`;
    });
    const text = hasValues ? parts.join("; ") : "nothing yet";
    this.#svg.setAttribute("aria-label", `${this.#name}, the last ${minutes} minutes. ${text}. The arrow keys step through it.`);
    const span = this.#figure.parentElement.querySelector(".span");
    if (span) setText(span, minutes === 60 ? "the last hour" : `the last ${minutes} minutes`);
  }
}
