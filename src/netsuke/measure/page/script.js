"use strict";
(() => {
  const doc = JSON.parse(document.getElementById("data").textContent);
  const models = doc.models;
  const DENSE = 25; // more classes than this: a matrix of colours, its numbers shown on pointing
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  /** An element; children are elements or text, so that a name from the data never becomes markup. */
  function el(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined) made.setAttribute(key, value);
    }
    made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
    return made;
  }
  const percent = (share, places = 2) => (share === null || share === undefined ? "–" : (100 * share).toFixed(places));
  const whole = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en"));
  const spread = (value) => (!value || value.mean === null ? null
    : `${percent(value.mean)}${value.n === 1 || value.stdev === null || value.stdev === undefined ? "" : ` ± ${percent(value.stdev)}`} %`);

  // Sorting: missing figures stay last in either order.
  function sort(button) {
    const head = button.closest("th");
    const table = head.closest("table");
    const before = head.getAttribute("aria-sort");
    const order = before === "none" ? button.dataset.first : before === "ascending" ? "descending" : "ascending";
    all("th[aria-sort]", table).forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", order);
    const body = table.tBodies[0];
    const key = (row) => row.cells[head.cellIndex].dataset.v;
    const compare = (a, b) => (isFinite(a) && isFinite(b) && a !== "" && b !== "" ? a - b : a.localeCompare(b, "en", { numeric: true }));
    const rows = [...body.rows];
    const known = rows.filter((row) => key(row) !== undefined);
    known.sort((a, b) => compare(key(a), key(b)) * (order === "ascending" ? 1 : -1));
    body.append(...known, ...rows.filter((row) => key(row) === undefined));
  }

  // Pointing at a model anywhere shows it everywhere.
  const tip = document.getElementById("tip");
  let hot = null;
  function highlight(index) {
    if (index === hot) return;
    hot = index;
    all(".hot").forEach((element) => element.classList.remove("hot"));
    document.body.classList.toggle("pointing", index !== null);
    if (index !== null) all(`[data-m="${index}"]`).forEach((element) => element.classList.add("hot"));
  }
  function showTip(element, x, y) {
    tip.hidden = !element;
    if (!element) return;
    tip.textContent = element.dataset.tip;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(6, Math.min(x + 14, innerWidth - width - 6))}px`;
    tip.style.top = `${y + height + 20 > innerHeight ? y - height - 12 : y + 14}px`;
  }
  function point(event) {
    const at = event.target.closest("[data-m]");
    highlight(at ? at.dataset.m : null);
    showTip(event.target.closest("[data-tip]"), event.clientX, event.clientY);
  }
  function focus(event) {
    const at = event.target.closest("[data-m]");
    if (!at) return;
    highlight(at.dataset.m);
    const box = at.getBoundingClientRect();
    showTip(at.matches("[data-tip]") && at.matches(":focus-visible") ? at : null, box.right, box.bottom);
  }

  // One Tab stop for a plot or a matrix; arrow keys walk inside it.
  function walk(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -2, ArrowDown: 2 }[event.key];
    const from = event.target.closest(".point, .matrix td");
    if (!step || !from) return;
    event.preventDefault();
    let to;
    if (from.matches("td")) {
      const row = Math.abs(step) === 2 ? from.parentNode[step > 0 ? "nextElementSibling" : "previousElementSibling"] : from.parentNode;
      to = row && row.cells[from.cellIndex + (Math.abs(step) === 1 ? step : 0)];
      if (!to || !to.matches("td")) return;
    } else {
      const points = all(".point", from.closest("svg")).sort((a, b) => a.dataset.x - b.dataset.x);
      to = points[points.indexOf(from) + Math.sign(step)];
      if (!to) return;
    }
    from.setAttribute("tabindex", -1);
    to.setAttribute("tabindex", 0);
    to.focus();
  }

  // One model: confusion matrix, classes, errors, runs.
  const classes = doc.classes || [];
  const named = (index) => String(classes[index] ?? index);
  const sum = (row) => row.reduce((a, b) => a + b, 0);
  const worst = Math.max(1e-9, ...models.map((model) => (model.confusion || []).map((row, i) => {
    const total = sum(row);
    return total ? Math.max(0, ...row.filter((_, j) => j !== i)) / total : 0;
  })).map((shares) => Math.max(0, ...shares)));

  function confusion(model) {
    if (!model.confusion) return el("p", { class: "muted" }, "No confusion matrix was kept of this model.");
    const size = model.confusion.length;
    const dense = size > DENSE;
    const tall = Array.from({ length: size }, (_, i) => named(i)).some((name) => name.length > 4);
    const readout = el("p", { class: "readout", id: "readout", role: "status" }, "Point at a cell, or walk with the arrow keys, to read it.");
    const body = model.confusion.map((row, i) => {
      const total = sum(row);
      const cells = row.map((count, j) => {
        const share = total ? count / total : 0;
        const cell = el("td", { tabindex: i + j ? -1 : 0 }, String(count));
        // Errors are rare: the root brings out one in a thousand; one scale for all models, to compare them.
        const alpha = i === j ? share : Math.sqrt(share / worst);
        if (count) cell.className = i === j ? "ok" : "off";
        if (count && alpha > 0.6) cell.classList.add("full");
        cell.style.setProperty("--a", i === j ? share : 0.06 + 0.94 * alpha);
        return cell;
      });
      return el("tr", {}, el("th", { scope: "row", title: named(i) }, named(i)), cells);
    });
    const heads = model.confusion.map((_, j) => el("th", { scope: "col", class: tall ? "tall" : null, title: named(j) }, named(j)));
    const table = el("table", { class: dense ? "matrix dense" : "matrix", "aria-describedby": "readout" },
      el("caption", { class: "sr" }, `Confusion matrix of ${model.name}: rows are labels, columns answers`),
      el("thead", {}, el("tr", {}, el("td", { "aria-hidden": "true", style: "background:none;width:auto" }), heads)), el("tbody", {}, body));
    table.style.setProperty("--cell", `${Math.max(dense ? 3 : 24, Math.min(46, Math.floor(540 / size)))}px`);
    if (dense) table.tHead.remove();
    const read = (event) => {
      const cell = event.target.closest("tbody td");
      if (!cell) return;
      const i = cell.parentNode.sectionRowIndex;
      const j = cell.cellIndex - 1;
      const row = model.confusion[i];
      readout.textContent = `Label ${named(i)}, answer ${named(j)}: ${whole(row[j])} of ${whole(sum(row))} (${percent(sum(row) ? row[j] / sum(row) : 0)} %)`;
    };
    table.addEventListener("pointerover", read);
    table.addEventListener("focusin", read);
    return el("div", {},
      el("h3", {}, "Confusion matrix"),
      el("p", { class: "muted ramp" }, `Rows are labels, columns answers${(model.runs || []).length > 1 ? ", of the first run" : ""}.`,
        el("span", { class: "right" }, "right 0", el("i"), "100 % of the row"),
        el("span", { class: "false" }, "wrong 0", el("i"), `${percent(worst)} %`)),
      el("div", { style: "overflow-x:auto" }, table), readout);
  }

  function frequent(model) {
    if (!model.confusion) return null;
    const pairs = model.confusion.flatMap((row, i) => row.map((count, j) => ({ i, j, count, share: count / (sum(row) || 1) })));
    const errors = pairs.filter((pair) => pair.i !== pair.j && pair.count > 0).sort((a, b) => b.count - a.count).slice(0, 8);
    if (!errors.length) return null;
    const rows = errors.map((e) => el("tr", {}, el("th", { scope: "row" }, `${named(e.i)} → ${named(e.j)}`), el("td", {}, whole(e.count)), el("td", {}, percent(e.share))));
    const heads = ["label → answer", "images", "% of the label"].map((head) => el("th", { scope: "col" }, head));
    return el("div", {}, el("h3", {}, "Most frequent errors"),
      el("table", { class: "figures" }, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows)));
  }

  function perClass(model) {
    const rows = model.per_class;
    if (!rows || !rows.length) return null;
    const best = models.length > 1 ? rows.map((_, i) => Math.max(...models.map((other) => (other.per_class && other.per_class[i] && other.per_class[i].f1) || 0))) : null;
    const lowest = Math.min(...models.flatMap((other) => (other.per_class || []).map((row) => row.f1 ?? 0)));
    const start = [0.99, 0.98, 0.95, 0.9, 0.8, 0.5].find((base) => base < lowest) || 0;
    const at = (f1) => `${(100 * Math.max(0, f1 - start)) / (1 - start)}%`;
    const body = rows.map((row, i) => {
      const bar = el("b");
      bar.style.width = at(row.f1 ?? 0);
      const mark = best ? el("u", { title: `best of all models: ${percent(best[i])} %` }) : null;
      if (mark) mark.style.left = at(best[i]);
      const cell = (value, ...inside) => el("td", value === null || value === undefined ? { class: "none" } : { "data-v": value }, ...inside);
      return el("tr", {}, el("th", { scope: "row", "data-v": row.class }, String(row.class)),
        cell(row.f1, el("span", { class: "f1", "aria-hidden": "true" }, bar, mark), percent(row.f1)),
        cell(row.precision, percent(row.precision)), cell(row.recall, percent(row.recall)), cell(row.support, whole(row.support)));
    });
    const heads = [["class", "ascending", ""], ["F1", "ascending", "%"], ["precision", "ascending", "%"], ["recall", "ascending", "%"], ["images", "descending", ""]].map(
      ([title, first, unit]) => el("th", { scope: "col", "aria-sort": "none" }, el("button", { type: "button", "data-first": first }, title, unit ? el("small", {}, unit) : null)));
    return el("div", {}, el("h3", {}, "Classes"),
      el("p", { class: "muted" }, `Bars start at ${100 * start} %${best ? ", for all models alike; the mark is the best of all models" : ""}.`),
      el("div", { class: "tall-table", tabindex: 0, role: "region", "aria-label": "Figures of each class" },
        el("table", { class: "figures sortable" }, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, body))));
  }

  function gallery(model) {
    const confused = model.confused || [];
    if (!confused.length) return null;
    const name = (label) => (Number.isInteger(label) ? named(label) : String(label));
    const items = confused.map((image) => {
      const label = name(image.label);
      const said = name(image.said);
      const picture = image.image ? el("img", { src: `data:image/png;base64,${image.image}`, alt: `Image ${image.index}: ${label}, taken for ${said}` }) : null;
      return el("li", {}, picture, "label ", el("b", {}, label), ", said ", el("span", { class: "said" }, said), el("br"),
        el("span", { class: "muted" }, `${percent(image.confidence, 1)} % sure · no. ${image.index}`));
    });
    return el("div", {}, el("h3", {}, "Most confused images"), el("p", { class: "muted" }, "Wrong, and surest of it."), el("ul", { class: "gallery" }, items));
  }

  function facts(model) {
    const options = Object.entries(model.options || {}).map(([key, value]) => `${key} ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");
    const pairs = [
      ["kind", [model.kind, model.model, options].filter(Boolean).join(" · ")],
      ["accuracy", spread(model.accuracy)], ["precision", spread(model.precision)], ["recall", spread(model.recall)], ["macro F1", spread(model.f1)],
      ["loss", model.loss && model.loss.mean !== null ? model.loss.mean.toPrecision(3) : null],
      ["file", model.file_bytes === null || model.file_bytes === undefined ? null : `${whole(model.file_bytes)} bytes`],
      ["runs", (model.runs || []).map((run) => [run.seed === null || run.seed === undefined ? null : `seed ${run.seed}`, `${percent(run.accuracy)} %`, run.file].filter(Boolean).join(" ")).join(", ")],
    ];
    return el("dl", { class: "strip" }, pairs.filter(([, text]) => text).map(([term, text]) => el("div", {}, el("dt", {}, term), el("dd", {}, text))));
  }

  const choice = document.getElementById("choice");
  function choose(index) {
    const model = models[index];
    if (!model) return;
    choice.value = index;
    document.getElementById("details").replaceChildren(...[el("h3", {}, model.name), facts(model),
      el("div", { class: "split" }, confusion(model), el("div", {}, perClass(model), frequent(model))), gallery(model)].filter(Boolean));
  }

  document.addEventListener("pointerover", point);
  document.addEventListener("focusin", focus);
  document.addEventListener("focusout", () => { highlight(null); showTip(null); });
  document.addEventListener("keydown", walk);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") showTip(null); });
  document.addEventListener("scroll", () => showTip(null), { passive: true });
  document.addEventListener("click", (event) => {
    const button = event.target.closest(".sortable th button");
    if (button) sort(button);
    const link = event.target.closest('a[href="#model"][data-m]');
    if (link) choose(link.dataset.m);
  });
  choice.addEventListener("change", () => choose(choice.value));
  addEventListener("beforeprint", () => all("details").forEach((part) => { part.open = true; }));
  choose(choice.value);

  const download = document.getElementById("download");
  download.href = URL.createObjectURL(new Blob([JSON.stringify(doc, null, 1)], { type: "application/json" }));
  download.download = "comparison.json";
  download.hidden = false;
  document.documentElement.dataset.ready = "yes";
})();
