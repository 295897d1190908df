"use strict";
// The page's script: tables, the card with its diagram, and the figures, which plotly draws.
// Text from records goes in by textContent, or escaped where plotly reads markup.

const $ = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

// -- tables --------------------------------------------------------------------------------------

const ROWS = 200; // shown at once: a browser lays out every visible row

for (const block of document.querySelectorAll(".table")) {
  const body = block.querySelector("tbody"), heads = [...block.querySelectorAll("th")];
  const head = block.querySelector(".bar-head"), search = block.querySelector("input");
  const count = block.querySelector(".count"), all = block.querySelector(".all");
  let rows = [...body.rows], limit = ROWS;
  const texts = new Map();
  const text = row => {
    if (!texts.has(row)) texts.set(row, [...row.cells].map(cell => cell.textContent).join(" ").toLowerCase());
    return texts.get(row);
  };
  const key = (row, at) => row.cells[at].dataset.sort ?? row.cells[at].textContent;
  const matching = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    return rows.filter(row => words.every(word => text(row).includes(word)));
  };
  const show = () => {
    const kept = matching();
    body.replaceChildren(...kept.slice(0, limit));
    const shown = Math.min(limit, kept.length);
    const of = kept.length < rows.length ? `${kept.length} of ${rows.length} rows` : `${rows.length} row${rows.length === 1 ? "" : "s"}`;
    count.textContent = shown < kept.length ? `${of}, the first ${shown} shown` : of;
    all.hidden = shown === kept.length;
    edge();
  };
  const box = block.querySelector(".scroll"), sideways = block.querySelector(".sideways");
  const edge = () => { // say where columns lie beyond the right edge: not every browser shows a bar
    const hidden = box.scrollWidth - box.clientWidth - box.scrollLeft > 4;
    block.classList.toggle("more", hidden);
    sideways.hidden = !hidden;
  };
  sideways.addEventListener("click", () => box.scrollBy({left: 0.7 * box.clientWidth, behavior: "smooth"}));
  box.addEventListener("scroll", edge);
  new ResizeObserver(edge).observe(box);
  const sort = at => {
    const up = heads[at].getAttribute("aria-sort") !== "ascending";
    for (const other of heads) other.removeAttribute("aria-sort");
    heads[at].setAttribute("aria-sort", up ? "ascending" : "descending");
    const numeric = heads[at].classList.contains("n");
    const order = (a, b) => (numeric ? a - b : a.localeCompare(b));
    rows.sort((a, b) => {
      const x = key(a, at), y = key(b, at);
      if (x === "" || y === "") return (x === "") - (y === "");
      return up ? order(x, y) : order(y, x);
    });
    show();
  };
  const field = value => (/[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const csv = () => {
    const lines = [heads.map(cell => cell.textContent), ...matching().map(row =>
      heads.map((cell, at) => (cell.classList.contains("n") ? key(row, at) : row.cells[at].textContent)))];
    return lines.map(line => line.map(field).join(",")).join("\n") + "\n";
  };
  heads.forEach((cell, at) => cell.firstElementChild.addEventListener("click", () => sort(at)));
  search.addEventListener("input", () => { limit = ROWS; show(); });
  all.addEventListener("click", () => { limit = Infinity; show(); });
  block.querySelector(".csv").addEventListener("click", () => save(`${block.dataset.name}.csv`, csv(), "text/csv"));
  head.hidden = false;
  search.hidden = rows.length < 8;
  show();
}

function save(name, content, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], {type}));
  link.download = name.replace(/[^\w.-]+/g, "-");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// -- what is packed into the page ----------------------------------------------------------------

async function unpacked(id) {
  const bytes = Uint8Array.from(atob($(id).textContent), letter => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

const escaped = text => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

const wrapped = text => escaped(text).replace(/(.{38,}?[,;)]) /g, "$1<br>");

function figure(objective, value) {
  if (value === null || value === undefined) return "–";
  const {decimals, maximise} = data.objectives[objective];
  const digits = !maximise && value > 0 && value < 1 ? Math.max(decimals, 2 - Math.floor(Math.log10(value))) : decimals;
  return value.toLocaleString("en", {minimumFractionDigits: digits, maximumFractionDigits: digits});
}

// -- the card ------------------------------------------------------------------------------------

let data, place; // the records, and where each trial's number stands in their columns

function element(name, text, attributes) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes ?? {})) made.setAttribute(key, value);
  return made;
}

function openCard(number) {
  const at = place.get(number), card = $("card"), trials = data.trials;
  if (at === undefined || card === null) return;
  const presets = Object.keys(data.presets).filter(name => data.presets[name] === number);
  const title = element("h3", presets.length ? presets.join(" = ") : trials.state[at].toLowerCase());
  title.append(element("span", `trial ${number}`));
  const list = element("dl");
  for (const [name, {label}] of Object.entries(data.objectives)) {
    const value = trials.values[name][at];
    if (value === null) continue;
    let text = figure(name, value);
    if (name === "latency_ms" && trials.latency[at]) text += ` (${trials.latency[at].map(end => figure(name, end)).join("–")})`;
    list.append(element("dt", label), element("dd", text));
    if (name === trials.certain_of) list.append(...certainty(at));
    if (name !== "psnr_db" || !trials.photographs[at]) continue;
    list.append(element("dt", "over photographs"), element("dd", trials.photographs[at].map(end => figure(name, end)).join("–")));
  }
  const steps = trials.steps[at];
  if (steps.length) list.append(element("dt", "training steps"), element("dd", steps[steps.length - 1].toLocaleString("en")));
  const keep = element("button", "Download configuration", {type: "button", class: "plain"});
  keep.addEventListener("click", () =>
    save(`${data.run}-${number}.json`, JSON.stringify(trials.config[at], null, 2) + "\n", "application/json"));
  const notes = [trials.reason[at], trials.doubt[at]].filter(Boolean).map(text => element("p", text, {class: "muted"}));
  card.replaceChildren(title, ...notes, list, diagram(trials.config[at]), element("p", trials.words[at], {class: "network"}),
    ...neighbourhood(number), keep);
  card.classList.toggle("balanced", presets.includes("balanced"));
  card.dataset.trial = number;
  if ($("front-plot").data) mark(number);
}

/** Return what is known of a candidate's quality beyond one figure, as terms of the card's list. */
function certainty(at) {
  const {trials} = data, rows = [];
  if (trials.mean[at] !== null) rows.push(["mean over seeds", figure(trials.certain_of, trials.mean[at])]);
  if (trials.interval_words[at]) rows.push(trials.interval_words[at]);
  if (trials.on_front[at] !== null) rows.push(["on the front", `${Math.round(100 * trials.on_front[at])} %`]);
  return rows.flatMap(([term, text]) => [element("dt", term), element("dd", text)]);
}

const NEAR = 6; // neighbours shown at once

/** Return what was evaluated one change away from a member of the front; nothing for other candidates. */
function neighbourhood(number) {
  const found = data.neighbours[number];
  if (!found) return [];
  const block = element("div", undefined, {class: "near"}), list = element("ul");
  block.append(element("h4", "One change away"));
  if (!found.length) {
    block.append(element("p", "Nothing that differs in one dimension was evaluated.", {class: "muted"}));
    return [block];
  }
  const add = part => list.append(...part.map(neighbourLine));
  add(found.slice(0, NEAR));
  block.append(list);
  if (found.length > NEAR) {
    const more = element("button", `Show all ${found.length}`, {type: "button", class: "plain"});
    more.addEventListener("click", () => { add(found.slice(NEAR)); more.remove(); });
    block.append(more);
  }
  return [block];
}

function neighbourLine(near) {
  const line = element("li");
  line.append(`${near.dimension} ${near.here} → ${near.there}: `);
  line.append(place.has(near.number) ? element("button", `trial ${near.number}`, {type: "button", class: "open", "data-trial": near.number})
    : `trial ${near.number}`);
  const parts = [["psnr_db", "dB"], ["latency_ms", "ms"], ["macs_g", "G MACs"]].filter(([name]) => near[name] !== null).map(([name, unit]) => {
    const unclear = name === "psnr_db" && near.interval && !near.clear ? "≈ " : "";
    const interval = name === "psnr_db" && near.interval ? ` (${near.interval.map(end => signed(name, end)).join(" to ")})` : "";
    return `${unclear}${signed(name, near[name])} ${unit}${interval}`;
  });
  const trained = near.step === null ? "never trained" : near.full ? "" : `compared after ${near.step.toLocaleString("en")} steps`;
  const state = near.state === "COMPLETE" ? "" : near.state.toLowerCase();
  line.append(element("small", [parts.join(", "), state, trained].filter(Boolean).join("; ")));
  return line;
}

const signed = (name, value) => (value < 0 ? "−" : "+") + figure(name, Math.abs(value));

document.addEventListener("click", event => {
  const button = event.target.closest("[data-trial]");
  if (!button || button.id === "card" || !data) return;
  openCard(Number(button.dataset.trial));
  $("card")?.scrollIntoView({block: "center", behavior: "smooth"});
});

// -- the diagram of a network: encoder down the left, decoder up the right --------------------------

function diagram(config) {
  const wide = 134, tall = 50, gap = 24, right = 226, levels = config.encoder_blocks.length;
  const root = document.createElementNS(SVG, "svg");
  const draw = (name, attributes, text) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    root.append(made);
  };
  const row = number => 26 + number * (tall + gap);
  const box = (x, y, lines, special, width = wide) => {
    draw("rect", {x, y, width, height: tall, rx: 5, class: special ? "special" : ""});
    const top = y + tall / 2 - (lines.length - 1) * 6.5 + 3.5;
    lines.forEach((line, at) => draw("text", {x: x + width / 2, y: top + 13 * at, class: at ? "small" : ""}, line));
  };
  const arrow = (points, dashed) => {
    draw("path", {d: "M" + points.map(point => point.join(" ")).join("L"), class: dashed ? "dashed" : ""});
    const [[x0, y0], [x, y]] = points.slice(-2);
    const turn = Math.atan2(y - y0, x - x0) * 180 / Math.PI;
    draw("path", {d: "M0 0L-6 -3.5L-6 3.5Z", class: "tip", transform: `translate(${x} ${y}) rotate(${turn})`});
  };
  const side = config.mixer.kernel_size;
  const mixer = {naf: "NAF", dense: "dense 3×3", large_kernel: `${side}×${side}`}[config.mixer.kind];
  const parts = stage => {
    const {attention, experts} = config, found = [];
    if (attention?.stages.includes(stage)) found.push(`${attention.kind} attention`);
    if (experts?.stages.includes(stage)) found.push(`${experts.num_experts} experts`);
    return found;
  };
  const stage = (x, y, name, blocks, channels) => {
    const special = parts(name), work = blocks ? `${blocks} × ${mixer}` : "no blocks";
    box(x, y, [`${name}, ${channels} channels`, work, ...(special.length ? [special.join(", ")] : [])], special.length > 0);
  };
  const middle = 180, deepest = row(levels + 1), across = row(0) + tall / 2;
  box(0, row(0), ["stem", ...(config.frequency_split ? ["frequency split"] : [])], false);
  box(right, row(0), config.upscale > 1 ? [`head ×${config.upscale}`, config.upsampler] : ["head"], false);
  arrow([[wide / 2, 10], [wide / 2, row(0)]]);
  arrow([[wide / 2, 10], [right + wide / 2, 10], [right + wide / 2, row(0)]], true);
  draw("text", {x: middle, y: 7, class: "small"}, config.upscale > 1 ? `bicubic ×${config.upscale}` : "the input itself");
  if (config.refiner) {
    arrow([[wide, across], [148, across]]);
    box(148, row(0), [`${config.refiner.kind} × ${config.refiner.depth}`, "detail"], true, 64);
    arrow([[212, across], [right, across]]);
  }
  config.encoder_blocks.forEach((blocks, at) => {
    const y = row(at + 1), channels = config.width * 2 ** at;
    stage(0, y, `enc${at + 1}`, blocks, channels);
    stage(right, y, `dec${at + 1}`, config.decoder_blocks[levels - 1 - at], channels);
    arrow([[wide / 2, y - gap], [wide / 2, y]]);
    arrow([[right + wide / 2, y], [right + wide / 2, y - gap]]);
    arrow([[wide, y + tall / 2], [right, y + tall / 2]], true);
    draw("text", {x: middle, y: y + tall / 2 - 4, class: "small"}, `${config.skip ?? "gated"} skip`);
  });
  stage(middle - wide / 2, deepest, "mid", config.bottleneck_blocks, config.width * 2 ** (levels - 1));
  arrow([[wide / 2, deepest - gap], [wide / 2, deepest + tall / 2], [middle - wide / 2, deepest + tall / 2]]);
  arrow([[middle + wide / 2, deepest + tall / 2], [right + wide / 2, deepest + tall / 2], [right + wide / 2, deepest - gap]]);
  root.setAttribute("viewBox", `-1 -4 362 ${deepest + tall + 6}`);
  root.setAttribute("class", "diagram");
  root.setAttribute("role", "img");
  root.setAttribute("aria-label", "Diagram of the network");
  return root;
}

// -- figures -------------------------------------------------------------------------------------

const colours = () => {
  const style = getComputedStyle(document.documentElement);
  const names = ["paper", "ink", "muted", "line", "front", "knee", "good", "dominated", "stopped", "reference"];
  return Object.fromEntries(names.map(name => [name, style.getPropertyValue(`--${name}`).trim()]));
};

const axis = (hue, title, more) => ({
  title: {text: title, standoff: 8}, gridcolor: hue.line, linecolor: hue.line, zeroline: false, automargin: true, ...more,
});

const layout = (hue, more) => ({
  paper_bgcolor: hue.paper, plot_bgcolor: hue.paper, font: {color: hue.ink, family: getComputedStyle(document.body).fontFamily, size: 12},
  margin: {l: 50, r: 14, t: 14, b: 44}, hovermode: "closest", showlegend: false,
  hoverlabel: {bgcolor: hue.paper, bordercolor: hue.muted, font: {color: hue.ink}, align: "left"},
  dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom", ...more,
});

const settings = {
  responsive: true, displaylogo: false, plotGlPixelRatio: 1, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
};

const draw = (id, traces, plan) => Plotly.react(id, traces, plan, settings);

/** Return an axis of an objective; a cost's is logarithmic, with round numbers written as people do. */
function objectiveAxis(hue, name, places, others, range) {
  const {label, maximise} = data.objectives[name];
  if (maximise) return axis(hue, label, range ? {range: [...range]} : {});
  const known = [...places.map(at => data.trials.values[name][at]), ...others.map(other => other.values[name])], low = Math.min(...known), high = Math.max(...known);
  const span = Math.log10(high / low);
  const ladder = span < 0.6 ? [1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9] : span < 1.6 ? [1, 2, 3, 5, 7] : span < 3 ? [1, 2, 5] : [1];
  const ticks = [];
  for (let decade = Math.floor(Math.log10(low)) - 1; decade <= Math.ceil(Math.log10(high)) + 1; decade++) {
    ticks.push(...ladder.map(step => Number((step * 10 ** decade).toPrecision(3))));
  }
  return axis(hue, label, {type: "log", tickvals: ticks, ticktext: ticks.map(tick => tick.toLocaleString("en", {maximumSignificantDigits: 3}))});
}

const logarithmic = name => !data.objectives[name].maximise;

/** Return those of some trials that no other of them beats in two objectives, sorted by the first. */
function undominated(places, x, y) {
  const better = (name, a, b) => (data.objectives[name].maximise ? a > b : a < b);
  const value = (name, at) => data.trials.values[name][at];
  const order = [...places].sort((a, b) => {
    if (value(x, a) !== value(x, b)) return better(x, value(x, a), value(x, b)) ? -1 : 1;
    return better(y, value(y, a), value(y, b)) ? -1 : 1;
  });
  const kept = [];
  for (const at of order) {
    if (!kept.length || better(y, value(y, at), value(y, kept[kept.length - 1]))) kept.push(at);
  }
  return kept;
}

/** Return both ends of the interval that is drawn at a candidate's figure; null where there is none. */
function endsOf(name, at) {
  const {trials} = data, bars = trials[$("front-bars")?.value];
  return (name === "latency_ms" ? trials.latency[at] : name === trials.certain_of ? bars?.[at] : null) ?? null;
}

/** Return the same of a reference. */
function referenceEnds(name, other) {
  const shown = $("front-bars")?.value === "interval" && name === data.trials.certain_of;
  return (name === "latency_ms" ? other.latency : shown ? other.interval : null) ?? null;
}

/** Return a figure with its interval as one line of a hover text. */
function hoverLine(name, value, latency, words) {
  const interval = name === "latency_ms" && latency ? ` (${latency.map(end => figure(name, end)).join("–")})`
    : name === data.trials.certain_of && words ? ` (${words.join(" ")})` : "";
  return `${escaped(data.objectives[name].label)} ${figure(name, value)}${interval}`;
}

function hover(at, names) {
  const {trials} = data;
  const figures = names.map(name => hoverLine(name, trials.values[name][at], trials.latency[at], trials.interval_words[at]));
  return `<b>trial ${trials.number[at]}</b>, ${trials.state[at].toLowerCase()}<br>${figures.join("<br>")}<br>${wrapped(trials.words[at])}`;
}

const referenceLabel = hidden => (hidden.length ? `references (below the axis: ${escaped(hidden.map(other => other.name).join(", "))})` : "references");

function referenceHover(other, names) {
  const figures = names.map(name => hoverLine(name, other.values[name], other.latency, other.interval_words));
  return `<b>${escaped(other.name)}</b>, a reference<br>${figures.join("<br>")}<br>${wrapped(other.words)}<br>${wrapped(other.standing)}`;
}

/** Return the range of a quality's axis, fitted to the front and its intervals, and to others that are not far below. */
function fitted(name, front, others) {
  const core = front.flatMap(at => [data.trials.values[name][at], ...(endsOf(name, at) ?? [])]);
  if (!core.length) return undefined;
  const least = Math.min(...core), reach = Math.max(...core) - least;
  const floor = least - Math.max(data.fit.share * reach, data.fit.margin[name] ?? 0);
  const known = [...core, ...others.filter(value => value >= floor)], low = Math.min(...known), high = Math.max(...known);
  const extent = high - low || data.fit.margin[name];
  return [low - 0.06 * extent, high + 0.08 * extent];
}

let clickable = false;

function drawFront() {
  const hue = colours(), x = $("front-x").value, y = $("front-y").value, {trials} = data;
  const names = [...new Set([y, x, ...data.searched])].filter(name => data.objectives[name]);
  const known = trials.number.map((_, at) => at).filter(at => trials.values[x][at] !== null && trials.values[y][at] !== null);
  const members = new Set(data.front), knee = data.presets.balanced;
  const complete = known.filter(at => trials.state[at] === "COMPLETE");
  const front = complete.filter(at => members.has(trials.number[at]));
  const line = undominated(front, x, y), on = new Set(line);
  const trace = (name, places, marker, more) => ({
    type: "scatter", mode: "markers", name, x: places.map(at => trials.values[x][at]), y: places.map(at => trials.values[y][at]),
    customdata: places.map(at => trials.number[at]), text: places.map(at => hover(at, names)), hovertemplate: "%{text}<extra></extra>",
    marker, ...more,
  });
  const bars = (values, ends, color) => !ends.some(Boolean) ? undefined : {
    type: "data", symmetric: false, thickness: 1, width: 2, color,
    array: values.map((value, at) => (ends[at]?.[1] ?? value) - value),
    arrayminus: values.map((value, at) => value - (ends[at]?.[0] ?? value)),
  };
  const interval = (name, places) => bars(places.map(at => trials.values[name][at]), places.map(at => endsOf(name, at)), hue.front);
  const stopped = $("front-stopped").checked ? known.filter(at => trials.state[at] === "STOPPED") : [];
  const beaten = complete.filter(at => !members.has(trials.number[at]));
  const references = data.references.filter(other => other.values[x] !== null && other.values[y] !== null);
  const range = Object.fromEntries([x, y].filter(name => data.objectives[name].maximise).map(name => {
    const others = [...beaten, ...stopped].map(at => trials.values[name][at]), baseline = data.baseline.values[name];
    return [name, fitted(name, front, [...others, ...references.map(other => other.values[name]), ...(baseline === undefined ? [] : [baseline])])];
  }));
  const below = references.filter(other => Object.entries(range).some(([name, ends]) => ends && other.values[name] < ends[0]));
  const referenceBars = name => bars(references.map(other => other.values[name]), references.map(other => referenceEnds(name, other)), hue.reference);
  const others = front.filter(at => !on.has(at)), knees = front.filter(at => trials.number[at] === knee);
  const corners = line.map(at => [trials.values[x][at], trials.values[y][at]]);
  draw("front-plot", [
    trace("stopped early", stopped, {color: hue.stopped, size: 7, symbol: "triangle-down"}),
    trace("complete, beaten", beaten, {color: hue.dominated, size: 7}),
    {type: "scatter", mode: "lines", x: corners.map(c => c[0]), y: corners.map(c => c[1]), hoverinfo: "skip", showlegend: false,
      line: {color: hue.front, width: 1.5, shape: data.objectives[x].maximise ? "vh" : "hv"}},
    trace("front, by another figure", others, {color: hue.paper, size: 9, line: {color: hue.front, width: 1.5}},
      {error_x: interval(x, others), error_y: interval(y, others)}),
    trace("front", line, {color: hue.front, size: 11, line: {color: hue.paper, width: 1}},
      {error_x: interval(x, line), error_y: interval(y, line)}),
    trace("knee (balanced)", knees, {color: hue.knee, size: 13, symbol: "diamond", line: {color: hue.paper, width: 1}}),
    ...(references.length ? [{
      type: "scatter", mode: "markers+text", name: referenceLabel(below), error_x: referenceBars(x), error_y: referenceBars(y), x: references.map(other => other.values[x]),
      y: references.map(other => other.values[y]), text: references.map(other => escaped(other.name)), textposition: "top center",
      textfont: {color: hue.reference, size: 11}, hovertext: references.map(other => referenceHover(other, names)), hoverinfo: "text",
      marker: {color: hue.reference, size: 10, symbol: "x"},
    }] : []),
    {type: "scatter", mode: "markers", x: [], y: [], hoverinfo: "skip", showlegend: false,
      marker: {symbol: "circle-open", size: 22, color: hue.ink, line: {width: 1.5}}},
  ], layout(hue, {
    xaxis: objectiveAxis(hue, x, known, references, range[x]),
    yaxis: objectiveAxis(hue, y, known, references, range[y]),
    showlegend: true, legend: {orientation: "h", y: -0.16, yanchor: "top", x: 0}, margin: {l: 50, r: 14, t: 22, b: 50},
    ...bounds(hue, x, y, range), uirevision: [x, y, $("front-bars")?.value].join(),
  }));
  mark(Number($("card").dataset.trial));
  if (!clickable) $("front-plot").on("plotly_click", event => openCard(event.points[0].customdata));
  clickable = true;
}

/** Return the lines of what doing nothing scores, and of the budget's limits near the points. */
function bounds(hue, x, y, range) {
  const shapes = [], annotations = [];
  const add = (across, value, text, colour, dash, scale) => {
    const line = {color: colour, width: 1.3, dash};
    shapes.push(across ? {type: "line", xref: "paper", x0: 0, x1: 1, y0: value, y1: value, line, layer: "below"}
      : {type: "line", yref: "paper", y0: 0, y1: 1, x0: value, x1: value, line, layer: "below"});
    const spot = scale ? Math.log10(value) : value;
    annotations.push({text, showarrow: false, font: {color: colour, size: 11}, ...(across
      ? {xref: "paper", x: 1, xanchor: "right", y: spot, yanchor: "bottom"}
      : {yref: "paper", y: 0.98, yanchor: "top", x: spot, xanchor: "right", xshift: -3})});
  };
  for (const [across, name] of [[false, x], [true, y]]) {
    const baseline = data.baseline.values[name], limit = data.limits[name];
    const text = `${data.baseline.name} ${figure(name, baseline)}`;
    if (baseline !== undefined) add(across, baseline, text, hue.good, "dash", false);
    if (baseline < range[name]?.[0]) annotations.push({text: `${across ? "↓" : "←"} ${text}`, showarrow: false, font: {color: hue.good, size: 11},
      xref: "paper", yref: "paper", x: across ? 1 : 0, xanchor: across ? "right" : "left", y: 0, yanchor: "bottom"});
    const reach = Math.max(...data.trials.values[name].filter((value, at) => value !== null && data.trials.state[at] === "COMPLETE"));
    if (limit !== undefined && limit < 3 * reach) add(across, limit, `limit ${limit}`, hue.muted, "dot", logarithmic(name));
  }
  return {shapes, annotations};
}

/** Put a ring around a candidate. */
function mark(number) {
  const at = place.get(number), x = data.trials.values[$("front-x").value], y = data.trials.values[$("front-y").value];
  const known = at !== undefined && x[at] !== null && y[at] !== null;
  const traces = $("front-plot").data.length;
  Plotly.restyle("front-plot", {x: [known ? [x[at]] : []], y: [known ? [y[at]] : []]}, [traces - 1]);
}

function drawVolume(id, x, title) {
  const hue = colours(), {share, number} = data.volume;
  draw(id, [{
    type: "scatter", mode: "lines", x: [0, ...x], y: [0, ...share], line: {color: hue.front, width: 2, shape: "hv"},
    text: ["", ...number.map(n => `trial ${n}`)], hovertemplate: "%{text}: %{y:.1%}<extra></extra>",
  }], layout(hue, {
    xaxis: axis(hue, title, {rangemode: "tozero"}),
    yaxis: axis(hue, "share of the dominated volume", {tickformat: ".0%", range: [0, 1.05]}),
  }));
}

function drawSeconds() {
  const {seconds} = data.volume, last = seconds[seconds.length - 1] ?? 0;
  const [unit, scale] = last > 7200 ? ["hours", 3600] : last > 300 ? ["minutes", 60] : ["seconds", 1];
  drawVolume("volume-seconds", seconds.map(value => value / scale), `training (${unit})`);
}

function drawRungs() {
  const hue = colours(), {trials, quality} = data, members = new Set(data.front);
  const lines = wanted => {
    const x = [], y = [], text = [], numbers = [];
    trials.number.forEach((number, at) => {
      if (!trials.steps[at].length || members.has(number) !== wanted) return;
      x.push(...trials.steps[at], null);
      y.push(...trials.rungs[quality][at], null);
      text.push(...trials.steps[at].map(() => `trial ${number}`), "");
      numbers.push(...trials.steps[at].map(() => number), null);
    });
    return {x, y, text, customdata: numbers, type: "scatter", mode: "lines+markers", hovertemplate: "%{text}: %{y}<extra></extra>"};
  };
  const values = trials.rungs[quality].flat().sort((a, b) => a - b), middle = values[values.length >> 1], top = values[values.length - 1];
  const baseline = data.baseline.values[quality];
  const low = Math.max(Math.min(values[0], baseline ?? Infinity), middle - 3 * (top - middle) - 0.1), room = 0.06 * (top - low) || 0.1;
  const steps = [...new Set(trials.steps.flat())].sort((a, b) => a - b);
  draw("rungs", [
    {...lines(false), name: "other candidates", line: {color: hue.stopped, width: 0.8}, marker: {size: 3}},
    {...lines(true), name: "on the front", line: {color: hue.front, width: 1.6}, marker: {size: 5}},
  ], layout(hue, {
    xaxis: axis(hue, "training steps", {type: "log", tickvals: steps, ticktext: steps.map(step => step.toLocaleString("en"))}),
    yaxis: axis(hue, data.objectives[quality].label, {range: [low - room, top + room]}),
    showlegend: true, legend: {orientation: "h", y: -0.2, yanchor: "top", x: 0},
    shapes: baseline === undefined ? [] : [{type: "line", xref: "paper", x0: 0, x1: 1, y0: baseline, y1: baseline, line: {color: hue.good, width: 1.3, dash: "dash"}}],
    annotations: baseline === undefined ? [] : [{text: `${data.baseline.name} ${figure(quality, baseline)}`, xref: "paper", x: 1, xanchor: "right", y: baseline, yanchor: "bottom", showarrow: false, font: {color: hue.good, size: 11}}],
  }));
}

function drawParallel() {
  const hue = colours(), {number, dimensions} = data.parallel, {trials, quality} = data;
  const value = name => number.map(n => trials.values[name][place.get(n)]);
  const figures = [quality, ...data.costs].filter(name => data.objectives[name]);
  const spread = n => 0.3 * ((n * 0.618) % 1 - 0.5); // lines through one value lie side by side
  const range = name => {
    const known = value(name).filter(v => v !== null).sort((a, b) => a - b);
    const low = data.objectives[name].maximise ? known[Math.floor(known.length / 50)] : known[0];
    return [low, known[known.length - 1]];
  };
  const costs = figures.map(name => {
    const [low, high] = range(name), {label, maximise, decimals} = data.objectives[name];
    if (maximise) {
      const ticks = [0, 0.25, 0.5, 0.75, 1].map(share => low + (high - low) * share);
      return {label, values: value(name), range: [low, high], tickvals: ticks, ticktext: ticks.map(v => v.toFixed(decimals))};
    }
    const at = [0, 0.25, 0.5, 0.75, 1].map(share => low * (high / low) ** share);
    return {label, values: value(name).map(v => Math.log10(v)),
      tickvals: at.map(v => Math.log10(v)), ticktext: at.map(v => String(Number(v.toPrecision(2))))};
  });
  const choices = dimensions.map(({name, values, inactive, places}) => ({
    label: name, values: places.map((at, n) => at + spread(n)), range: [(inactive ? 0 : 1) - 0.2, values.length + 0.2],
    tickvals: [...(inactive ? [0] : []), ...values.map((_, at) => at + 1)],
    ticktext: [...(inactive ? ["–"] : []), ...values.map(text => text.replaceAll('"', ""))],
  }));
  const [low, high] = range(quality);
  $("parallel").style.minWidth = `${90 * (costs.length + choices.length)}px`;
  draw("parallel", [{
    type: "parcoords", dimensions: [...costs, ...choices], labelangle: -20, labelside: "top",
    line: {color: value(quality), colorscale: "Viridis", cmin: low, cmax: high, showscale: false},
    unselected: {line: {color: hue.line, opacity: 0.15}}, tickfont: {color: hue.ink}, labelfont: {color: hue.ink},
  }], layout(hue, {margin: {l: 60, r: 60, t: 70, b: 20}}));
}

const figures = {
  "front-plot": drawFront,
  "volume-trials": () => drawVolume("volume-trials", data.volume.share.map((_, at) => at + 1), "candidates trained"),
  "volume-seconds": drawSeconds,
  rungs: drawRungs,
  parallel: drawParallel,
};

function fill(id, names, chosen) {
  for (const name of names) $(id).append(new Option(data.objectives[name].label, name, false, name === chosen));
  $(id).addEventListener("change", drawFront);
}

async function start() {
  data = JSON.parse(await unpacked("data"));
  place = new Map(data.trials.number.map((number, at) => [number, at]));
  const names = Object.keys(data.objectives);
  if ($("front-plot")) {
    fill("front-y", names, data.quality);
    fill("front-x", names, data.costs.find(name => names.includes(name)) ?? names[names.length - 1]);
    for (const id of ["front-stopped", "front-bars"]) $(id)?.addEventListener("change", drawFront);
    openCard(data.presets.balanced ?? data.front[0]);
  }
  document.head.append(element("script", await unpacked("plotly")));
  const drawn = [], waiting = Object.keys(figures).filter(id => $(id));
  const idle = window.requestIdleCallback ?? (work => setTimeout(work, 50));
  const next = () => { // one at a time, so that the page can be scrolled meanwhile
    const id = waiting.shift();
    if (id === undefined) return;
    figures[id]();
    drawn.push(id);
    idle(next, {timeout: 1000});
  };
  next();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach(id => figures[id]()));
}

start().catch(error => {
  $("trouble").textContent = `The figures could not be drawn (${error}). They need a browser of 2023 or later.`;
  $("trouble").hidden = false;
  throw error;
});
