"use strict";

/** What stands in the data as base64 of its compressed bytes. */
async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const OTHERS = "Try a current Firefox, Chrome, Edge or Safari.";

/** Throws an Error, in a sentence, where this browser cannot run the network. */
function checkBrowser() {
  if (typeof WebAssembly !== "object") {
    throw new Error(`This browser runs no WebAssembly, or has it switched off: the network cannot run here. ${OTHERS}`);
  }
  if (typeof DecompressionStream !== "function") {
    throw new Error(`This browser is too old to unpack the network. ${OTHERS}`);
  }
}

/** Throws an Error, in a sentence, where a part of the page's data has not come with it. */
function checkParts(...types) {
  if (types.includes("undefined")) {
    throw new Error(
      "A part of this page is missing beside it (data-tables.js, data-network.js or data-runtime.js). Load it again, or make it anew: python -m zigzag.zoo.export_web",
    );
  }
}

/** The network as a function `(x, t, words)`: predictions at the state x, a row for each of the captions `words`. */
async function startedNetwork() {
  const script = URL.createObjectURL(new Blob([await unpacked(RUNTIME)], { type: "text/javascript" }));
  const ort = await import(script);
  URL.revokeObjectURL(script);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = await unpacked(WASM);
  const options = { executionProviders: ["wasm"], logSeverityLevel: 3 };
  const session = await ort.InferenceSession.create(await unpacked(NETWORK), options);
  return async (x, t, words) => {
    const rows = words.length;
    const states = new Float32Array(rows * x.length);
    words.forEach((_, k) => states.set(x, k * x.length));
    const { e } = await session.run({
      x: new ort.Tensor("float32", states, [rows, ...TABLES.shape]),
      t: new ort.Tensor("float32", new Float32Array(rows).fill(t), [rows]),
      tokens: new ort.Tensor("int64", BigInt64Array.from(words.flat(), BigInt), [rows, words[0].length]),
    });
    return words.map((_, k) => e.data.slice(k * x.length, (k + 1) * x.length));
  };
}

/** The moves of a method on the grid of so many steps. */
function pathOf(method, steps) {
  const { moves, paths } = TABLES.grids[steps];
  if (typeof paths[method] === "string") throw new Error(paths[method]);
  if (paths[method] === undefined) throw new Error(`This page has no ${method} of ${steps} steps.`);
  return paths[method].map((number) => moves[number]);
}

/** An image, 3·side·side numbers in [0, 1], of a state. */
function decoded(x) {
  const { mean, scale } = TABLES.state;
  return x.map((value) => Math.min(1, Math.max(0, value * scale + mean)));
}

/**
 * Draws from the noise x along a path: the state it ends in, the records of its moves, the rows and the milliseconds.
 * `after(state, done)` is called after each move; where it returns false, that is the end, and nothing is returned.
 */
async function drawn(network, path, caption, scales, x, noise, after = () => true) {
  const words = { cond: caption.tokens, uncond: TABLES.nothing };
  const predict = async (state, t, branches) => {
    const rows = await network(state, t, branches.map((branch) => words[branch]));
    return Object.fromEntries(branches.map((branch, k) => [branch, rows[k]]));
  };
  const [record, records, start] = [tracer(scales), [], performance.now()];
  for await (const visit of walk(path, x, scales, predict, noise)) {
    records.push(record(visit));
    x = visit.x;
    if (!(await after(x, records.length / path.length))) return null;
  }
  const rows = records.reduce((sum, one) => sum + one.rows, 0);
  return { x, records, rows, milliseconds: performance.now() - start };
}
