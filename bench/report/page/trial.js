// One trial: what it was, what it scored, how it trained, what it answered.
function trialPage(id) {
  const trial = data.trials[id];
  const [table, row] = rowOf(id);
  return [
    el("p", { class: "kicker" }, el("a", { href: "#" }, data.name), " / trial ", el("code", null, id)),
    el("h1", { tabindex: "-1" }, trialName(id)),
    el("p", null, "State: ", el("strong", { class: failed(trial.state) ? "bad" : trial.state === "ok" ? "good" : null }, trial.state)),
    trial.error ? el("pre", null, trial.error) : null,
    el("nav", { class: "controls", "aria-label": "Other trials" },
      row.trials.length > 1 ? el("div", null, el("p", { class: "muted" }, "Seeds of this row"),
        el("div", { class: "seeds" }, row.trials.map((other, i) => (other === id ? el("strong", null, String(row.seeds[i])) : trialLink(other, String(row.seeds[i])))))) : null,
      comparisonPicker(id)),
    el("div", { class: "two" },
      el("section", null, el("h2", null, "What differs from the base"), changesTable(trial)),
      el("section", null, el("h2", null, "Scores"), scoresTable(trial))),
    curveSection(trial),
    memorySection(trial),
    samplesSection(id, trial),
    provenanceSection(trial, table),
  ];
}

function rowOf(id) {
  for (const table of data.tables) {
    for (const row of table.rows) if (row.trials.includes(id)) return [table, row];
  }
  throw new Error(`no row has trial ${id}`);
}

function comparisonPicker(id) {
  const others = Object.keys(data.trials).filter((other) => other !== id);
  if (!others.length) return null;
  let chosen = others[0];
  return el("div", { class: "controls" },
    select("Compare with", others.map((other) => [other, trialName(other)]), chosen, (value) => { chosen = value; }),
    el("button", { type: "button", class: "primary", click: () => { location.hash = `#compare/${id}/${chosen}`; } }, "Compare"));
}

function changesTable(trial) {
  const whole = el("details", null, el("summary", null, "The base's whole configuration"),
    tableOf("Base configuration", ["field", "value"], Object.entries(data.base).map(([path, value]) => [el("code", null, path), value]), { tall: true, text: [0, 1] }));
  if (!trial.changes.length) return el("div", null, el("p", null, "Nothing: it is the base."), whole);
  const rows = trial.changes.map(([path, before, after]) => [el("code", null, path), before, after]);
  return el("div", null, tableOf("Configuration against the base", ["field", "base", "here"], rows, { text: [0, 1, 2] }), whole);
}

function scoresTable(trial) {
  const names = Object.keys(trial.scores || {});
  if (!names.length) return el("p", null, "This trial has no scores.");
  const rows = names.map((name) => [metricTitle(name), fixed(trial.scores[name], 4), fixed(trial.val[name], 4),
                                  fixed(trial.train[name], 4)]);
  return tableOf("Scores of this trial", ["metric", "test", "val", "train"], rows, { tall: true });
}

function lines(name, xs, ys, fill, dash) {
  return { type: "scatter", mode: "lines+markers", name, x: xs, y: ys, line: { color: fill, width: 2, dash }, marker: { size: 5, color: fill } };
}

function curveSection(trial) {
  const curve = trial.curve || [];
  if (!curve.length) return el("section", null, el("h2", null, "Training"), el("p", null, "No curve was recorded."));
  const epochs = curve.map((point) => point[0]);
  const validated = curve.some((point) => point[2] !== null);
  const make = () => {
    const traces = [lines("training loss", epochs, curve.map((point) => point[1]), colour("accent"))];
    if (validated) traces.push(lines("validation loss", epochs, curve.map((point) => point[2]), colour("muted"), "dot"));
    const layout = { ...baseLayout("epoch", "loss"), showlegend: true };
    if (epochs.length < 12) layout.xaxis.tickvals = epochs;
    return [traces, layout];
  };
  const rows = curve.map(([epoch, train, val, rate]) => [String(epoch), fixed(train, 4), fixed(val, 4), rate.toPrecision(3)]);
  return el("section", null, el("h2", null, "Training"), plot(make, { name: "Training and validation loss over epochs; the numbers are listed below it", small: true }),
    el("details", null, el("summary", null, "The curve as a table"), tableOf("Loss by epoch", ["epoch", "training loss", "validation loss", "learning rate"], rows, { tall: true })));
}

function memorySection(trial) {
  if (!trial.memory) return null;
  const phases = Object.entries(trial.memory.phases);
  const make = () => {
    const traces = phases.map(([phase, points], i) => ({ ...lines(phase, points.map((p) => p[0]), points.map((p) => p[1]), colour(i ? "muted" : "accent"), i ? "dot" : "solid"), mode: "lines" }));
    return [traces, { ...baseLayout("seconds since the phase began", "MiB"), showlegend: true }];
  };
  const peaks = phases.map(([phase, points]) => `${phase}: from ${fixed(points[0][1], 1)} to at most ${fixed(Math.max(...points.map((p) => p[1])), 1)} MiB`);
  return el("section", null, el("h2", null, "Memory over time"), plot(make, { name: `Memory over time. ${peaks.join("; ")}`, small: true }),
    el("p", { class: "muted" }, `Read while it ran: ${trial.memory.measure}, all of it and not above a baseline; thinned out. ${peaks.join("; ")}.`));
}

function picture(number, title, name) {
  const content = data.pictures[number];
  const kind = content.startsWith("/9j/") ? "jpeg" : "png";
  return el("div", null, el("img", { src: `data:image/${kind};base64,${content}`, alt: `${title} of ${name}`, decoding: "async" }), title);
}

function samplesSection(id, trial) {
  const found = data.samples[id] || [];
  const order = ["best", "median", "worst", "shared"];
  const rank = (sample) => Math.min(...sample.why.map((why) => order.indexOf(why)));
  const shown = found.toSorted((a, b) => rank(a) - rank(b));
  const figures = shown.map((sample) => el("figure", null,
    el("div", { class: "strip" }, ["image", "mask", "prediction"].map((title, i) => picture(sample.pictures[i], title, sample.name))),
    el("figcaption", null, el("strong", null, sample.why.join(", ")), ` · ${sample.name} · ${metricTitle(trial.main)} ${fixed(sample.score, 3)}`)));
  const none = id in data.samples ? "They were left out to keep this page small." : "No samples were kept.";
  return el("section", null, el("h2", null, "Sample predictions"), found.length
    ? el("p", { class: "muted" }, `Test images by their own ${data.metrics[trial.main].label}. Shared ones are the same in every trial on these data, whatever it scored.`)
    : el("p", null, none), el("div", { class: "samples" }, figures));
}

function provenanceSection(trial) {
  const facts = Object.entries(trial.provenance || {});
  if (!facts.length) return el("section", null, el("h2", null, "Provenance"), el("p", null, "Unknown: the trial left no record of it."));
  return el("section", null, el("h2", null, "Provenance"),
    el("dl", null, facts.flatMap(([name, value]) => [el("dt", null, name), el("dd", null, value)])));
}
