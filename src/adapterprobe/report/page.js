// Everything here is a convenience: without it the page shows the same numbers.
"use strict";
(() => {
  const number = (text) => { const found = /[-+]?\d[\d,]*\.?\d*(e[-+]?\d+)?/i.exec(text); return found ? parseFloat(found[0].replaceAll(",", "")) : NaN; };

  // Tables: a click on a heading sorts by it, another turns the order round.
  for (const table of document.querySelectorAll("table")) {
    table.querySelectorAll("th").forEach((head, column) => {
      head.tabIndex = 0;
      head.setAttribute("aria-sort", "none");
      const sort = () => {
        const up = head.getAttribute("aria-sort") !== "descending";
        table.querySelectorAll("th").forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", up ? "descending" : "ascending");
        const body = table.tBodies[0];
        const rows = [...body.rows].map((row) => [row, row.cells[column].textContent.trim()]);
        const numeric = rows.filter(([, text]) => Number.isFinite(number(text))).length > rows.length / 2;
        const compare = (a, b) => {
          if (!numeric) return b.localeCompare(a);
          const [x, y] = [number(a), number(b)];
          return (Number.isNaN(y) ? -1 : y - x) || 0;
        };
        rows.sort(([, a], [, b]) => {
          if (numeric && Number.isNaN(number(a)) !== Number.isNaN(number(b))) return Number.isNaN(number(a)) ? 1 : -1;
          return up ? compare(a, b) : -compare(a, b);
        });
        body.append(...rows.map(([row]) => row));
      };
      head.addEventListener("click", sort);
      head.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); } });
    });
  }

  // Examples: by words, and by whatever has a list of its own.
  for (const box of document.querySelectorAll("[data-filters]")) {
    const rows = [...document.querySelectorAll(`#${box.dataset.filters} tbody tr`)];
    const told = box.querySelector("output");
    const apply = () => {
      let shown = 0;
      for (const row of rows) {
        let fits = true;
        for (const field of box.querySelectorAll("select, input")) {
          const wanted = field.value.trim().toLowerCase();
          if (!wanted) continue;
          const has = field.name === "words" ? row.textContent.toLowerCase() : ` ${(row.dataset[field.name] || "").toLowerCase()} `;
          if (!has.includes(field.name === "words" ? wanted : ` ${wanted} `)) fits = false;
        }
        row.hidden = !fits;
        shown += fits;
      }
      told.textContent = `${shown} of ${rows.length}`;
    };
    box.hidden = false;
    box.addEventListener("input", apply);
    apply();
  }

  // Replies: colour the tokens by another probe, or at another layer.
  const tokens = document.getElementById("token-data");
  if (tokens) {
    const { shades, replies } = JSON.parse(tokens.textContent);
    for (const pick of document.querySelectorAll("select.view")) {
      const views = replies[Number(pick.dataset.place)][pick.dataset.arm];
      const told = pick.nextElementSibling;
      for (const name of Object.keys(views)) pick.append(new Option(name, name));
      pick.value = told.textContent;
      pick.hidden = false;
      told.hidden = true;
      pick.addEventListener("input", () => {
        const spans = pick.parentElement.nextElementSibling.children;
        views[pick.value].forEach((score, at) => {
          spans[at].className = `s${Math.min(shades - 1, Math.floor(score * shades))}`;
          spans[at].title = score.toFixed(2);
        });
      });
    }
  }

  // Layers: point at one, or choose it with the slider, and read every arm there.
  const source = document.getElementById("layer-data");
  const place = document.getElementById("layer-explorer");
  if (!source || !place) return;
  const data = JSON.parse(source.textContent);
  if (!data.probes.length) return;
  const NS = "http://www.w3.org/2000/svg";
  const make = (name, attributes, parent, text) => {
    const element = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  };
  const [probe, slider, reading, table] = ["select", "input", "output", "table"].map((name) => place.querySelector(name));
  for (const name of data.probes) probe.append(new Option(name, name));
  probe.value = data.main;
  slider.max = data.layers - 1;
  const [W, H, left, bottom, top] = [460, 250, 40, 34, 22];
  const x = (layer) => left + (W - left - 12) * layer / Math.max(1, data.layers - 1);
  const y = (value) => H - bottom - (H - bottom - top) * (value - 0.3) / 0.7;
  const charts = data.splits.map(({ key, title }) => {
    const svg = make("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": title }, place.querySelector(".charts"));
    make("text", { x: left, y: 14, class: "title" }, svg, title);
    for (const value of [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]) {
      make("line", { x1: left, x2: W - 12, y1: y(value), y2: y(value), class: value === 0.5 ? "chance" : "rule" }, svg);
      make("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, svg, value.toFixed(1));
    }
    for (let layer = 0; layer < data.layers; layer += Math.max(1, Math.ceil(data.layers / 10)))
      make("text", { x: x(layer), y: H - 16, "text-anchor": "middle" }, svg, layer);
    make("text", { x: (W + left) / 2, y: H - 2, "text-anchor": "middle" }, svg, "hidden state after so many blocks");
    const lines = make("g", {}, svg);
    const cursor = make("line", { y1: top, y2: H - bottom, class: "cursor" }, svg);
    svg.addEventListener("pointermove", (event) => {
      const at = svg.getBoundingClientRect();
      const share = ((event.clientX - at.left) / at.width * W - left) / (W - left - 12);
      slider.value = Math.round(Math.min(1, Math.max(0, share)) * (data.layers - 1));
      read();
    });
    return { key, lines, cursor };
  });
  const curves = () => data.curves[probe.value] || {};
  const draw = () => {
    for (const { key, lines } of charts) {
      lines.replaceChildren();
      for (const [arm, splits] of Object.entries(curves())) {
        const points = (splits[key] || []).filter(([, value]) => value !== null);
        make("polyline", { points: points.map(([layer, value]) => `${x(layer)},${y(value)}`).join(" "), stroke: data.colours[arm], class: "curve" }, lines);
        for (const layer of (data.chosen[probe.value] || {})[arm] || []) {
          const hit = points.find(([at]) => at === layer);
          if (hit) make("circle", { cx: x(layer), cy: y(hit[1]), r: 4.5, fill: data.colours[arm] }, lines);
        }
      }
    }
    read();
  };
  const read = () => {
    const layer = Number(slider.value);
    reading.textContent = `layer ${layer}`;
    for (const { cursor } of charts) { cursor.setAttribute("x1", x(layer)); cursor.setAttribute("x2", x(layer)); }
    const body = table.tBodies[0];
    body.replaceChildren();
    for (const [arm, splits] of Object.entries(curves())) {
      const row = body.insertRow();
      const name = row.insertCell();
      const swatch = make("svg", { width: 12, height: 12, viewBox: "0 0 12 12", class: "swatch" }, name);
      make("circle", { cx: 6, cy: 6, r: 5, fill: data.colours[arm] }, swatch);
      name.append(` ${arm}`);
      for (const { key } of charts) {
        const hit = (splits[key] || []).find(([at]) => at === layer);
        row.insertCell().textContent = hit && hit[1] !== null ? hit[1].toFixed(3) : "–";
      }
    }
  };
  place.hidden = false;
  probe.addEventListener("input", draw);
  slider.addEventListener("input", read);
  slider.value = ((data.chosen[data.main] || {})["adapter+probe"] || [Math.floor(data.layers / 2)])[0];
  draw();
})();
