// Two trials side by side: settings, scores, and every image by the main metric.
const LISTED = 20;
const PICTURED = 12;

function comparePage(a, b) {
  const [first, second] = [data.trials[a], data.trials[b]];
  return [
    el("p", { class: "kicker" }, el("a", { href: "#" }, data.name), " / comparison of two trials"),
    el("h1", { tabindex: "-1" }, comparisonTitle(a, b)),
    el("div", { class: "controls" },
      trialSelect("A", a, (value) => { location.hash = `#compare/${value}/${b}`; }),
      trialSelect("B", b, (value) => { location.hash = `#compare/${a}/${value}`; }),
      el("button", { type: "button", click: () => { location.hash = `#compare/${b}/${a}`; } }, "Swap")),
    el("dl", null, el("dt", null, "A"), el("dd", null, trialLink(a), ` (${first.state})`), el("dt", null, "B"), el("dd", null, trialLink(b), ` (${second.state})`)),
    rowOf(a)[0] === rowOf(b)[0] ? null : el("p", { class: "warning" }, "The two were measured in different environments: their numbers must not be compared."),
    el("div", { class: "two" },
      el("section", null, el("h2", null, "Settings that differ"), settingsTable(first, second)),
      el("section", null, el("h2", null, "Scores"), scoreDifferences(first, second))),
    imagesSection(a, b, first, second),
  ];
}

function comparisonTitle(a, b) {
  const title = `${trialName(a)} against ${trialName(b)}`;
  return title.length > 90 ? "A against B" : title;
}

function trialSelect(name, chosen, change) {
  return select(name, Object.keys(data.trials).map((id) => [id, trialName(id)]), chosen, change);
}

function setting(trial, path) {
  const change = trial.changes.find(([changed]) => changed === path);
  return change ? change[2] : data.base[path] ?? "–";
}

function settingsTable(first, second) {
  const paths = [...new Set([...first.changes, ...second.changes].map(([path]) => path))];
  const rows = paths.map((path) => [el("code", null, path), setting(first, path), setting(second, path)]).filter(([, x, y]) => x !== y);
  if (!rows.length) return el("p", null, "None: it is the same configuration.");
  return tableOf("Settings that differ", ["field", "A", "B"], rows, { text: [0, 1, 2] });
}

function scoreDifferences(first, second) {
  const names = Object.keys(first.scores || {}).filter((name) => name in (second.scores || {}));
  if (!names.length) return el("p", null, "They have no scores in common.");
  const rows = names.map((name) => [metricTitle(name), fixed(first.scores[name], 4), fixed(second.scores[name], 4), signed(first.scores[name] - second.scores[name], 4)]);
  return tableOf("Scores of both", ["metric", "A", "B", "A − B"], rows, { tall: true });
}

function imageScores(trial) {
  const bytes = Uint8Array.from(atob(trial.images), (c) => c.charCodeAt(0));
  return Array.from({ length: bytes.length / 2 }, (_, i) => {
    const level = bytes[2 * i] + 256 * bytes[2 * i + 1];
    return level === 65535 ? null : level / 65534;
  });
}

function imagesSection(a, b, first, second) {
  const label = data.metrics[first.main].label;
  const section = (...content) => el("section", null, el("h2", null, `Image by image: ${label}`), content);
  if (!first.images || !second.images) {
    const why = data.imagesLeftOut ? `; those of ${data.imagesLeftOut} trials were left out to keep this page small` : "";
    return section(el("p", null, `Not both have per-image scores here${why}.`));
  }
  if (first.imageSet !== second.imageSet || first.main !== second.main) return section(el("p", null, "They were scored on other images or by another metric."));
  const [x, y] = [imageScores(first), imageScores(second)];
  const names = data.imageNames[first.imageSet];
  const images = names.map((name, i) => ({ name, a: x[i], b: y[i], difference: x[i] - y[i] })).filter((_, i) => x[i] !== null && y[i] !== null);
  const sign = data.metrics[first.main].better === "higher" ? 1 : -1;
  const mean = images.reduce((sum, image) => sum + image.difference, 0) / images.length;
  const wins = (s) => images.filter((image) => Math.sign(image.difference) === s * sign).length;
  const sorted = images.toSorted((p, q) => p.difference - q.difference || (p.name < q.name ? -1 : 1));
  const most = images.toSorted((p, q) => Math.abs(q.difference) - Math.abs(p.difference) || (p.name < q.name ? -1 : 1));
  const make = () => {
    const trace = {
      type: "scatter", mode: "markers", x: sorted.map((_, i) => i + 1), y: sorted.map((image) => image.difference),
      hovertext: sorted.map((image) => `<b>${plotText(image.name, 60)}</b><br>A ${fixed(image.a, 3)}, B ${fixed(image.b, 3)}<br>A − B ${signed(image.difference, 3)}`),
      hovertemplate: "%{hovertext}<extra></extra>", marker: { size: 6, color: colour("accent") },
    };
    const layout = baseLayout("images, in the order of their difference", `${label}: A − B`);
    layout.yaxis.zeroline = true;
    return [[trace], layout];
  };
  const rows = most.slice(0, LISTED).map((image) => [image.name, fixed(image.a, 3), fixed(image.b, 3), signed(image.difference, 3)]);
  return section(
    el("p", null, `Mean difference A − B ${signed(mean, 4)} over ${images.length} images; A is better on ${wins(1)}, B on ${wins(-1)}. ` +
      "This is one pair of trials: what other seeds would say is not in it. Tested differences are in the answer on the first page."),
    plot(make, { name: `Differences of ${label} by image, sorted; the largest are listed below`, small: true }),
    el("h3", null, "Where they differ most"),
    tableOf("Images where the two differ most", ["image", "A", "B", "A − B"], rows, { tall: true }),
    sideBySide(a, b, most));
}

function sideBySide(a, b, most) {
  const by = (id) => new Map((data.samples[id] || []).map((sample) => [sample.name, sample]));
  const [first, second] = [by(a), by(b)];
  const both = most.filter((image) => first.has(image.name) && second.has(image.name)).slice(0, PICTURED);
  const head = el("h3", null, "Predictions side by side");
  if (!both.length) return el("div", null, head, el("p", null, "No samples of the same image were kept of both."));
  const figures = both.map((image) => {
    const [one, other] = [first.get(image.name), second.get(image.name)];
    const strip = [[one.pictures[0], "image"], [one.pictures[1], "mask"], [one.pictures[2], "A"], [other.pictures[2], "B"]];
    return el("figure", null, el("div", { class: "strip" }, strip.map(([number, title]) => picture(number, title, image.name))),
      el("figcaption", null, `${image.name} · A ${fixed(image.a, 3)}, B ${fixed(image.b, 3)}, A − B ${signed(image.difference, 3)}`));
  });
  return el("div", null, head, el("p", { class: "muted" }, "Of the images that were kept of both, the largest differences first."), el("div", { class: "samples wide" }, figures));
}
