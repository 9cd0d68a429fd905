// The first screen: the answer, one figure and one table of five columns.
const FIRST_ROWS = 8;
const LONGEST_NAME = 40;
const LONGEST_INTERVALS = 2; // longest axis that intervals may ask for, in lengths of that of means and seeds

// The rows that the first screen shows: all or the best, in the order of a trend or else best first.
function firstRows(table) {
  const column = columnOf.get(`test.${table.main}`);
  if (!column) return [];
  const sign = column.better === "higher" ? -1 : 1;
  const scored = table.rows.filter((row) => row.cells[column.index]);
  const best = scored.toSorted((a, b) => sign * (a.cells[column.index][0] - b.cells[column.index][0])).slice(0, FIRST_ROWS);
  return table.places ? scored.filter((row) => best.includes(row)).toSorted((a, b) => placeOf(table, a) - placeOf(table, b)) : best;
}

function placeOf(table, row) {
  return table.places[table.rows.indexOf(row)];
}

function seedScores(table, row) {
  return row.trials.map((id) => data.trials[id].scores?.[table.main] ?? null).filter((score) => score !== null);
}

// The ends of the axis of scores: around means and seeds, intervals if they are not much longer, and never too narrow.
function scoreEnds(table, rows, column) {
  const places = rows.flatMap((row) => [row.cells[column.index][0], ...seedScores(table, row)]);
  const ends = rows.flatMap((row) => [-1, 1].map((sign) => row.cells[column.index][0] + sign * (row.cells[column.index][1] ?? 0)));
  let [low, high] = [Math.min(...places), Math.max(...places)];
  const span = Math.max(high - low, table.least[0]);
  if (Math.max(...ends) - Math.min(...ends) <= LONGEST_INTERVALS * span) [low, high] = [Math.min(low, ...ends), Math.max(high, ...ends)];
  const margin = 0.08 * span + Math.max(0, table.least[0] - (high - low)) / 2;
  return [low - margin, high + margin];
}

function firstFigure(table, rows, column) {
  const along = table.places ? "y" : "x"; // the axis of scores
  const other = along === "y" ? "x" : "y";
  const at = (row, i) => (table.places ? placeOf(table, row) : -i);
  const means = rows.map((row) => row.cells[column.index][0]);
  const seeds = rows.flatMap((row, i) => seedScores(table, row).map((score) => [score, at(row, i) - (table.places ? 0 : 0.22)]));
  const make = () => {
    const layout = along === "y" ? baseLayout(plotText(data.axes[0].name), column.title) : baseLayout(column.title, "");
    const places = rows.map(at);
    layout[`${other}axis`].tickvals = places;
    layout[`${other}axis`].ticktext = rows.map((row) => plotText(table.places ? row.labels[0] : row.name, table.places ? 12 : 26));
    const [first, last] = [Math.min(...places), Math.max(...places)];
    const margin = table.places ? 0.08 * (last - first) || 1 : 0.6;
    layout[`${other}axis`].range = [first - margin, last + margin];
    layout[`${along}axis`].range = scoreEnds(table, rows, column);
    const spots = { type: "scatter", mode: "markers", name: "one seed", [along]: seeds.map(([score]) => score), [other]: seeds.map(([, place]) => place),
      marker: { size: 5, color: colour("accent"), opacity: 0.6 } };
    const mean = { type: "scatter", mode: table.places ? "lines+markers" : "markers", name: "mean with 95 % interval", [along]: means, [other]: places,
      [`error_${along}`]: { array: rows.map((row) => row.cells[column.index][1] ?? 0) }, line: { color: colour("accent"), width: 1.5 },
      marker: { size: 10, color: colour("accent"), line: { color: colour("paper") } } };
    return [[mean, spots], { ...layout, showlegend: true }];
  };
  const height = table.places ? 360 : Math.min(380, 120 + 40 * rows.length);
  const name = `${column.title} of ${rows.length} rows with their seeds; the numbers are in the table`;
  return el("div", { class: "figure", role: "figure", "aria-label": name }, sketch(make, { width: narrow() ? 420 : 620, height }));
}

function firstTable(table, rows) {
  const memory = table.tradeoff[1] ?? "predicted.allocated_bytes";
  const keys = [`test.${table.main}`, memory, "timing.train_images_per_second"];
  const columns = keys.map((key) => columnOf.get(key)).filter(Boolean);
  const titles = ["row", ...columns.map((column) => column.title), "seeds ok"];
  const lines = rows.map((row) => [shortLink(row), ...columns.map((column) => shortCell(row, column)), row.status]);
  const more = table.rows.length - rows.length;
  return el("div", null, tableOf("The first rows", titles, lines),
    el("p", { class: "muted" }, more > 0 ? `${rows.length} of ${table.rows.length} rows. ` : "",
      el("a", { href: "#table" }, "All rows, with all columns")));
}

// Long names would leave no room for the figure and the other rows; the leaderboard has them whole.
function shortLink(row) {
  return trialLink(row.trials[0], shortened(rowName(row), LONGEST_NAME));
}

function shortCell(row, column) {
  const best = row.marks[column.index] === "best";
  const text = cellText(column, row.cells[column.index]);
  return best ? el("strong", null, text) : text;
}

function firstScreen(table) {
  const rows = firstRows(table);
  if (!rows.length) return null;
  return el("div", { class: "first" }, firstFigure(table, rows, columnOf.get(`test.${table.main}`)), firstTable(table, rows));
}
