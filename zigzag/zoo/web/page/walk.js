"use strict";

const BRANCHES = ["uncond", "cond"];

/** `p·x + q·y`. */
function combine(p, x, q, y) {
  return x.map((value, k) => p * value + q * y[k]);
}

function norm(x) {
  return Math.hypot(...x);
}

/** Whether the scale w needs a branch: 1 is conditional alone, 0 unconditional alone. */
function needs(w, branch) {
  return w !== (branch === "cond" ? 0 : 1);
}

/** `e_u + w·(e_c − e_u)`, from one branch alone where w is 0 or 1; null where one that it needs is not there. */
function guided(e, w) {
  if (BRANCHES.some((branch) => needs(w, branch) && !e[branch])) return null;
  return w === 1 ? e.cond : w === 0 ? e.uncond : combine(1 - w, e.uncond, w, e.cond);
}

/**
 * Walks moves of the library's table from the state x, and yields each with what it did. `scales` has w by role;
 * `predict(x, t, branches)` gives the predictions of branches by name, and `noise()` standard normal noise.
 */
async function* walk(moves, x, scales, predict, noise) {
  let gap = null;
  for (const move of moves) {
    const { asks, a, b, c, d } = move;
    const before = x;
    const branches = BRANCHES.filter((branch) => asks.some((role) => needs(scales[role], branch)));
    const found = branches.length ? await predict(x, move.t, branches) : {};
    const [e, weak] = asks.map((role) => guided(found, scales[role]));
    if (weak) gap = combine(1, e, -1, weak);
    if (move.move === "Denoise") x = combine(a, x, b, e);
    if (move.move === "Invert") x = combine(c, x, d, e);
    if (move.move === "Shift") x = combine(1, x, -d, gap);
    if (move.move === "Renoise") x = combine(a, x, b, noise());
    yield { ...move, before, x, e, found, rows: branches.length };
  }
}

/** A function that makes a record of each visit of a walk, in turn: δ and the norms of τ₁ and τ₂, as `zigzag.Trace`. */
function tracer(scales) {
  const left = new Map(); // by knot, the Denoise that left it last
  let last = null;
  let zigzag = null; // the visits down and up, and the record that their Denoise fills in
  return (visit) => {
    const record = { move: visit.move, knot: visit.to, rows: visit.rows, delta: null, tau1: null, tau2: null };
    const origin = left.get(visit.to);
    const pending = zigzag;
    zigzag = null;
    if (visit.move === "Denoise") {
      const weak = pending && guided(visit.found, scales.weak);
      if (weak) {
        pending.record.tau1 = norm(combine(1, pending.down.e, -1, weak));
        pending.record.tau2 = norm(combine(1, weak, -1, pending.up.e));
      }
      left.set(visit.from, visit);
    } else if (visit.move === "Shift") {
      record.delta = norm(combine(1, visit.x, -1, visit.before)) ** 2;
    } else {
      record.delta = norm(combine(1, visit.x, -1, origin.before)) ** 2;
      if (visit.move === "Invert" && last === origin) zigzag = { down: origin, up: visit, record };
    }
    last = visit;
    return record;
  };
}
