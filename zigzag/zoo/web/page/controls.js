"use strict";

const form = document.getElementById("controls");
const field = (name) => form.elements[name];
const FIELDS = ["count", "colour", "shape", "relation", "colour2", "shape2"];

/* The prompt: only what completes a caption of the grammar can be chosen. */

/** What the selects show for a caption. */
function fieldsOf({ nouns: [first, second = [null, null]], count, relation }) {
  const between = relation ?? (second[0] ? "and" : null);
  return { count, colour: first[1], shape: first[0], relation: between, colour2: second[1], shape2: second[0] };
}

function fillPrompts() {
  const words = Object.fromEntries(Object.entries(TABLES.numbers).map(([word, number]) => [number, word]));
  const none = { colour: "any", relation: "alone", colour2: "any", shape2: "none" };
  for (const name of FIELDS) {
    const values = new Set(TABLES.captions.map((caption) => fieldsOf(caption)[name]));
    for (const value of [...values].sort((one, other) => (one !== null) - (other !== null))) {
      const text = value === null ? none[name] : name === "count" ? words[value] ?? "a" : value;
      field(name).append(new Option(text, value ?? ""));
    }
  }
}

/** The caption that is chosen; what earlier selects rule out in later ones cannot be chosen, and is replaced. */
function chosenCaption() {
  let left = TABLES.captions.map((caption) => ({ caption, values: fieldsOf(caption) }));
  for (const name of FIELDS) {
    const select = field(name);
    const possible = new Set(left.map(({ values }) => String(values[name] ?? "")));
    for (const option of select.options) option.disabled = !possible.has(option.value);
    if (!possible.has(select.value)) select.value = [...select.options].find((option) => !option.disabled).value;
    select.disabled = possible.size === 1;
    left = left.filter(({ values }) => String(values[name] ?? "") === select.value);
  }
  return left[0].caption;
}

/** Sets the selects to a prompt.
 * Throws an Error, for a text that is no caption. */
function choosePrompt(text) {
  const caption = TABLES.captions.find((one) => one.text === text);
  if (!caption) {
    throw new Error(
      `The prompt “${text}” is not one of the captions that this network knows, such as “a red circle”, “three squares” or “a red circle left of a blue square”. Choose one above.`,
    );
  }
  for (const [name, value] of Object.entries(fieldsOf(caption))) field(name).value = value ?? "";
  showPrompt();
}

function showPrompt() {
  document.getElementById("prompt").textContent = `“${chosenCaption().text}”`;
}

/* The settings: of the controls, and of the address. */

function showOptions(changed) {
  const [T, options] = [Number(field("steps").value), TABLES.methods[field("method").value]];
  const fields = { lambda: "steps", warmup: "warmup" };
  for (const [name, option] of Object.entries(fields)) {
    field(name).disabled = !options.includes(option);
    field(name).closest("label").hidden = !options.includes(option);
    document.getElementById(`about-${name}`).hidden = !options.includes(option);
    field(name).max = T;
  }
  // The papers' warm-up, as `zigzag generate` takes it.
  if (changed === "steps" || field("warmup").value === "") field("warmup").value = T < 6 ? 1 : Math.min(5, T - 1);
}

/** Throws an Error, naming the control, where one is out of range. */
function settings() {
  for (const control of form.elements) {
    if (control.willValidate && !control.checkValidity()) {
      const name = control.closest("label").firstChild.textContent.trim();
      control.focus();
      throw new Error(`${name}: ${control.validationMessage}`);
    }
  }
  const options = TABLES.methods[field("method").value];
  const given = options.filter((key) => key !== "steps" || field("lambda").value !== "");
  const texts = given.map((key) => `${key}=${Number(field(key === "steps" ? "lambda" : key).value)}`);
  return {
    prompt: chosenCaption().text,
    method: [field("method").value, ...(texts.length ? [texts.join(",")] : [])].join(":"),
    steps: Number(field("steps").value),
    strong: Number(field("strong").value),
    weak: Number(field("weak").value),
    seed: Number(field("seed").value),
  };
}

/** Takes the settings in the address, `#prompt=a+circle&method=z2:warmup=2&seed=1`, as far as there are some.
 * Throws an Error, for what this page cannot draw. */
function takeAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const [name, value] of given) {
    if (!["prompt", "method", "steps", "strong", "weak", "seed"].includes(name)) {
      throw new Error(`The address says ${name}, of which this page knows nothing.`);
    }
    if (name === "prompt" || name === "method") continue;
    field(name).value = value;
    if (field(name).value !== value) throw new Error(`The address says ${name}=${value}, which this page has not.`);
    if (name === "steps") showOptions("steps");
  }
  if (given.has("method")) {
    const [method, options = ""] = given.get("method").split(":");
    const pairs = options.split(",").filter(Boolean).map((pair) => pair.split("="));
    if (!(method in TABLES.methods) || pairs.some(([key]) => !TABLES.methods[method].includes(key))) {
      throw new Error(`The address says method=${given.get("method")}, which this page has not.`);
    }
    field("method").value = method;
    for (const [key, value] of pairs) field(key === "steps" ? "lambda" : key).value = value;
    showOptions();
  }
  if (given.has("prompt")) choosePrompt(given.get("prompt"));
}

function commandLine({ prompt, method, steps, strong, weak, seed }) {
  const [name, options = ""] = method.split(":");
  const given = options.split(",").filter(Boolean).map((pair) => `--${pair.replace("steps=", "lambda=").replace("=", " ")}`);
  return [
    `zigzag generate --model ${TABLES.model} --prompt "${prompt}" --method ${name}`,
    ...given,
    `--steps ${steps} --strong ${strong} --weak ${weak} --seed ${seed}`,
  ].join(" ");
}
