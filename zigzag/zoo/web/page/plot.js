"use strict";

/* The plot. */

const SERIES = { delta: "δ", tau1: "‖τ₁‖", tau2: "‖τ₂‖" };

function element(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function plot(records, T) {
  const svg = part("trace", "svg");
  const points = Object.keys(SERIES).map((name) => ({
    name,
    at: records.filter((record) => record[name] > 0).map((record) => [record.knot, record[name]]),
  }));
  const values = points.flatMap(({ at }) => at.map(([, value]) => Math.log10(value)));
  svg.replaceChildren();
  part("trace", "tbody").replaceChildren(...records.map(tableRow));
  if (!values.length) {
    svg.append(element("text", { x: 200, y: 100, "text-anchor": "middle" }, "This path never moves the state at a knot."));
    svg.setAttribute("aria-label", "This path never moves the state at a knot");
    return;
  }
  const [low, high] = [Math.floor(Math.min(...values)), Math.max(Math.ceil(Math.max(...values)), Math.floor(Math.min(...values)) + 1)];
  const left = (knot) => 40 + (knot * 350) / Math.max(1, T - 1);
  const down = (power) => 12 + ((high - power) * 155) / (high - low);
  const every = Math.ceil((high - low) / 5);
  for (let power = low; power <= high; power += every) {
    svg.append(element("line", { class: "grid", x1: 40, x2: 390, y1: down(power), y2: down(power) }));
    svg.append(element("text", { x: 36, y: down(power) + 4, "text-anchor": "end" }, power >= -2 && power <= 4 ? `${Number((10 ** power).toPrecision(1))}` : `1e${power}`));
  }
  for (let knot = 0; knot < T; knot += Math.ceil(T / 10)) {
    svg.append(element("text", { x: left(knot), y: 182, "text-anchor": "middle" }, knot));
  }
  svg.append(element("text", { x: 215, y: 197, "text-anchor": "middle" }, "step, from noise to picture"));
  for (const { name, at } of points) {
    const group = element("g", { class: name });
    const places = at.map(([knot, value]) => [left(knot), down(Math.log10(value))].map((k) => k.toFixed(1)));
    group.append(element("polyline", { points: places.map((place) => place.join(",")).join(" ") }));
    for (const [cx, cy] of places) group.append(element("circle", { cx, cy, r: 2.2 }));
    svg.append(group);
  }
  const said = points.filter(({ at }) => at.length).map(({ name, at }) => {
    const sizes = at.map(([, value]) => value);
    return `${SERIES[name]} from ${Math.min(...sizes).toPrecision(2)} to ${Math.max(...sizes).toPrecision(2)}`;
  });
  svg.setAttribute("aria-label", `By step: ${said.join("; ")}. The numbers are in the table below.`);
}

function tableRow({ knot, move, rows, ...record }) {
  const row = document.createElement("tr");
  const texts = [knot, move, rows, ...Object.keys(SERIES).map((name) => record[name]?.toPrecision(3) ?? "")];
  row.append(...texts.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
  return row;
}
