// The paper: strokes by mouse, finger, pen or keyboard, and a picture below them.
"use strict";

const PEN = 0.075; // width of the pen, of the paper's
const STEP = 1 / 32; // what an arrow key moves

class Paper {
  #canvas;
  #ink;
  #strokes = []; // each a list of points, 0 to 1
  #picture = null;
  #pen = { x: 0.5, y: 0.5, down: false };

  constructor(canvas, pen, changed) {
    this.#canvas = canvas;
    this.#ink = canvas.getContext("2d", { willReadFrequently: true });
    this.mark = pen;
    this.changed = changed;
    canvas.addEventListener("pointerdown", (event) => this.#start(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"])
      canvas.addEventListener(end, (event) => this.#end(event));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => (this.mark.hidden = true));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  get blank() {
    return !this.#strokes.length && !this.#picture;
  }

  pixels() {
    return this.#ink.getImageData(0, 0, this.#canvas.width, this.#canvas.height);
  }

  clear() {
    [this.#strokes, this.#picture, this.#pen.down] = [[], null, false];
    this.#draw();
  }

  undo() {
    if (!this.#strokes.pop()) this.#picture = null;
    this.#pen.down = false;
    this.#draw();
  }

  /** Put a picture, anything that drawImage takes, in the place of what was drawn. */
  show(picture) {
    const { width, height } = this.#canvas;
    const scale = Math.min(width / picture.width, height / picture.height);
    const [w, h] = [picture.width, picture.height].map((side) => Math.max(1, Math.round(scale * side)));
    const sheet = Object.assign(document.createElement("canvas"), { width: w, height: h });
    const on = sheet.getContext("2d");
    on.imageSmoothingQuality = "high";
    on.drawImage(picture, 0, 0, w, h);
    on.putImageData(inked(on.getImageData(0, 0, w, h)), 0, 0);
    [this.#strokes, this.#picture] = [[], sheet];
    this.#draw();
  }

  #draw() {
    const { width, height } = this.#canvas;
    const ink = this.#ink;
    const colour = getComputedStyle(this.#canvas).color;
    ink.clearRect(0, 0, width, height);
    if (this.#picture) {
      const { width: w, height: h } = this.#picture;
      ink.drawImage(this.#picture, Math.round((width - w) / 2), Math.round((height - h) / 2));
      ink.globalCompositeOperation = "source-in"; // its alpha, in the colour of the ink
      ink.fillStyle = colour;
      ink.fillRect(0, 0, width, height);
      ink.globalCompositeOperation = "source-over";
    }
    Object.assign(ink, { strokeStyle: colour, lineWidth: PEN * width, lineCap: "round", lineJoin: "round" });
    for (const stroke of this.#strokes) {
      const [first, ...rest] = stroke.map(({ x, y }) => [x * width, y * height]);
      ink.beginPath();
      ink.moveTo(...first);
      rest.forEach(([x, y], i) => {
        const [toX, toY] = rest[i + 1] ?? [x, y];
        ink.quadraticCurveTo(x, y, (x + toX) / 2, (y + toY) / 2); // a fast hand leaves few points: no corners
      });
      if (!rest.length) ink.lineTo(...first);
      ink.stroke();
    }
    this.changed();
  }

  // --- pointers ---

  #points(event) {
    const { left, top, width, height } = this.#canvas.getBoundingClientRect();
    const all = event.getCoalescedEvents?.() ?? [];
    return (all.length ? all : [event]).map(({ clientX, clientY }) => ({
      x: (clientX - left) / width,
      y: (clientY - top) / height,
    }));
  }

  #start(event) {
    if (event.button || !event.isPrimary) return; // a second finger, another button
    this.#canvas.setPointerCapture(event.pointerId); // a stroke may leave the paper and come back
    this.#strokes.push(this.#points(event).slice(-1));
    this.#pen.down = false;
    this.mark.hidden = true;
    this.#draw();
  }

  #move(event) {
    if (!this.#canvas.hasPointerCapture(event.pointerId) || !this.#strokes.length) return;
    this.#strokes.at(-1).push(...this.#points(event));
    this.#draw();
  }

  #end(event) {
    if (this.#canvas.hasPointerCapture(event.pointerId)) this.#canvas.releasePointerCapture(event.pointerId);
  }

  // --- keyboard ---

  #key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const pen = this.#pen;
    if ((event.ctrlKey || event.metaKey) && event.key === "z") this.undo();
    else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (event.key === "Escape" || event.key === "Delete") this.clear();
    else if (event.key === " ") {
      if (!event.repeat) pen.down = !pen.down;
      if (pen.down && !event.repeat) this.#strokes.push([{ x: pen.x, y: pen.y }]);
    } else if (moves[event.key]) {
      const [dx, dy] = moves[event.key];
      const within = (at) => Math.min(Math.max(at, PEN / 2), 1 - PEN / 2);
      [pen.x, pen.y] = [within(pen.x + dx * STEP), within(pen.y + dy * STEP)];
      if (pen.down) this.#strokes.at(-1).push({ x: pen.x, y: pen.y });
    } else return;
    event.preventDefault();
    this.mark.hidden = false;
    Object.assign(this.mark.style, { left: `${100 * pen.x}%`, top: `${100 * pen.y}%` });
    this.mark.classList.toggle("down", pen.down);
    this.#draw();
  }
}
