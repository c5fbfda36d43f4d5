"use strict";

const part = (id, selector) => document.querySelector(`#${id} ${selector}`);

function say(text, problem = false) {
  const status = document.getElementById("status");
  status.textContent = text;
  status.classList.toggle("problem", problem);
}

/* The pictures. */

function paint(id, x) {
  const canvas = part(id, "canvas");
  const [image, pixels] = [decoded(x), x.length / 3];
  const data = new ImageData(canvas.width, canvas.height);
  for (let p = 0; p < pixels; p++) {
    data.data.set([0, 1, 2].map((k) => Math.round(255 * image[p + k * pixels])), 4 * p);
    data.data[4 * p + 3] = 255;
  }
  canvas.getContext("2d").putImageData(data, 0, 0);
}

function judge(id, caption, { x, rows, milliseconds }) {
  const things = detect(decoded(x), TABLES.world);
  const right = holds(caption, things, TABLES.world.margin);
  const sees = things.map(({ colour, shape }) => `${colour} ${shape === "other" ? "something" : shape}`).join(", ");
  const verdict = part(id, ".verdict");
  verdict.textContent = right ? "✓ as the prompt says" : "✗ not what the prompt says";
  verdict.className = `verdict ${right ? "right" : "wrong"}`;
  part(id, ".sees").textContent = `Sees: ${sees || "nothing"}`;
  part(id, ".cost").textContent = `${rows} rows, ${(milliseconds / 1000).toFixed(1)} s`;
  part(id, "canvas").setAttribute("aria-label", `Drawn for “${caption.text}”; the checker sees ${sees || "nothing"}`);
  return right;
}

function blank(id, name) {
  part(id, ".name").textContent = name;
  for (const text of [".verdict", ".sees", ".cost"]) part(id, text).textContent = "";
  part(id, "canvas").setAttribute("aria-label", "Being drawn");
}

/* Drawing: one at a time; a new one stops the one before. */

let wanted = 0;
let underWay = Promise.resolve();

function draw(network) {
  const turn = ++wanted;
  underWay = underWay.then(() => drawBoth(network, turn)).catch((error) => say(error.message, true));
  return underWay;
}

async function drawBoth(network, turn) {
  if (turn !== wanted) return;
  const chosen = settings();
  const { prompt, method, steps, strong, weak, seed } = chosen;
  const caption = chosenCaption();
  const paths = { standard: pathOf("standard", steps), other: pathOf(method, steps) };
  history.replaceState(null, "", `#${new URLSearchParams(chosen)}`);
  const shown = field("method").selectedOptions[0].text;
  const alone = method === "standard";
  document.getElementById("other").hidden = alone;
  blank("standard", "Standard");
  blank("other", shown);
  document.getElementById("command").textContent = commandLine(chosen);
  document.getElementById("stop").disabled = false;
  say(`Drawing “${prompt}”…`);
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const verdicts = [];
  for (const id of alone ? ["standard"] : ["standard", "other"]) {
    const generator = new Generator(seed);
    const noise = () => generator.normal(TABLES.shape.reduce((one, other) => one * other));
    const after = async (x, done) => {
      if (!calm) paint(id, x);
      document.getElementById("progress").value = alone ? done : (done + (id === "other")) / 2;
      await new Promise((next) => setTimeout(next)); // for the page to be painted, and Stop to be heard
      return turn === wanted;
    };
    const result = await drawn(network, paths[id], caption, { strong, weak }, noise(), noise, after);
    if (result === null) return;
    paint(id, result.x);
    verdicts.push(`${id === "standard" ? "Standard" : shown} is ${judge(id, caption, result) ? "right" : "wrong"}`);
    plot(result.records, steps);
    document.getElementById("after").hidden = false;
  }
  document.getElementById("stop").disabled = true;
  say(`Drawn: ${verdicts.join(", ")}.`);
}

function stop() {
  wanted++;
  document.getElementById("stop").disabled = true;
  document.getElementById("draw").focus();
  say("Stopped.");
}

async function start() {
  checkBrowser();
  checkParts(typeof TABLES);
  for (const steps of Object.keys(TABLES.grids)) field("steps").append(new Option(steps, steps));
  fillPrompts();
  field("steps").value = 10;
  field("strong").value = TABLES.scale;
  choosePrompt("a red circle and a blue square");
  showOptions("steps");
  form.addEventListener("change", ({ target }) => {
    showPrompt();
    showOptions(target.name);
  });
  let problem = null;
  try {
    takeAddress();
  } catch (error) {
    problem = error;
  }
  say("Loading the network…");
  document.querySelector("main").classList.remove("waiting");
  await loaded;
  checkParts(typeof NETWORK, typeof RUNTIME, typeof WASM);
  await new Promise((next) => setTimeout(next)); // for what is loaded to be shown
  const network = await startedNetwork().catch((error) => {
    throw new Error(`The network could not be started here: ${error.message}. ${OTHERS}`);
  });
  const show = () => {
    const results = document.getElementById("results");
    if (results.getBoundingClientRect().top > innerHeight / 2) results.scrollIntoView();
    return draw(network);
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    show();
  });
  document.getElementById("next").addEventListener("click", () => {
    field("seed").value = Number(field("seed").value) + 1;
    show();
  });
  document.getElementById("stop").addEventListener("click", stop);
  document.getElementById("copy").addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById("command").textContent).then(
      () => say("Copied."),
      () => say("This browser does not let the page copy: mark the line and copy it by hand.", true),
    );
  });
  addEventListener("hashchange", () => {
    try {
      takeAddress();
      show();
    } catch (error) {
      say(error.message, true);
    }
  });
  if (problem) say(problem.message, true);
  else await draw(network);
  return network;
}

const loaded = new Promise((then) => addEventListener("DOMContentLoaded", then));
const started = start().catch((error) => say(error.message, true));
