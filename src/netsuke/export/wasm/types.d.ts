/** A network written by netsuke: a classifier, or one that gives a map of logits. */
export interface Model {
  /** Class names in the order of the logits; none of a map. */
  readonly classes: readonly string[];
  /** How many classes, or planes, height and width of a map. */
  readonly outputShape: readonly number[];
  /** The real value of one unit of the logits; null where the model does not tell it. */
  readonly scale: number | null;
  /** Channels, height and width of an image. */
  readonly inputShape: readonly [number, number, number];
  /** Bytes of one image. */
  readonly inputBytes: number;
  /**
   * Logits of one image or of several, one after the other: planes, row by row, bright ink on dark ground, 0 to 255.
   * A map of logits is planes, row by row, too.
   */
  run(images: Uint8Array | Uint8ClampedArray): Int32Array;
  /** The most likely class of one image; an error where the model gives a map. */
  classify(image: Uint8Array | Uint8ClampedArray): Classification;
  /** How sure the logits of one image are, 500 to 1000; of modules exported with wasm.confidence=yes. */
  perMille(logits: Int32Array): number;
  /**
   * The model's input from a grey image of one digit, of any size, on light or dark paper; null where it is blank.
   * Of modules exported with wasm.normaliser=yes.
   */
  normalise(grey: Uint8Array | Uint8ClampedArray, width: number, height: number): Normalised | null;
}

export interface Normalised {
  /** What run and classify take. */
  image: Uint8Array;
  /** Left, top, width and height of the ink in the grey image. */
  box: [number, number, number, number];
}

export interface Classification {
  /** Name of the class with the largest logit. */
  class: string;
  /** Its number. */
  index: number;
  /** The softmax of its logit; null where the model does not tell the scale of its logits. */
  confidence: number | null;
  /** The softmax of all logits, or null. */
  probabilities: number[] | null;
  logits: Int32Array;
}

/** Whether this machine runs the SIMD module. */
export function hasSimd(): boolean;

/**
 * Load the model: by default the module beside this script, the SIMD one where the machine has SIMD.
 * `simd` chooses; `source` is another place of the module, its bytes, or the compiled module.
 */
export function load(
  source?: string | URL | ArrayBuffer | Uint8Array | WebAssembly.Module,
  options?: { simd?: boolean },
): Promise<Model>;
