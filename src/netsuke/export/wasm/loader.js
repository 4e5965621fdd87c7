
// Whether this machine runs 128-bit SIMD: the smallest module with such an instruction is valid, or it is not.
const PROBE = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];

export const hasSimd = () => WebAssembly.validate(new Uint8Array(PROBE));

export async function load(source, { simd = hasSimd() } = {}) {
  const file = source ?? new URL(`${MODEL.name}${MODEL.simd && simd ? ".simd" : ""}.wasm`, import.meta.url);
  const bytes = typeof file === "string" || file instanceof URL ? await fetched(file) : file;
  const module = bytes instanceof WebAssembly.Module ? bytes : await WebAssembly.compile(bytes);
  return new Model((await WebAssembly.instantiate(module)).exports);
}

async function fetched(file) {
  const base = globalThis.document?.baseURI ?? import.meta.url;
  const url = new URL(file, base);
  if (url.protocol === "file:") {
    const { readFile } = await import(/* @vite-ignore */ /* webpackIgnore: true */ "node:fs/promises");
    return readFile(url);
  }
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url} cannot be loaded: ${answer.status} ${answer.statusText}`);
  return answer.arrayBuffer();
}

class Model {
  #exports;
  #image;
  #logits;

  constructor(exports) {
    exports.init?.(); // unpacks the weights
    this.#exports = exports;
    this.#view();
  }

  #view() {
    const { memory, image, logits } = this.#exports;
    this.#image = new Uint8Array(memory.buffer, image.value, this.inputBytes);
    this.#logits = new Int32Array(memory.buffer, logits.value, this.outputShape.reduce((a, b) => a * b));
  }

  get classes() {
    return MODEL.classes;
  }

  get outputShape() {
    return MODEL.outputs;
  }

  get scale() {
    return MODEL.scale;
  }

  get inputShape() {
    return MODEL.shape;
  }

  get inputBytes() {
    const [channels, height, width] = MODEL.shape;
    return channels * height * width;
  }

  run(images) {
    const size = this.#image.length;
    if (!(images instanceof Uint8Array || images instanceof Uint8ClampedArray) || images.length % size)
      throw new TypeError(`needs a Uint8Array of ${MODEL.shape.join(" x ")} = ${size} bytes an image`);
    const count = images.length / size;
    const all = new Int32Array(count * this.#logits.length);
    for (let i = 0; i < count; i++) {
      this.#image.set(count === 1 ? images : images.subarray(i * size, (i + 1) * size));
      this.#exports.run();
      all.set(this.#logits, i * this.#logits.length);
    }
    return all;
  }

  classify(image) {
    if (this.outputShape.length > 1) throw new TypeError(`this model gives a map ${this.outputShape.join(" x ")}, not one logit a class`);
    const logits = this.run(image);
    if (logits.length !== this.classes.length) throw new TypeError("classify takes one image");
    const index = logits.indexOf(logits.reduce((a, b) => Math.max(a, b)));
    const terms = Array.from(logits, (v) => Math.exp((v - logits[index]) * MODEL.scale));
    const total = terms.reduce((a, b) => a + b);
    const probabilities = MODEL.scale ? terms.map((v) => v / total) : null;
    const confidence = probabilities && probabilities[index];
    return { class: this.classes[index], index, confidence, probabilities, logits };
  }

  perMille(logits) {
    if (!this.#exports.confidence) throw new TypeError("this model was exported without wasm.confidence=yes");
    if (logits.length !== this.#logits.length) throw new TypeError("perMille takes the logits of one image");
    this.#logits.set(logits);
    return this.#exports.confidence();
  }

  normalise(grey, width, height) {
    const { memory, heap, work_bytes, normalise } = this.#exports;
    if (!normalise) throw new TypeError("this model was exported without wasm.normaliser=yes");
    if (!(width >= 1 && width <= 16383 && height >= 1 && height <= 16383) || grey.length !== width * height)
      throw new TypeError(`needs width x height bytes, of at most 16383 x 16383; got ${grey.length} for ${width} x ${height}`);
    const work = Math.ceil(heap() / 4) * 4;
    const pixels = work + work_bytes(width, height);
    const missing = pixels + grey.length - memory.buffer.byteLength;
    if (missing > 0) memory.grow(Math.ceil(missing / 65536));
    this.#view(); // memory that grew is another buffer
    new Uint8Array(memory.buffer).set(grey, pixels);
    if (!normalise(pixels, width, height, work)) return null;
    return { image: this.#image.slice(), box: Array.from(new Int32Array(memory.buffer, work, 4)) };
  }
}
