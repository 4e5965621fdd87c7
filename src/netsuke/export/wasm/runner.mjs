// Runs a model for Python: argv holds NAME.js and a module; commands come on stdin, a line of JSON and its bytes each.
import { readFileSync, readSync, writeSync } from "node:fs";

const [script, file] = process.argv.slice(2);
const text = readFileSync(script, "base64"); // as a data URL it is an ES module, whatever package.json says
const before = process.memoryUsage.rss();
const { load } = await import(`data:text/javascript;base64,${text}`);
const began = performance.now();
const model = await load(readFileSync(file));
const load_ms = performance.now() - began;

function write(...parts) {
  for (const part of parts) for (let at = 0; at < part.length; ) at += writeSync(1, part, at);
}

function read(size) {
  const data = new Uint8Array(size);
  for (let at = 0; at < size; ) {
    const got = readSync(0, data, at, size - at);
    if (!got) process.exit(0); // Python has gone
    at += got;
  }
  return data;
}

function line() {
  const bytes = [];
  for (let [byte] = read(1); byte !== 10; [byte] = read(1)) bytes.push(byte);
  return JSON.parse(String.fromCharCode(...bytes));
}

function answer(document, bytes = new Uint8Array()) {
  write(Buffer.from(JSON.stringify({ ...document, bytes: bytes.length }) + "\n"), bytes);
}

// Microseconds of single calls, each with `batch` images, that take turns.
function time(images, { batch, seconds }) {
  const size = model.inputBytes * batch;
  const inputs = [];
  for (let at = 0; at + size <= images.length; at += size) inputs.push(images.slice(at, at + size));
  const times = [];
  const start = performance.now();
  for (let i = 0; i < 1 || performance.now() - start < seconds * 1000; i++) {
    const begin = performance.now();
    model.run(inputs[i % inputs.length]);
    times.push((performance.now() - begin) * 1000);
  }
  return times;
}

const rss_bytes = process.memoryUsage.rss();
answer({ load_ms, rss_bytes, added_bytes: rss_bytes - before, outputs: model.outputShape });
for (;;) {
  const command = line();
  const images = read(command.bytes);
  if (command.do === "time") answer({ us: time(images, command) });
  else if (command.do === "per mille") answer({ per_mille: model.perMille(new Int32Array(images.buffer)) });
  else if (command.do === "normalise") {
    const found = model.normalise(images, command.width, command.height);
    answer({ box: found?.box ?? null }, found?.image);
  }
  else {
    const logits = model.run(images);
    answer({}, new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength));
  }
}
