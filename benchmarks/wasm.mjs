// One process, turn by turn: netsuke's modules beside ONNX Runtime Web. Called by wasm.py; prints one line of JSON.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const { ort: folder, script, models, images: file, rounds, calls } = JSON.parse(process.argv[2]);
const ort = await import(pathToFileURL(`${folder}/onnxruntime-web/dist/ort.wasm.min.mjs`));
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";
const { load } = await import(`data:text/javascript;base64,${readFileSync(script, "base64")}`);

const images = new Uint8Array(readFileSync(file));
const contenders = {};
for (const [name, path] of Object.entries(models)) {
  const began = performance.now();
  const run = path.endsWith(".wasm") ? await module(path) : await session(path);
  contenders[name] = { run, load_ms: performance.now() - began, times: [] };
}

async function module(path) {
  const model = await load(readFileSync(path));
  return (image) => model.run(image);
}

async function session(path) {
  const made = await ort.InferenceSession.create(new Uint8Array(readFileSync(path)), { executionProviders: ["wasm"] });
  const shape = [1, ...JSON.parse(process.argv[3])];
  return async (image) => (await made.run({ image: new ort.Tensor("uint8", image, shape) })).logits.data;
}

const size = JSON.parse(process.argv[3]).reduce((a, b) => a * b);
const inputs = [];
for (let at = 0; at < images.length; at += size) inputs.push(images.slice(at, at + size));
const logits = {};
for (const [name, { run }] of Object.entries(contenders)) {
  logits[name] = [];
  for (let i = 0; i < 300; i++) await run(inputs[i % inputs.length]); // V8 compiles a second time
  for (const image of inputs) logits[name].push(...(await run(image)));
}
for (let round = 0; round < rounds; round++) {
  const turn = Object.values(contenders);
  if (round % 2) turn.reverse();
  for (const { run, times } of turn) {
    const taken = [];
    for (let i = 0; i < calls; i++) {
      const image = inputs[i % inputs.length];
      const begin = performance.now();
      const answer = run(image);
      if (answer instanceof Promise) await answer; // no microtask is added to what answers at once
      taken.push((performance.now() - begin) * 1000);
    }
    times.push(taken);
  }
}
const us = Object.fromEntries(Object.entries(contenders).map(([name, c]) => [name, c.times]));
const load_ms = Object.fromEntries(Object.entries(contenders).map(([name, c]) => [name, c.load_ms]));
console.log(JSON.stringify({ us, load_ms, logits, version: ort.env.versions.web }));
