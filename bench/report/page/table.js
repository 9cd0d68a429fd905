// The leaderboard: sorted by a click on a column's title, filtered by text, axis and state.
const failed = (state) => !["ok", "pending", "running"].includes(state);
const view = {
  sort: null, descending: false, text: "", axes: {}, state: "all", front: false,
  columns: new Set(data.columns.filter((column) => column.shown).map((column) => column.key)),
};

function restoreView() {
  const kept = watching() && remembered("sessionStorage", `view ${data.name}`);
  if (!kept) return;
  const found = JSON.parse(kept);
  Object.assign(view, found, { columns: new Set(found.columns) });
}

function keepView() {
  remember("sessionStorage", `view ${data.name}`, JSON.stringify({ ...view, columns: [...view.columns] }));
}

function shownRows(table) {
  const words = view.text.toLowerCase().split(/\s+/).filter(Boolean);
  const ok = (row) => row.states.every((state) => state === "ok");
  const rows = table.rows.filter((row) => {
    const text = [...row.labels, row.status, ...row.states, ...row.errors, ...row.notes, ...row.trials].join(" ").toLowerCase();
    return words.every((word) => text.includes(word))
      && data.axes.every((axis, i) => !(axis.name in view.axes) || row.labels[i] === view.axes[axis.name])
      && (view.state === "all" || (view.state === "ok") === ok(row))
      && (!view.front || row.front);
  });
  return view.sort === null ? rows : rows.toSorted((a, b) => compareRows(a, b));
}

// What is not known comes last in either direction.
function compareRows(a, b) {
  const [x, y] = [sortKey(a), sortKey(b)];
  if (x === null || y === null) return (x === null) - (y === null);
  const order = typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y;
  return view.descending ? -order : order;
}

function sortKey(row) {
  const [kind, name] = view.sort;
  if (kind === "axis") return data.axes[name].labels.indexOf(row.labels[name]);
  if (kind === "column") return row.cells[columnOf.get(name).index]?.[0] ?? null;
  return name === "front" ? Number(row.front) : row.status;
}

function heading(title, sort, { number = true, help = "", better = null, refresh }) {
  const same = view.sort && view.sort[0] === sort[0] && view.sort[1] === sort[1];
  const press = () => {
    if (same) view.descending = !view.descending;
    else Object.assign(view, { sort, descending: better === "higher" });
    refresh(sort);
    say(`sorted by ${title}, ${view.descending ? "descending" : "ascending"}`);
  };
  const state = same ? (view.descending ? "descending" : "ascending") : "none";
  const button = el("button", { type: "button", title: help || null, "data-sort": sort.join(" "), click: press }, breakable(title));
  return el("th", { scope: "col", "aria-sort": state, class: (number ? "number" : "") + (title.length > 18 ? " long" : "") }, button);
}

function leaderboardTable(table, refresh) {
  const known = (column) => table.rows.some((row) => row.cells[columnOf.get(column.key).index]);
  const columns = data.columns.filter((column) => view.columns.has(column.key) && known(column));
  const fits = table.rows.some((row) => row.fits);
  const tuned = table.rows.some((row) => row.tuned);
  const head = el("tr", null,
    data.axes.map((axis, i) => heading(axis.name, ["axis", i], { number: false, refresh })),
    tuned ? el("th", { scope: "col" }, "tuned") : null,
    columns.map((column) => heading(column.title, ["column", column.key], { help: column.help, better: column.better, refresh })),
    fits ? el("th", { scope: "col" }, "fits") : null,
    heading("ok", ["fact", "status"], { number: false, refresh }),
    heading("front", ["fact", "front"], { number: false, better: "higher", refresh }),
    el("th", { scope: "col" }, "seeds"));
  const body = shownRows(table).map((row) => el("tr", null,
    row.labels.map((label, i) => (i ? el("td", null, label) : el("th", { scope: "row" }, trialLink(row.trials[0], label)))),
    tuned ? el("td", null, row.tuned) : null,
    columns.map((column) => scoreCell(row, columnOf.get(column.key))),
    fits ? el("td", null, row.fits ?? "–") : null,
    el("td", { class: row.states.some(failed) ? "state bad" : "state" }, row.status, row.notes.length ? " †" : ""),
    el("td", null, row.front ? "●" : "", row.front ? el("span", { class: "hidden" }, "on the front") : null),
    el("td", null, el("span", { class: "seeds" }, row.trials.map((id, i) => trialLink(id, String(row.seeds[i])))))));
  const caption = "Leaderboard. Press a column's title to sort by it.";
  const region = { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Leaderboard" };
  return el("div", region, el("table", { class: "leaderboard" }, el("caption", { class: "hidden" }, caption),
    el("thead", null, head), el("tbody", null, body)));
}

function scoreCell(row, column) {
  const cell = row.cells[column.index];
  const mark = row.marks[column.index];
  const value = fixed(cell ? inUnit(column, cell[0]) : null, column.digits);
  const about = cell && spread(column, cell);
  return el("td", { class: mark === "best" ? "number best" : "number" }, value,
    about ? el("span", { class: "spread" }, about) : null,
    mark === "tied" ? " ≈" : "", mark === "tied" ? el("span", { class: "hidden" }, " not distinguishable from the best") : null);
}

function tableSection() {
  const tables = el("div", null);
  const count = el("p", { class: "muted", role: "status" });
  const search = el("input", { type: "search", id: "search", value: view.text, input: () => { view.text = search.value; refresh(); } });
  const axes = data.axes.filter((axis) => axis.labels.length > 1).map((axis) =>
    select(axis.name, [["", "all"], ...axis.labels.map((label, i) => [String(i), label])],
      axis.name in view.axes ? String(axis.labels.indexOf(view.axes[axis.name])) : "", (value) => {
        if (value === "") delete view.axes[axis.name];
        else view.axes[axis.name] = axis.labels[Number(value)];
        refresh();
      }));
  const states = [["all", "all"], ["ok", "all ok"], ["other", "something went wrong or is missing"]];
  const columns = data.columns.map((column) => check(column.title, view.columns.has(column.key), (on) => {
    if (on) view.columns.add(column.key); else view.columns.delete(column.key);
    refresh();
  }));

  function refresh(sorted) {
    const shown = data.tables.reduce((sum, table) => sum + shownRows(table).length, 0);
    const all = data.tables.reduce((sum, table) => sum + table.rows.length, 0);
    count.textContent = shown === all ? `${all} rows` : `${shown} of ${all} rows`;
    const left = [...tables.querySelectorAll(".scroll")].map((region) => region.scrollLeft);
    tables.replaceChildren(...data.tables.flatMap((table, i) => [...tableHead(table, i), leaderboardTable(table, refresh), ...tableFoot(table)]));
    tables.querySelectorAll(".scroll").forEach((region, i) => { region.scrollLeft = left[i] || 0; });
    if (sorted) tables.querySelector(`[data-sort="${CSS.escape(sorted.join(" "))}"]`)?.focus({ preventScroll: true });
    keepView();
  }

  refresh();
  return el("section", { id: "table" }, el("h2", null, "Leaderboard"),
    el("div", { class: "controls" }, labelled("Search", search), axes,
      select("State", states, view.state, (value) => { view.state = value; refresh(); }),
      check("on the front", view.front, (on) => { view.front = on; refresh(); })),
    el("details", { class: "chooser" }, el("summary", null, "Columns"), el("div", { class: "choices" }, columns)),
    count, tables, el("p", { class: "muted" }, withStrong(data.legend)));
}

function tableHead(table, i) {
  if (data.tables.length < 2) return [];
  const device = table.environment.map(([name, value]) => `${name} ${value}`).join("; ") || "unknown";
  return [el("h3", null, `Environment ${i + 1} of ${data.tables.length}: not comparable with the others`), el("p", { class: "muted" }, device)];
}

function tableFoot(table) {
  const wrong = table.rows.flatMap((row) => row.errors.map((error) => el("li", null, `${rowName(row)}: ${error}`)));
  const notes = table.rows.flatMap((row) => row.notes.map((note) => el("li", null, `† ${rowName(row)}: ${note}`)));
  const found = [];
  if (wrong.length) found.push(el("details", null, el("summary", null, `What went wrong (${wrong.length})`), el("ul", null, wrong)));
  if (notes.length) found.push(el("ul", { class: "plain muted" }, notes));
  return found;
}

function besideSection() {
  const parts = [];
  const external = data.external;
  if (external.rows.length) {
    const titles = ["external method", ...external.metrics.map(metricTitle), "images", "obtained from", ""];
    const rows = external.rows.map((row) => [row.name, ...row.scores.map((score) => fixed(score, 3)), String(row.images), row.source,
      row.differs ? `not comparable: ${row.differs}` : ""]);
    const last = titles.length - 1;
    parts.push(el("h2", null, "Scored from prediction files, not trained here"),
      tableOf("External methods", titles, rows, { text: [0, last - 1, last] }));
  }
  if (data.published.rows.length) {
    const rows = data.published.rows.map(([method, metric, value, gap, point, source]) => [method, metricTitle(metric), fixed(value, 3),
      gap === null ? "–" : `${fixed(value + gap, 3)} (${point})`, signed(gap, 3), source]);
    parts.push(el("h2", null, `Published on ${data.published.testSet}, not measured here`),
      tableOf("Published numbers", ["method", "metric", "published", "reproduced here", "gap", "source"], rows, { text: [0, 1, 5] }));
  }
  return parts.length ? el("section", { id: "beside" }, parts) : null;
}
