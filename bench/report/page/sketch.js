// Plots as static pictures: the first figure, and every other plot until plotly has drawn it, in print, and without plotly.
const SVG = document.getElementById("svg").namespaceURI;
const GLYPH = 6.6; // mean width of a character, in units of the picture
const SCALE = ["#00224e", "#575d6d", "#a59c74", "#fee838"]; // as plotly's Cividis
let still = false; // while a picture asks for colours: it follows the theme by itself

function shape(tag, properties, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(properties)) if (value !== null && value !== undefined) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

// Texts for plotly have entities in the place of some characters; here they become text nodes.
function plain(text) {
  return String(text ?? "").replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&#36;", "$").replaceAll("&amp;", "&");
}

function words(x, y, text, properties = {}) {
  return shape("text", { x, y, style: "fill: var(--ink)", "font-size": 13, ...properties }, plain(text));
}

// Round numbers between both ends, about as many as asked for.
function roundTicks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const digits = Math.max(0, -Math.floor(Math.log10(step)) + (Number.isInteger(Math.round(step / power * 10) / 10) ? 0 : 1));
  const ticks = [];
  for (let k = Math.ceil(low / step); k * step <= high; k += 1) ticks.push([k * step, fixed(k * step, Math.min(digits, 8))]);
  return ticks.length < 2 && count < 20 ? roundTicks(low, high, 2 * count) : ticks; // one tick shows no scale
}

function endsOf(traces, name, axis) {
  if (axis.range) return axis.range;
  const values = traces.flatMap((trace) => trace[name].flatMap((value, i) => {
    const reach = trace[`error_${name}`]?.array[i] ?? 0;
    return [value - reach, value + reach];
  })).filter(Number.isFinite);
  if (!values.length) return [0, 1];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const margin = 0.06 * (high - low) || 0.05 * Math.abs(high) || 0.5;
  return [low - margin, high + margin];
}

// The ends of an axis, moved apart where the axis would be shorter than what the measurement can resolve.
function atLeast([low, high], least) {
  const wanting = Math.max(0, least - (high - low)) / 2;
  return [low - wanting, high + wanting];
}

function ticksOf(axis, [low, high], count) {
  if (!axis.tickvals) return roundTicks(low, high, count);
  const given = axis.tickvals.map((value, i) => [value, axis.ticktext ? axis.ticktext[i] : String(value)]);
  return given.filter((_, i) => i % Math.ceil(given.length / 24) === 0);
}

function blend(share) {
  const at = Math.min(Math.max(share, 0), 1) * (SCALE.length - 1);
  return SCALE[Math.round(at)];
}

function fillOf(trace, i) {
  const given = trace.marker?.color;
  if (!Array.isArray(given)) return given;
  const [low, high] = [Math.min(...given), Math.max(...given)];
  return blend(high > low ? (given[i] - low) / (high - low) : 0.5);
}

function marker(trace, i, x, y) {
  const size = trace.marker?.size ?? 6;
  const look = { style: `fill: ${fillOf(trace, i)}; stroke: ${trace.marker?.line?.color ?? "none"}`, opacity: trace.marker?.opacity };
  if (trace.marker?.symbol === "square") return shape("rect", { x: x - size / 2, y: y - size / 2, width: size, height: size, ...look });
  if (trace.marker?.symbol === "diamond") return shape("path", { d: `M${x} ${y - size / 1.4}l${size / 1.4} ${size / 1.4}l${-size / 1.4} ${size / 1.4}l${-size / 1.4} ${-size / 1.4}z`, ...look });
  return shape("circle", { cx: x, cy: y, r: size / 2, ...look });
}

// An interval within the frame; where it goes on beyond the frame, it ends in an arrow.
function interval(along, middle, reach, across, frame) {
  const [first, last] = [frame[0], frame[1]];
  const ends = [middle - reach, middle + reach];
  const at = (value) => (along === "x" ? [value, across] : [across, value]);
  const shown = ends.map((end) => Math.min(Math.max(end, first), last));
  const parts = [`M${at(shown[0])}L${at(shown[1])}`];
  ends.forEach((end, i) => {
    const sign = i ? -1 : 1;
    const back = end === shown[i] ? 0 : 7 * sign;
    const [a, b] = along === "x" ? [[shown[i] + back, across - 4], [shown[i] + back, across + 4]] : [[across - 4, shown[i] + back], [across + 4, shown[i] + back]];
    parts.push(back ? `M${a}L${at(shown[i])}L${b}` : `M${a}L${b}`);
  });
  return shape("path", { d: parts.join(""), fill: "none", style: "stroke: var(--muted)", "stroke-width": 1.4 });
}

function sketch(make, { width = narrow() ? 420 : 900, height = 400 } = {}) {
  still = true;
  const [traces, layout] = make();
  still = false;
  const [xEnds, yEnds] = [endsOf(traces, "x", layout.xaxis), endsOf(traces, "y", layout.yaxis)];
  const yTicks = ticksOf(layout.yaxis, yEnds, 6);
  const longest = Math.max(...yTicks.map(([, text]) => plain(text).length), 3);
  const frame = { left: Math.min(38 + longest * GLYPH, width * 0.45), right: width - 16, top: layout.showlegend ? 34 : 12, bottom: height - 52 };
  const across = (value) => frame.left + ((value - xEnds[0]) / (xEnds[1] - xEnds[0])) * (frame.right - frame.left);
  const down = (value) => frame.bottom - ((value - yEnds[0]) / (yEnds[1] - yEnds[0])) * (frame.bottom - frame.top);
  const picture = shape("svg", { viewBox: `0 0 ${width} ${height}`, width: "100%", height: "100%", "aria-hidden": "true" });
  picture.append(...axesOf(layout, frame, [xEnds, across], [yTicks, down]));
  traces.forEach((trace) => picture.append(...drawnTrace(trace, frame, across, down)));
  if (layout.showlegend) picture.append(...legendOf(traces, frame));
  return picture;
}

function axesOf(layout, frame, [xEnds, across], [yTicks, down]) {
  const line = (x1, y1, x2, y2, name) => shape("line", { x1, y1, x2, y2, style: `stroke: var(--${name})` });
  const count = Math.max(3, Math.floor((frame.right - frame.left) / 110));
  const parts = [];
  for (const [value, text] of ticksOf(layout.xaxis, xEnds, count)) {
    parts.push(line(across(value), frame.top, across(value), frame.bottom, "line"), words(across(value), frame.bottom + 18, text, { "text-anchor": "middle" }));
  }
  for (const [value, text] of yTicks) {
    if (!layout.yaxis.tickvals) parts.push(line(frame.left, down(value), frame.right, down(value), "line"));
    parts.push(words(frame.left - 7, down(value) + 4.5, text, { "text-anchor": "end" }));
  }
  parts.push(line(frame.left, frame.bottom, frame.right, frame.bottom, "muted"), line(frame.left, frame.top, frame.left, frame.bottom, "muted"));
  parts.push(words((frame.left + frame.right) / 2, frame.bottom + 41, layout.xaxis.title.text, { "text-anchor": "middle" }));
  const middle = (frame.top + frame.bottom) / 2;
  parts.push(words(14, middle, layout.yaxis.title.text, { "text-anchor": "middle", transform: `rotate(-90 14 ${middle})` }));
  return parts;
}

function drawnTrace(trace, frame, across, down) {
  const parts = [];
  const points = trace.x.map((x, i) => [across(x), down(trace.y[i])]);
  if (trace.mode.includes("lines") && points.length > 1) {
    const steps = trace.line.shape === "hv" ? points.slice(1).map(([x, y]) => `H${x}V${y}`).join("") : points.slice(1).map((point) => `L${point}`).join("");
    const dash = trace.line.dash === "dot" ? "3 3" : null;
    parts.push(shape("path", { d: `M${points[0]}${steps}`, fill: "none", style: `stroke: ${trace.line.color}`, "stroke-width": trace.line.width, "stroke-dasharray": dash }));
  }
  points.forEach(([x, y], i) => {
    const reach = (name, place) => {
      const length = trace[`error_${name}`]?.array[i] ?? 0;
      return length > 0 ? Math.abs(place(trace[name][i] + length) - place(trace[name][i])) : 0;
    };
    const [dx, dy] = [reach("x", across), reach("y", down)];
    if (dx) parts.push(interval("x", x, dx, y, [frame.left, frame.right]));
    if (dy) parts.push(interval("y", y, dy, x, [frame.top, frame.bottom]));
  });
  if (trace.mode.includes("markers")) points.forEach(([x, y], i) => parts.push(marker(trace, i, x, y)));
  if (trace.mode.includes("text")) points.forEach(([x, y], i) => parts.push(words(x + 8, y - 8, trace.text[i], { "font-size": 12 })));
  return parts;
}

function legendOf(traces, frame) {
  const parts = [];
  let x = frame.left;
  for (const trace of traces.filter((one) => one.name && one.showlegend !== false)) {
    const sign = trace.mode.includes("markers") ? marker(trace, 0, x + 6, 14)
      : shape("path", { d: `M${x} 14h13`, style: `stroke: ${trace.line.color}`, "stroke-dasharray": trace.line.dash === "dot" ? "3 3" : null });
    parts.push(sign, words(x + 18, 18.5, trace.name, { "font-size": 12 }));
    x += 40 + plain(trace.name).length * GLYPH;
  }
  return parts;
}
