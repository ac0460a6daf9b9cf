
const data = JSON.parse(document.getElementById("data").textContent);
const depth = data.slices.length;
const [height, width] = data.size;
const [rowMm, columnMm] = data.spacing;
const byId = (id) => document.getElementById(id);
const isKept = (one) => one.state !== "dropped";
const showsLesion = (index) => Boolean(data.outlines?.[index]);
const state = { index: 0, window: 0, tokens: true, lines: true, heat: false, outline: true };
const layers = [["tokens", "Tokens"], ["lines", "Lines"], ["heat", "Heat map"], ["outline", "Lesion outline"]];

function html(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const picture = (text) => `data:image/webp;base64,${text}`;
const line = (x1, y1, x2, y2, kind) => svg("line", { x1, y1, x2, y2, class: kind });
const label = (x, y, text, kind = "", anchor = "start") => svg("text", { x, y, class: kind, "text-anchor": anchor }, text);

/* --- the strip of all slices --- */

function badge(index) {
  if (data.other) {
    const sides = (isKept(data.slices[index]) ? "A" : "") + (isKept(data.other[index]) ? "B" : "");
    if (sides) return sides;
  }
  return data.slices[index].state === "guard" ? "G" : "";
}

function buildStrip() {
  const buttons = data.slices.map((one, index) => {
    const button = html("button", {
      type: "button", role: "option", class: one.state, tabindex: "-1", title: `Slice ${index}: ${one.why}`,
      "aria-label": `Slice ${index}, ${one.why}`,
    });
    if (data.thumbs) {
      button.append(html("img", { alt: "", loading: "lazy", decoding: "async", src: picture(data.thumbs[index]) }));
    } else {
      button.append(html("span", { class: "blank" }));
    }
    const mark = badge(index);
    if (mark) button.append(html("span", { class: "badge" }, mark));
    button.append(html("span", showsLesion(index) ? { class: "lesion" } : {}, String(index)));
    button.addEventListener("click", () => show(index));
    return button;
  });
  byId("strip").append(...buttons);
  return buttons;
}

/* --- distances --- */

const plot = { left: 64, right: 70, top: 34, height: 150 };
const xOf = (index, inner) => plot.left + (depth < 2 ? inner / 2 : (index / (depth - 1)) * inner);

function step(span, most) {
  const raw = span / most;
  const power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 5, 10].map((one) => one * power).find((one) => one >= raw);
}

function drawDistances() {
  const place = byId("distances");
  const wide = Math.max(280, place.clientWidth);
  const inner = wide - plot.left - plot.right;
  const measured = data.distances !== null;
  const base = plot.top + (measured ? plot.height : 6);
  const read = data.other ? 2 : 1;
  const lanes = read + (data.outlines ? 1 : 0);
  const tall = base + 16 + lanes * 20 + 42;
  const chart = svg("svg", { viewBox: `0 0 ${wide} ${tall}`, role: "img", "aria-label": "Distance of each slice to its anchor" });
  if (measured) drawPoints(chart, base, inner, wide);
  const size = Math.max(1.5, Math.min(12, (inner / depth) * 0.7));
  [data.slices, data.other].filter(Boolean).forEach((slices, lane) => {
    const top = base + 14 + lane * 20;
    slices.forEach((one, index) => {
      const kept = isKept(one);
      chart.append(svg("rect", {
        x: xOf(index, inner) - size / 2, y: kept ? top : top + 5, width: size, height: kept ? 12 : 2, class: kept ? "lane" : "lane off",
      }));
    });
    chart.append(label(plot.left - 12, top + 11, data.other ? "AB"[lane] : "read", "dim", "end"));
  });
  if (data.outlines) {
    const top = base + 14 + read * 20;
    Object.keys(data.outlines).forEach((index) => {
      chart.append(svg("rect", { x: xOf(Number(index), inner) - size / 2, y: top, width: size, height: 12, class: "lane lesion" }));
    });
    chart.append(label(plot.left - 12, top + 11, "lesion", "dim", "end"));
  }
  const ticks = Math.max(1, step(Math.max(1, depth - 1), Math.max(2, inner / 90)));
  for (let index = 0; index < depth; index += ticks) chart.append(label(xOf(index, inner), tall - 22, String(index), "dim", "middle"));
  chart.append(label(plot.left + inner, tall - 2, "slice", "dim", "end"));
  if (data.gap) drawGap(chart, inner, wide);
  chart.append(svg("line", { id: "cursor", class: "cursor", y1: plot.top - 6, y2: base + 14 + lanes * 20 }));
  chart.addEventListener("click", (event) => {
    const x = event.clientX - chart.getBoundingClientRect().left;
    show(Math.round(((x - plot.left) / inner) * (depth - 1)));
  });
  place.replaceChildren(chart);
  moveCursor(inner);
}

function drawPoints(chart, base, inner, wide) {
  const values = data.distances.filter((one) => one !== null);
  const most = Math.max(...values, data.threshold ?? 0) * 1.12 || 1;
  const yOf = (value) => base - (value / most) * plot.height;
  const ticks = step(most, 4);
  for (let value = 0; value <= most; value += ticks) {
    chart.append(line(plot.left, yOf(value), plot.left + inner, yOf(value), "axis"));
    chart.append(label(plot.left - 12, yOf(value) + 5, Number(value.toPrecision(6)).toString(), "dim", "end"));
  }
  const radius = depth > 150 ? 2.5 : 4;
  data.distances.forEach((value, index) => {
    if (value === null) return;
    const x = xOf(index, inner);
    chart.append(line(x, base, x, yOf(value), "stem"));
    const kept = isKept(data.slices[index]) ? "dot on" : "dot";
    chart.append(data.slices[index].state === "guard"
      ? svg("rect", { x: x - 5, y: yOf(value) - 5, width: 10, height: 10, transform: `rotate(45 ${x} ${yOf(value)})`, class: kept })
      : svg("circle", { cx: x, cy: yOf(value), r: radius, class: kept }));
  });
  if (data.threshold !== null) {
    chart.append(line(plot.left, yOf(data.threshold), plot.left + inner, yOf(data.threshold), "limit"));
    chart.append(label(wide - plot.right + 8, yOf(data.threshold) + 5, `γ ${data.threshold}`));
  }
}

function drawGap(chart, inner, wide) {
  const [first, last, mm] = data.gap;
  const [from, to, y] = [xOf(first, inner), xOf(last, inner), 20];
  chart.append(svg("path", { class: "gap", d: `M${from} ${y + 8}V${y}H${to}V${y + 8}` }));
  const middle = Math.min(Math.max((from + to) / 2, 150), wide - 150);
  chart.append(label(middle, y - 6, `largest unread gap ${mm.toFixed(1)} mm`, "gap", "middle"));
}

function moveCursor(inner) {
  const cursor = byId("cursor");
  if (!cursor) return;
  const x = xOf(state.index, inner ?? byId("distances").clientWidth - plot.left - plot.right);
  cursor.setAttribute("x1", x);
  cursor.setAttribute("x2", x);
}

/* --- the chosen slice --- */

function buildFigures() {
  return data.runs.map((run, number) => {
    const image = html("img", { alt: "", draggable: "false" });
    const layer = svg("svg", { viewBox: `0 0 ${width * columnMm} ${height * rowMm}`, preserveAspectRatio: "none" });
    const frame = html("div", { class: "frame" }, image, layer);
    frame.style.aspectRatio = `${width * columnMm} / ${height * rowMm}`;
    frame.style.maxWidth = `min(100%, calc(78vh * ${(width * columnMm) / (height * rowMm)}))`;
    const caption = data.runs.length > 1 ? [html("figcaption", {}, number ? "B: the other run" : "A: this run")] : [];
    byId("figures").append(html("figure", {}, ...caption, frame));
    listen(frame, run, layer);
    return { image, layer, frame, run, number };
  });
}

function listen(frame, run, layer) {
  let start = null;
  frame.addEventListener("pointerdown", (event) => { start = event.clientX; });
  frame.addEventListener("pointerup", (event) => {
    if (start !== null && Math.abs(event.clientX - start) > 30) show(state.index + (event.clientX < start ? 1 : -1));
    start = null;
  });
  frame.addEventListener("pointercancel", () => { start = null; });
  frame.addEventListener("wheel", (event) => {
    event.preventDefault();
    show(state.index + Math.sign(event.deltaY));
  }, { passive: false });
  frame.addEventListener("pointermove", (event) => {
    const box = frame.getBoundingClientRect();
    describe(run, ((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height, layer);
  });
}

function geometry(run, tokens) {
  const [[top, bottom], [left, right]] = run.crop ?? [[0, height], [0, width]];
  const [rows, columns] = tokens.grid;
  const [high, wide] = [((bottom - top) / rows) * rowMm, ((right - left) / columns) * columnMm];
  const corner = (token) => [left * columnMm + (token % columns) * wide, top * rowMm + Math.floor(token / columns) * high];
  return { top, bottom, left, right, rows, columns, high, wide, corner };
}

const stroke = (d, color, thick, more = {}) =>
  svg("path", { d, fill: "none", stroke: color, "stroke-width": thick, "vector-effect": "non-scaling-stroke", ...more });

function boxes(place, chosen, inset = 0) {
  const [x0, y0] = [place.wide * inset, place.high * inset];
  return chosen.map((token) => {
    const [x, y] = place.corner(token);
    const [wide, high] = [place.wide - 2 * x0, place.high - 2 * y0];
    return `M${x + x0} ${y + y0}h${wide}v${high}h${-wide}z`;
  }).join("");
}

function drawTokens(layer, run, tokens) {
  const place = geometry(run, tokens);
  const of = (digit) => [...Array(tokens.state.length).keys()].filter((token) => tokens.state[token] === digit);
  const [other, contextual, selected] = ["0", "1", "2"].map(of);
  if (run.crop) {
    const [x, y] = [place.left * columnMm, place.top * rowMm];
    const [wide, high] = [(place.right - place.left) * columnMm, (place.bottom - place.top) * rowMm];
    layer.append(svg("path", {
      d: `M0 0H${width * columnMm}V${height * rowMm}H0zM${x} ${y}v${high}h${wide}v${-high}z`, fill: "#fff", "fill-opacity": 0.35,
    }));
  }
  if (state.heat && tokens.importance) drawHeat(layer, place, tokens);
  if (state.tokens) {
    if (!state.heat) {
      const size = Math.min(place.wide, place.high, (width * columnMm) / 40) / 2;
      const hatch = svg("pattern", { id: `hatch${run.number}`, width: size, height: size, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
        svg("rect", { width: size, height: size, fill: "#000", "fill-opacity": 0.42 }),
        svg("rect", { width: size / 8, height: size, fill: "#fff", "fill-opacity": 0.2 }));
      layer.append(svg("defs", {}, hatch), svg("path", { d: boxes(place, other), fill: `url(#hatch${run.number})` }));
    }
    layer.append(stroke(boxes(place, contextual, 0.06), "#000", 4), stroke(boxes(place, contextual, 0.06), "#6fd6ff", 2.5, { "stroke-dasharray": "6 4" }));
    layer.append(stroke(boxes(place, selected, 0.06), "#000", 5), stroke(boxes(place, selected, 0.06), "#ffd84d", 3));
  }
  if (state.lines) drawLines(layer, place, tokens, contextual);
}

function drawLines(layer, place, tokens, contextual) {
  const middle = (token) => {
    const [x, y] = place.corner(token);
    return [x + place.wide / 2, y + place.high / 2];
  };
  const path = (pairs) => pairs.map(([from, to]) => `M${middle(from).join(" ")}L${middle(to).join(" ")}`).join("");
  const opacity = Math.min(0.8, Math.max(0.15, 40 / tokens.into.length)); // many lines would hide the slice
  layer.append(stroke(path(tokens.into), "#6fd6ff", 1.2, { "stroke-opacity": opacity.toFixed(2) }));
  const own = svg("g");
  layer.append(own);
  layer.showGroup = (token) => {
    const pairs = tokens.into.filter(([from, to]) => to === token || (from === token && tokens.state[token] === "0"));
    own.replaceChildren(stroke(path(pairs), "#000", 4), stroke(path(pairs), "#6fd6ff", 2));
  };
  const radius = Math.min(place.wide / 9, place.high / 9, (width * columnMm) / 80);
  for (const token of contextual) {
    const [cx, cy] = middle(token);
    layer.append(svg("circle", { cx, cy, r: radius, fill: "#6fd6ff", stroke: "#000", "stroke-width": radius / 4 }));
  }
}

function drawHeat(layer, place, tokens) {
  const most = Math.max(...tokens.importance) || 1;
  tokens.importance.forEach((value, token) => {
    const [x, y] = place.corner(token);
    layer.append(svg("rect", { x, y, width: place.wide, height: place.high, fill: "#ff4d00", "fill-opacity": (0.6 * Math.sqrt(value / most)).toFixed(3) }));
  });
}

function drawSlice(figure) {
  const slices = figure.number ? data.other : data.slices;
  const one = slices[state.index];
  const own = data.pictures?.[state.index];
  if (own) figure.image.src = picture(own[Math.min(state.window, own.length - 1)]);
  else figure.image.removeAttribute("src");
  figure.image.alt = `Slice ${state.index}, ${one.why}`;
  figure.frame.className = `frame ${one.state}`;
  figure.frame.querySelector(".unread")?.remove();
  figure.layer.replaceChildren();
  figure.layer.showGroup = null;
  const tokens = figure.run.tokens[state.index];
  figure.run.number = figure.number;
  if (tokens) drawTokens(figure.layer, figure.run, tokens);
  else figure.frame.append(html("span", { class: "unread" }, "not read"));
  if (one.block) {
    const [top, bottom, left, right] = one.block;
    const d = `M${left * columnMm} ${top * rowMm}H${right * columnMm}V${bottom * rowMm}H${left * columnMm}z`;
    figure.layer.append(stroke(d, "#000", 5), stroke(d, "#fff", 2.5, { "stroke-dasharray": "2 4" }));
  }
  const edge = state.outline ? data.outlines?.[state.index] : null;
  if (edge) {
    const group = { transform: `scale(${columnMm} ${rowMm})` };
    figure.layer.append(svg("g", group, stroke(edge, "#000", 5), stroke(edge, "#ff6f9c", 2.5)));
  }
}

function describe(run, x, y, layer) {
  const tokens = run.tokens[state.index];
  if (!tokens) return;
  const place = geometry(run, tokens);
  const column = Math.floor(((x - place.left) / (place.right - place.left)) * place.columns);
  const row = Math.floor(((y - place.top) / (place.bottom - place.top)) * place.rows);
  const inside = row >= 0 && column >= 0 && row < place.rows && column < place.columns;
  const token = row * place.columns + column;
  const names = { 0: tokens.into.some(([from]) => from === token) ? "merged into another token" : "dropped", 1: "contextual", 2: "selected" };
  const score = inside && tokens.importance ? `, importance ${tokens.importance[token]}` : "";
  if (state.lines) layer.showGroup?.(inside ? token : -1);
  byId("token").textContent = inside ? `Token in row ${row}, column ${column}: ${names[tokens.state[token]]}${score}` : "";
}

/* --- counts and mass --- */

function counts(tokens) {
  const number = (digit) => tokens.state.split(digit).length - 1;
  const merged = tokens.into.length;
  return [["selected", number("2")], ["contextual", number("1")], ["merged into others", merged],
    ["dropped", number("0") - merged], ["all tokens of the slice", tokens.state.length]];
}

function showCounts() {
  const sides = data.runs.map((run) => run.tokens[state.index]);
  const table = html("table", {});
  if (sides.length > 1) table.append(html("tr", {}, html("th", {}, ""), html("td", {}, "A"), html("td", {}, "B")));
  const listed = sides.map((one) => (one ? counts(one) : null));
  const names = listed.find(Boolean);
  for (const [place, [name]] of (names ?? []).entries()) {
    table.append(html("tr", {}, html("th", { scope: "row" }, name), ...listed.map((one) => html("td", {}, one ? String(one[place][1]) : "–"))));
  }
  const [mine, theirs] = sides;
  if (mine && theirs && mine.state.length === theirs.state.length) {
    const only = (a, b) => [...a.state].filter((digit, token) => digit === "2" && b.state[token] !== "2").length;
    table.append(html("tr", {}, html("th", { scope: "row" }, "selected here alone"), html("td", {}, String(only(mine, theirs))), html("td", {}, String(only(theirs, mine)))));
  }
  byId("counts").replaceChildren(...(names ? [table] : []), html("p", { id: "token" }));
}

function drawMass() {
  const run = data.runs[0];
  const tokens = run.tokens[state.index];
  const place = byId("mass");
  byId("mass_note").textContent = tokens?.curve ? `${run.mass.note}${state.heat ? ` Heat map: clear is 0, full is ${Math.max(...tokens.importance)}; 1 is the mean.` : ""}` : "";
  if (!tokens?.curve) {
    place.replaceChildren(...(tokens ? [html("p", { class: "legend" }, "No scores: there is no curve of the mass.")] : []));
    return;
  }
  const [wide, tall, left, top, bottom] = [Math.max(240, place.clientWidth), 236, 46, 30, 44];
  const margin = 54;
  const most = tokens.curve[tokens.curve.length - 1][0];
  const [inner, high] = [wide - left - margin, tall - top - bottom];
  const [x, y] = [(count) => left + (count / most) * inner, (share) => top + (1 - share) * high];
  const chart = svg("svg", { viewBox: `0 0 ${wide} ${tall}`, role: "img", "aria-label": "Cumulative mass of the tokens" });
  for (const share of [0, 0.5, 1]) {
    chart.append(line(left, y(share), left + inner, y(share), "axis"), label(left - 8, y(share) + 5, String(share), "dim", "end"));
  }
  chart.append(label(0, 14, `cumulative ${run.mass.axis}`, "dim"));
  chart.append(svg("path", { class: "curve", d: `M${tokens.curve.map(([count, share]) => `${x(count)} ${y(share)}`).join("L")}` }));
  if (run.mass.tau !== null) {
    chart.append(line(left, y(run.mass.tau), left + inner, y(run.mass.tau), "limit"));
    chart.append(label(left + inner + 6, y(run.mass.tau) + 5, `τ ${run.mass.tau}`));
  }
  const at = x(tokens.chosen);
  chart.append(line(at, top, at, top + high, "limit"));
  const right = at > left + inner * 0.6;
  const low = run.mass.tau === null || run.mass.tau > 0.3;
  chart.append(label(at + (right ? -7 : 7), y(low ? 0.08 : 0.4) + 5, `${tokens.chosen} selected`, "", right ? "end" : "start"));
  for (const [count, anchor] of [[0, "start"], [most, "end"]]) chart.append(label(x(count), tall - 24, String(count), "dim", anchor));
  chart.append(label(left + inner, tall - 4, "tokens, highest first", "dim", "end"));
  place.replaceChildren(chart);
}

/* --- choosing --- */

function show(index) {
  buttons[state.index].setAttribute("aria-selected", "false");
  state.index = Math.min(Math.max(index, 0), depth - 1);
  const chosen = buttons[state.index];
  chosen.setAttribute("aria-selected", "true");
  const strip = byId("strip");
  strip.scrollLeft = chosen.offsetLeft - strip.offsetLeft - strip.clientWidth / 2 + chosen.offsetWidth / 2;
  byId("slider").value = state.index;
  const mm = data.positions ? `, ${data.positions[state.index].toFixed(1).replace("-", "\u2212")} mm` : "";
  byId("number").textContent = `${state.index} (0 to ${depth - 1})${mm}`;
  const theirs = data.other ? ` Other run: ${data.other[state.index].why}.` : "";
  byId("why").textContent = `Slice ${state.index}, ${data.slices[state.index].why}.${theirs}${showsLesion(state.index) ? " It shows the lesion." : ""}`;
  figures.forEach(drawSlice);
  showCounts();
  drawMass();
  moveCursor();
}

function nearestKept(direction) {
  for (let index = state.index + direction; index >= 0 && index < depth; index += direction) {
    if (isKept(data.slices[index])) return index;
  }
  return state.index;
}

function choose(group, buttonsOfGroup, pressed) {
  buttonsOfGroup.forEach((one, place) => one.setAttribute("aria-pressed", String(pressed(place))));
}

function buildChoices() {
  const windows = data.windows.map((name, place) => {
    const button = html("button", { type: "button" }, name);
    button.addEventListener("click", () => { chooseWindow(place); });
    return button;
  });
  byId("windows").append(...windows);
  const offered = layers.filter(([name]) => name !== "outline" || data.outlines);
  const toggles = offered.map(([name, text]) => {
    const button = html("button", { type: "button", "data-layer": name }, text);
    button.addEventListener("click", () => { toggle(name); });
    return button;
  });
  byId("layers").append(...toggles);
  return { windows, toggles, offered };
}

function chooseWindow(place) {
  if (place >= choices.windows.length) return;
  state.window = place;
  refresh();
}

function toggle(name) {
  state[name] = !state[name];
  refresh();
}

function refresh() {
  choose("windows", choices.windows, (place) => place === state.window);
  choose("layers", choices.toggles, (place) => state[choices.offered[place][0]]);
  show(state.index);
}

const keys = {
  ArrowLeft: () => show(state.index - 1), ArrowRight: () => show(state.index + 1),
  PageUp: () => show(nearestKept(-1)), PageDown: () => show(nearestKept(1)),
  Home: () => show(0), End: () => show(depth - 1),
  1: () => chooseWindow(0), 2: () => chooseWindow(1), 3: () => chooseWindow(2),
  t: () => toggle("tokens"), l: () => toggle("lines"), h: () => toggle("heat"), o: () => toggle("outline"),
};

function compareSlices() {
  if (!data.other) return;
  const only = (a, b) => a.map((one, index) => index).filter((index) => isKept(a[index]) && !isKept(b[index]));
  const links = (list) => (list.length ? list.flatMap((index) => {
    const button = html("button", { type: "button" }, String(index));
    button.addEventListener("click", () => show(index));
    return [button, " "];
  }) : ["none "]);
  byId("compared").append("Slices kept here alone: ", ...links(only(data.slices, data.other)),
    html("br"), "Slices kept in the other run alone: ", ...links(only(data.other, data.slices)));
}

function first() {
  const marked = Object.keys(data.outlines ?? {}).map(Number);
  const read = marked.filter((index) => !["dropped", "left"].includes(data.slices[index].state));
  const shown = read.length ? read : marked;
  if (shown.length) return shown[Math.floor(shown.length / 2)];
  const kept = data.slices.map((one, index) => index).filter((index) => isKept(data.slices[index]));
  return kept[Math.floor(kept.length / 2)];
}

const buttons = buildStrip();
const figures = buildFigures();
const choices = buildChoices();
state.index = first();
byId("slider").addEventListener("input", (event) => show(Number(event.target.value)));
byId("previous").addEventListener("click", () => show(state.index - 1));
byId("next").addEventListener("click", () => show(state.index + 1));
document.addEventListener("keydown", (event) => {
  const action = keys[event.key];
  if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.type === "range" && (event.key.startsWith("Arrow") || event.key === "Home" || event.key === "End")) return;
  event.preventDefault();
  action();
});
byId("distance_note").textContent = data.distances
  ? "Distance of each slice to its anchor, the last kept slice before it. Filled: kept. Open: dropped. Diamond: kept by the guard."
  : "No distances: the rule for slices measures none.";
compareSlices();
drawDistances();
refresh();
new ResizeObserver(() => { drawDistances(); drawMass(); }).observe(byId("distances"));
document.documentElement.dataset.ready = Math.round(performance.now());
