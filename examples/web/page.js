// Load the model, read what is on the paper, show what it is.
"use strict";

const DOUBT = 0.6; // below this confidence the answer is not called sure
const at = (id) => document.getElementById(id);

let model = null;
let waiting = false;
let bars = [];

const paper = new Paper(at("paper"), at("pen"), () => {
  at("undo").disabled = at("clear").disabled = paper.blank;
  at("hint").hidden = !paper.blank;
  if (model) at("error").hidden = true;
  if (!waiting) requestAnimationFrame(read); // once a frame, however many points come
  waiting = true;
});

at("clear").onclick = () => paper.clear();
at("undo").onclick = () => paper.undo();
at("open").onclick = () => at("file").click();
at("file").onchange = ({ target }) => {
  if (target.files[0]) open(target.files[0]);
  target.value = ""; // the same file can be chosen again
};
document.ondragover = (event) => event.preventDefault();
document.ondrop = (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
};
document.onpaste = ({ clipboardData }) => {
  if (clipboardData.files[0]) open(clipboardData.files[0]);
};

start();

async function start() {
  const name = new URLSearchParams(location.search).get("model") ?? "digit_small";
  try {
    if (!/^\w+$/.test(name)) throw new Error("a model's name is letters, digits and underscores");
    const loaded = await (await import(`./${name}.js`)).load();
    const [channels] = loaded.inputShape;
    if (channels !== 1) throw new Error(`it takes images of ${channels} channels, and ink has one`);
    model = loaded;
  } catch (error) {
    fail(`The model ${name} cannot be loaded: ${error.message}. ${help(name)}`);
    return;
  }
  const [, height, width] = model.inputShape;
  Object.assign(at("seen"), { width, height });
  bars = model.classes.map((text) => {
    const row = document.createElement("li");
    row.append(document.createElement("span"), document.createElement("progress"), document.createElement("span"));
    row.firstChild.textContent = text;
    row.children[1].value = 0;
    row.children[1].setAttribute("aria-label", text);
    return at("bars").appendChild(row);
  });
  const module = performance.getEntriesByType("resource").find((entry) => entry.name.endsWith(".wasm"));
  const size = module?.decodedBodySize ? `, ${(module.decodedBodySize / 1000).toFixed(1)} KB with its code` : "";
  at("about").textContent = `It is read on this device; nothing is sent. The model: ${name}${size}.`;
  document.documentElement.dataset.state = "ready";
  read();
}

function help(name) {
  if (location.protocol === "file:")
    return "Browsers load modules from a server only: python -m http.server, in this folder.";
  if (typeof WebAssembly === "undefined") return "This browser has no WebAssembly.";
  return `Are ${name}.js and its .wasm files beside this page? netsuke export ${name}.netsuke --to wasm writes them.`;
}

function fail(message) {
  document.documentElement.dataset.state = "failed";
  at("error").textContent = message;
  at("error").hidden = false;
  at("sure").textContent = "No model";
}

async function open(file) {
  try {
    paper.show(await createImageBitmap(file));
  } catch {
    at("error").textContent = `${file.name} is not a picture that this browser can read.`;
    at("error").hidden = false;
  }
}

function read() {
  waiting = false;
  if (!model) return;
  const image = fit(paper.pixels(), model.inputShape);
  preview(image);
  if (!image) {
    answer("–", paper.blank ? "Draw, or open a picture" : "No ink is found", true);
    share([]);
    at("facts").textContent = "";
    return;
  }
  const { class: name, index, confidence, probabilities } = model.classify(image);
  const sure = confidence === null ? "" : `${(100 * confidence).toFixed(1)} %`;
  const doubtful = confidence !== null && confidence < DOUBT;
  answer(name, doubtful ? `not sure, ${sure}` : sure, doubtful);
  share(probabilities ?? [], index);
  at("facts").textContent = `Read in ${microseconds(image)} µs.`;
}

function answer(digit, sure, doubtful) {
  at("digit").textContent = digit;
  at("digit").className = (digit.length > 2 ? "word " : "") + (doubtful ? "doubtful" : "");
  at("sure").textContent = sure;
}

function share(values, best) {
  bars.forEach((row, i) => {
    row.children[1].value = values[i] ?? 0;
    row.lastChild.textContent = values.length ? `${(100 * values[i]).toFixed(1)} %` : "";
    row.classList.toggle("best", i === best);
  });
}

function microseconds(image) {
  const [calls, start] = [10, performance.now()]; // one is shorter than the clock's tick
  for (let i = 0; i < calls; i++) model.run(image);
  return Math.max(1, Math.round((1000 * (performance.now() - start)) / calls)).toLocaleString("en");
}

function preview(image) {
  const on = at("seen").getContext("2d");
  const seen = on.createImageData(at("seen").width, at("seen").height);
  image?.forEach((value, i) => seen.data.set([value, value, value, 255], 4 * i));
  on.putImageData(seen, 0, 0);
}
