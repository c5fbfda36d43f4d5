"use strict";

/** The things in an image, 3·side·side numbers in [0, 1], from top to bottom: `zigzag.zoo.shapes.detect`. */
function detect(image, world) {
  const { side, ground, peak } = world;
  const pixels = side * side;
  const lit = Float64Array.from(image, (value) => (value - ground) / (peak - ground));
  const at = (p) => [lit[p], lit[p + pixels], lit[p + 2 * pixels]];
  const rise = Float64Array.from({ length: pixels }, (_, p) => Math.min(1, Math.max(0, ...at(p))));
  const colours = Object.entries(world.colours);
  const nearest = Array.from(rise, (height, p) => (height < 0.5 ? null : nearestColour(at(p), colours)));
  return components(nearest, side)
    .filter((inside) => inside.size >= world.leastArea)
    .map((inside) => {
      const soft = new Float64Array(pixels);
      for (const p of inside) {
        soft[p] = rise[p];
        // The border holds the edge's faint half, but never the bright pixels of a neighbour.
        for (const q of around(p, side)) if (nearest[q] === null) soft[q] = rise[q];
      }
      const [p] = inside;
      return { colour: nearest[p], ...measured(soft, world) };
    })
    .sort((one, other) => one.y - other.y || one.x - other.x);
}

/** The colour that a pixel is nearest to in direction from the ground. */
function nearestColour(lit, colours) {
  const along = colours.map(([, colour]) => {
    const length = Math.hypot(...colour);
    return colour.reduce((sum, value, k) => sum + (value / length) * lit[k], 0);
  });
  return colours[along.indexOf(Math.max(...along))][0];
}

/** Sets of pixels of one colour that touch, at a corner too. */
function components(nearest, side) {
  const seen = new Set();
  const found = [];
  nearest.forEach((colour, start) => {
    if (colour === null || seen.has(start)) return;
    const inside = new Set([start]);
    for (const p of inside) {
      for (const q of around(p, side)) if (nearest[q] === colour) inside.add(q);
    }
    for (const p of inside) seen.add(p);
    found.push(inside);
  });
  return found;
}

/** The up to eight neighbours of a pixel. */
function around(p, side) {
  const [row, column] = [Math.floor(p / side), p % side];
  const near = (k) => [k - 1, k, k + 1].filter((value) => value >= 0 && value < side);
  return near(row).flatMap((r) => near(column).map((c) => r * side + c)).filter((q) => q !== p);
}

/** Shape, centre and size of a thing from its anti-aliased pixels. */
function measured(soft, world) {
  const { side } = world;
  let [area, x, y] = [0, 0, 0];
  soft.forEach((value, p) => {
    area += value;
    x += value * ((p % side) + 0.5);
    y += value * (Math.floor(p / side) + 0.5);
  });
  const thing = { x: x / area, y: y / area, size: Math.sqrt(area / Math.PI) };
  const fits = world.shapes.map((shape) => {
    let [both, either] = [0, 0];
    soft.forEach((value, p) => {
      const ideal = coverage(shape, (p % side) + 0.5 - thing.x, Math.floor(p / side) + 0.5 - thing.y, thing.size, world);
      both += Math.min(ideal, value);
      either += Math.max(ideal, value);
    });
    return both / either;
  });
  const best = Math.max(...fits);
  return { ...thing, shape: best >= world.leastFit ? world.shapes[fits.indexOf(best)] : "other" };
}

/** How much of a pixel a shape covers, whose centre is (dx, dy) before it: `zigzag.zoo.shapes.scenes.coverage`. */
function coverage(shape, dx, dy, size, { square, triangle }) {
  const inside = (distance) => Math.min(1, Math.max(0, 0.5 - distance));
  if (shape === "circle") return inside(Math.hypot(dx, dy) - size);
  if (shape === "square") return inside(Math.abs(dx) - square * size) * inside(Math.abs(dy) - square * size);
  const inradius = (triangle * size) / Math.sqrt(3);
  const slanted = Math.abs(dx) * (Math.sqrt(3) / 2) - dy / 2;
  return inside(dy - inradius) * inside(slanted - inradius);
}

/** Whether the things are exactly those that a caption names, at the place it says: `zigzag.zoo.shapes.holds`. */
function holds(caption, things, margin) {
  const is = (thing, [shape, colour]) => thing.shape === shape && (colour === null || thing.colour === colour);
  if (caption.count > 1) {
    return things.length === caption.count && things.every((thing) => is(thing, caption.nouns[0]));
  }
  if (things.length !== caption.nouns.length) return false;
  const orders = things.length === 2 ? [things, [...things].reverse()] : [things];
  return orders.some(
    (order) =>
      order.every((thing, k) => is(thing, caption.nouns[k])) &&
      (caption.relation === null || related(caption.relation, order, margin)),
  );
}

function related(relation, [one, other], margin) {
  const [dx, dy] = [one.x - other.x, one.y - other.y];
  const [along, across] = { "left of": [-dx, dy], "right of": [dx, dy], above: [-dy, dx], below: [dy, dx] }[relation];
  return along > Math.abs(across) + margin;
}
