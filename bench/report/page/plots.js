// plotly, unpacked when the page has been drawn, and the two plots of the overview.
let unpacked = null;
let plots = [];

function plotly() {
  unpacked ??= (async () => {
    if (!("DecompressionStream" in window)) throw new Error("this browser cannot unpack them (it lacks DecompressionStream)");
    const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = el("script", null, await new Response(stream).text());
    document.head.append(script);
    if (!window.Plotly) throw new Error("this browser refuses to run them");
    return window.Plotly;
  })();
  return unpacked;
}

// plotly reads some tags and entities in texts: they are shown as they are, and cut where they are long.
function plotText(text, most = 44) {
  return shortened(text, most).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll("$", "&#36;");
}

function narrow() {
  return matchMedia("(max-width: 40rem)").matches;
}

function baseLayout(x, y) {
  const title = (text) => ({ text, font: { size: narrow() ? 11 : 14 } });
  const axis = { gridcolor: colour("line"), linecolor: colour("muted"), zerolinecolor: colour("muted"), ticks: "outside",
    tickcolor: colour("muted"), automargin: true, zeroline: false };
  return {
    font: { family: "system-ui, sans-serif", size: 13, color: colour("ink") },
    paper_bgcolor: colour("paper"), plot_bgcolor: colour("paper"),
    margin: { l: 62, r: 18, t: 22, b: 56 },
    xaxis: { ...axis, title: title(x) }, yaxis: { ...axis, title: title(y) },
    hoverlabel: { bgcolor: colour("raised"), bordercolor: colour("muted"), font: { color: colour("ink") }, align: "left" },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    hovermode: "closest", showlegend: false,
  };
}

// A plot that draws itself again when the theme changes. make() -> [traces, layout]; a click goes to the point's trial.
function plot(make, { name, small = false } = {}) {
  const live = el("div", { class: "live" });
  const area = el("div", { class: small ? "plot small" : "plot", role: "figure", "aria-label": name },
    el("div", { class: "still" }, sketch(make, { height: small ? 300 : 400 })), live);
  const config = { responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "", topojsonURL: "",
    displayModeBar: narrow() ? false : "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
  const draw = async () => {
    try {
      const library = await plotly();
      if (!area.isConnected) return;
      const [traces, layout] = make();
      await library.react(live, traces, layout, config);
      if (area.dataset.drawn) return;
      area.dataset.drawn = "yes";
      live.on("plotly_click", (event) => {
        const to = event.points[0].customdata;
        if (typeof to === "string" && to in data.trials) location.hash = `#trial/${to}`;
      });
      const pointer = (shape) => () => area.querySelectorAll(".nsewdrag").forEach((drag) => { drag.style.cursor = shape; });
      live.on("plotly_hover", (event) => typeof event.points[0].customdata === "string" && pointer("pointer")());
      live.on("plotly_unhover", pointer(""));
    } catch (error) {
      live.replaceChildren(el("p", { class: "waiting" }, `A picture only: ${error.message}.`));
    }
  };
  plots.push(draw);
  setTimeout(draw, 30);
  return area;
}

function redrawPlots() {
  plots.forEach((draw) => draw());
}

function forgetPlots() {
  if (window.Plotly) document.querySelectorAll("[data-drawn] > .live").forEach((live) => window.Plotly.purge(live));
  plots = [];
}

function errorBars(column, cells) {
  const bars = cells.map((cell) => inUnit(column, cell[1]) ?? 0);
  return { type: "data", array: bars, visible: bars.some((bar) => bar > 0), thickness: 1, width: 3, color: colour("muted") };
}

function hover(row, columns) {
  const lines = columns.map((column) => `${plotText(column.title)}: ${cellText(column, row.cells[column.index])}`);
  return [`<b>${plotText(rowName(row), 70)}</b>`, ...lines, plotText(row.status)].join("<br>");
}

function tradeoffTraces(table, x, y) {
  const rows = table.rows.filter((row) => row.cells[x.index] && row.cells[y.index]);
  const group = (chosen, name, fill) => {
    const cells = (column) => chosen.map((row) => row.cells[column.index]);
    return {
      type: "scatter", mode: "markers", name, x: cells(x).map((cell) => inUnit(x, cell[0])), y: cells(y).map((cell) => inUnit(y, cell[0])),
      error_x: errorBars(x, cells(x)), error_y: errorBars(y, cells(y)),
      hovertext: chosen.map((row) => hover(row, [y, x])), hovertemplate: "%{hovertext}<extra></extra>",
      customdata: chosen.map((row) => row.trials[0]), marker: { size: 11, color: fill, line: { width: 1.5, color: colour("paper") } },
    };
  };
  const front = rows.filter((row) => row.front).sort((a, b) => a.cells[x.index][0] - b.cells[x.index][0]);
  const line = {
    type: "scatter", mode: "lines", name: "front", x: front.map((row) => inUnit(x, row.cells[x.index][0])),
    y: front.map((row) => inUnit(y, row.cells[y.index][0])), line: { shape: "hv", color: colour("accent"), dash: "dot", width: 1.5 }, hoverinfo: "skip",
    showlegend: false,
  };
  const best = group(front, "on the front", colour("accent"));
  if (front.length <= LABELLED) {
    Object.assign(best, { mode: "markers+text", text: front.map((row) => plotText(row.labels.join(", "), 26)), textposition: "top right" });
  }
  return [line, group(rows.filter((row) => !row.front), "beaten by another row", colour("muted")), best];
}

function tradeoffSection() {
  return el("section", { id: "front" }, el("h2", null, "Accuracy against memory"), data.tables.flatMap((table, i) => {
    const [y, x] = table.tradeoff.map((key) => columnOf.get(key));
    const head = data.tables.length > 1 ? [el("h3", null, `Environment ${i + 1} of ${data.tables.length}`)] : [];
    if (!x || !y) return [...head, el("p", null, "Not every row has a score and the same measure of memory: see the axis explorer.")];
    const rows = table.rows.filter((row) => row.cells[x.index] && row.cells[y.index]);
    const make = () => {
      const traces = tradeoffTraces(table, x, y);
      const layout = baseLayout(x.title, y.title);
      layout.xaxis.range = atLeast(endsOf(traces, "x", layout.xaxis), table.least[1]);
      layout.yaxis.range = atLeast(endsOf(traces, "y", layout.yaxis), table.least[0]);
      return [traces, { ...layout, showlegend: true }];
    };
    return [...head, plot(make, { name: `Scatter plot of ${y.title} against ${x.title}; the points are listed below it` }),
      el("p", { class: "muted" }, "A point is a row; bars are 95 % intervals over seeds. Press a point to open its first trial."),
      pointList(rows, [x, y])];
  }));
}

// The plot's points as a table: for a keyboard, a screen reader, and whoever wants the number.
function pointList(rows, columns) {
  const lines = rows.map((row) => [trialLink(row.trials[0], rowName(row)), ...columns.map((column) => cellText(column, row.cells[column.index]))]);
  return el("details", null, el("summary", null, `The ${rows.length} points as a table`),
    tableOf("Points of the plot", ["row", ...columns.map((column) => column.title)], lines, { tall: true }));
}

const LABELLED = 8; // points of the front that are named in the plot
const explorer = { table: 0, x: null, y: null, colour: "" };
const PALETTE = ["#0072b2", "#c47f00", "#00875f", "#b8588f", "#3a8fc4", "#d55e00", "#7d7a00", "#808080"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "star"];

// A choice is an axis of the sweep or a column: what a row has there, for the plot.
function choice(key) {
  const axis = key.startsWith("axis ") ? Number(key.slice(5)) : null;
  if (axis === null) {
    const column = columnOf.get(key);
    return { title: column.title, column, value: (row) => inUnit(column, row.cells[column.index]?.[0]) };
  }
  return { title: plotText(data.axes[axis].name), labels: data.axes[axis].labels, value: (row) => row.labels[axis] };
}

function explorerTraces(rows, x, y, by) {
  const place = (part, row) => (part.labels ? part.labels.indexOf(part.value(row)) : part.value(row));
  const shown = [x, y].filter((part) => part.column).map((part) => part.column);
  const trace = (chosen, name, marker) => ({
    type: "scatter", mode: "markers", name: plotText(name, 30), x: chosen.map((row) => place(x, row)), y: chosen.map((row) => place(y, row)),
    ...(x.column ? { error_x: errorBars(x.column, chosen.map((row) => row.cells[x.column.index])) } : {}),
    ...(y.column ? { error_y: errorBars(y.column, chosen.map((row) => row.cells[y.column.index])) } : {}),
    hovertext: chosen.map((row) => hover(row, shown)), hovertemplate: "%{hovertext}<extra></extra>", customdata: chosen.map((row) => row.trials[0]),
    marker: { size: 10, line: { width: 1, color: colour("paper") }, ...marker },
  });
  if (!by) return [trace(rows, "", { color: colour("accent") })];
  if (by.labels) {
    return by.labels.map((label, i) => trace(rows.filter((row) => by.value(row) === label), label,
      { color: PALETTE[i % PALETTE.length], symbol: SYMBOLS[Math.floor(i / PALETTE.length) % SYMBOLS.length] })).filter((one) => one.x.length);
  }
  const known = rows.filter((row) => by.value(row) !== null);
  return [trace(known, "", { color: known.map(by.value), colorscale: "Cividis", showscale: true, colorbar: { title: { text: by.title, side: "right" }, thickness: 12 } })];
}

function explorerSection() {
  const drawn = el("div", null);
  const axes = data.axes.map((axis, i) => [`axis ${i}`, axis.name]);
  const options = [...axes, ...data.columns.map((column) => [column.key, column.title])];
  explorer.x ??= axes[0]?.[0] ?? options[0]?.[0];
  explorer.y ??= data.tables[0]?.tradeoff[0] in Object.fromEntries(options) ? data.tables[0].tradeoff[0] : options.at(-1)?.[0];

  function refresh() {
    const [x, y] = [choice(explorer.x), choice(explorer.y)];
    const by = explorer.colour && choice(explorer.colour);
    const rows = data.tables[explorer.table].rows.filter((row) => x.value(row) !== null && y.value(row) !== null);
    const ticks = (part) => (part.labels ? { tickvals: part.labels.map((_, i) => i), ticktext: part.labels.map((label) => plotText(label, 24)), range: [-0.5, part.labels.length - 0.5] } : {});
    const make = () => {
      const layout = baseLayout(x.title, y.title);
      Object.assign(layout.xaxis, ticks(x));
      Object.assign(layout.yaxis, ticks(y));
      return [explorerTraces(rows, x, y, by), { ...layout, showlegend: Boolean(by && by.labels && by.labels.length <= 12) }];
    };
    plots = plots.filter((draw) => draw !== explorer.draw);
    const area = plot(make, { name: `Scatter plot of ${y.title} against ${x.title}; the points are listed below it` });
    explorer.draw = plots.at(-1);
    const columns = [x, y, by].filter((part) => part && part.column).map((part) => part.column);
    drawn.replaceChildren(rows.length ? area : el("p", null, "No row has both."), pointList(rows, columns));
  }

  const pick = (name, entries) => select(name, entries, String(explorer[name.toLowerCase()]), (value) => {
    explorer[name.toLowerCase()] = name === "Table" ? Number(value) : value;
    refresh();
  });
  if (!options.length || !data.tables.length) return null;
  refresh();
  const tables = data.tables.map((_, i) => [String(i), `environment ${i + 1}`]);
  return el("section", { id: "explore" }, el("h2", null, "Axis explorer"),
    el("div", { class: "controls" }, pick("X", options), pick("Y", options), pick("Colour", [["", "none"], ...options]),
      tables.length > 1 ? pick("Table", tables) : null), drawn);
}
