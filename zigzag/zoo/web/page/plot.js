"use strict";

/* The plot. */

const SERIES = { delta: "δ", tau1: "‖τ₁‖", tau2: "‖τ₂‖" };

function element(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Draws δ and τ of records over the steps, on a logarithmic scale, and fills in the table below. */
function plot(records, T) {
  const svg = part("trace", "svg");
  const series = Object.keys(SERIES).map((name) => ({
    name,
    at: records.filter((record) => record[name] > 0).map((record) => [record.knot, record[name]]),
  }));
  const powers = series.flatMap(({ at }) => at.map(([, value]) => Math.log10(value)));
  part("trace", "tbody").replaceChildren(...records.map(tableRow));
  svg.setAttribute("aria-label", described(series));
  if (!powers.length) {
    svg.replaceChildren(element("text", { x: 200, y: 100, "text-anchor": "middle" }, described(series)));
    return;
  }
  const low = Math.floor(Math.min(...powers));
  const high = Math.max(low + 1, Math.ceil(Math.max(...powers)));
  const left = (knot) => 40 + (knot * 320) / Math.max(1, T - 1);
  const down = (power) => 12 + ((high - power) * 155) / (high - low);
  const lines = series
    .filter(({ at }) => at.length)
    .map(({ name, at }) => ({ name, places: at.map(([knot, value]) => [left(knot), down(Math.log10(value))]) }));
  const ends = lines.map(({ places }) => places.reduce((one, other) => (other[0] >= one[0] ? other : one)));
  const heights = apart(ends.map(([, y]) => y));
  const drawn = lines.map(({ name, places }, k) => line(name, places, [ends[k][0], heights[k]]));
  svg.replaceChildren(...axes(T, low, high, left, down), ...drawn);
}

/** Where names stand that belong to these heights: in the same order, about the same middle, no two on one another. */
function apart(heights, least = 12) {
  const order = heights.map((_, k) => k).sort((one, other) => heights[one] - heights[other]);
  const placed = [...heights];
  order.slice(1).forEach((k, n) => {
    placed[k] = Math.max(placed[k], placed[order[n]] + least);
  });
  const shift = placed.reduce((sum, y, k) => sum + y - heights[k], 0) / heights.length;
  return placed.map((y) => y - shift);
}

function axes(T, low, high, left, down) {
  const made = [element("text", { x: left((T - 1) / 2), y: 197, "text-anchor": "middle" }, "step, from noise to picture")];
  for (let power = low; power <= high; power += Math.ceil((high - low) / 5)) {
    const text = Math.abs(power) <= 3 ? String(Number((10 ** power).toPrecision(1))) : `1e${power}`;
    made.push(element("line", { class: "grid", x1: 40, x2: 360, y1: down(power), y2: down(power) }));
    made.push(element("text", { x: 36, y: down(power) + 4, "text-anchor": "end" }, text));
  }
  for (let knot = 0; knot < T; knot += Math.ceil(T / 10)) {
    made.push(element("text", { x: left(knot), y: 182, "text-anchor": "middle" }, knot));
  }
  return made;
}

/** A line with a dot at each of its points, and its name behind `end`. */
function line(name, places, [x, y]) {
  const group = element("g", { class: name });
  const points = places.map((place) => place.map((k) => k.toFixed(1)).join(",")).join(" ");
  group.append(element("polyline", { points }));
  for (const [cx, cy] of places) group.append(element("circle", { cx, cy, r: 2.2 }));
  group.append(element("text", { x: x + 6, y: y + 4 }, SERIES[name]));
  return group;
}

/** The plot in a sentence. */
function described(series) {
  const known = series.filter(({ at }) => at.length);
  if (!known.length) return "This path never moves the state at a step.";
  const said = known.map(({ name, at }) => {
    const sizes = at.map(([, value]) => value);
    return `${SERIES[name]} from ${Math.min(...sizes).toPrecision(2)} to ${Math.max(...sizes).toPrecision(2)}`;
  });
  return `By step: ${said.join("; ")}. The table below has the numbers.`;
}

function tableRow({ knot, move, rows, ...record }) {
  const row = document.createElement("tr");
  const texts = [knot, move, rows, ...Object.keys(SERIES).map((name) => record[name]?.toPrecision(3) ?? "")];
  row.append(...texts.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
  return row;
}
