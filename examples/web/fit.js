// From ink on a canvas to what the model takes, as MNIST was made and `netsuke.image.fit` does it.
"use strict";

const BOX = 20 / 28; // of the image: the longer side of the ink
const FULL = 0.75; // the percentile of the ink that becomes 255: lifts a thin pen to MNIST's strokes

/** Uint8Array [height * width] with the ink fitted into the middle, or null on a blank paper. */
function fit({ data, width, height }, [, high, wide]) {
  const ink = (x, y) => data[4 * (y * width + x) + 3];
  let [left, top, right, bottom] = [width, height, -1, -1];
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      if (ink(x, y)) {
        [left, right] = [Math.min(left, x), Math.max(right, x)];
        [top, bottom] = [Math.min(top, y), y];
      }
  if (right < 0) return null;
  const [w, h] = [right - left + 1, bottom - top + 1];
  const scale = Math.round(BOX * Math.min(high, wide)) / Math.max(w, h);
  const [columns, rows] = [w, h].map((side) => Math.max(1, Math.round(scale * side)));
  const small = area((x, y) => ink(left + x, top + y), w, h, columns, rows);
  let [mass, mx, my] = [0, 0, 0];
  small.forEach((value, i) => {
    [mass, mx, my] = [mass + value, mx + value * (i % columns), my + value * Math.floor(i / columns)];
  });
  // MNIST rounds the place of the centre of mass up.
  const put = (side, moment, size) =>
    Math.min(Math.max(Math.ceil(side / 2 - moment / mass - 0.5), 0), side - size);
  const [dx, dy] = [put(wide, mx, columns), put(high, my, rows)];
  const solid = percentile(small.filter((value) => value > 0));
  const image = new Uint8Array(high * wide);
  small.forEach((value, i) => {
    const at = (dy + Math.floor(i / columns)) * wide + dx + (i % columns);
    image[at] = Math.min(255, Math.round((255 * value) / solid));
  });
  return image;
}

/** The mean of what each small pixel covers, rounded. */
function area(ink, w, h, columns, rows) {
  const spans = (from, to) =>
    Array.from({ length: to }, (_, i) => {
      const [start, end] = [(i * from) / to, ((i + 1) * from) / to];
      const parts = [];
      for (let at = Math.floor(start); at < Math.min(from, end); at++)
        parts.push([at, Math.min(at + 1, end) - Math.max(at, start)]);
      return parts;
    });
  const [across, down] = [spans(w, columns), spans(h, rows)];
  return down.flatMap((ys) =>
    across.map((xs) => {
      let sum = 0;
      for (const [y, tall] of ys) for (const [x, broad] of xs) sum += tall * broad * ink(x, y);
      return Math.round((sum * columns * rows) / (w * h));
    }),
  );
}

function percentile(values) {
  if (!values.length) return 255;
  values.sort((a, b) => a - b);
  const at = FULL * (values.length - 1);
  const low = Math.floor(at);
  return values[low] + (at - low) * ((values[low + 1] ?? values[low]) - values[low]);
}

/** A picture as ink: what stands out from its border, bright or dark, as alpha. */
function inked({ data, width, height }) {
  const grey = Float32Array.from({ length: width * height }, (_, i) => {
    const [r, g, b, a] = data.subarray(4 * i, 4 * i + 4);
    return ((0.299 * r + 0.587 * g + 0.114 * b) * a) / 255 + 255 - a; // transparent is white
  });
  const border = grey.filter((_, i) => {
    const [x, y] = [i % width, Math.floor(i / width)];
    return Math.min(x, y, width - 1 - x, height - 1 - y) < Math.max(1, 0.05 * Math.min(width, height));
  });
  const paper = border.sort()[border.length >> 1];
  const [dark, bright] = grey.reduce(([d, b], v) => [Math.max(d, paper - v), Math.max(b, v - paper)], [0, 0]);
  const [sign, most] = dark > bright ? [-1, dark] : [1, bright];
  const image = new ImageData(width, height);
  for (let i = 0; i < grey.length; i++) {
    const share = (sign * (grey[i] - paper)) / most;
    image.data[4 * i + 3] = most < 30 || share < 0.2 ? 0 : 255 * share; // the rest is paper and its shadows
  }
  return image;
}
