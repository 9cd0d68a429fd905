// What every part of the page uses: the data, elements, numbers, the theme. Texts become text nodes, never markup.
const data = JSON.parse(document.getElementById("data").textContent);

function el(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

function say(text) {
  document.getElementById("said").textContent = text;
}

const columnOf = new Map(data.columns.map((column, index) => [column.key, { ...column, index }]));

function fixed(value, digits) {
  return value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−");
}

function signed(value, digits) {
  return value === null || value === undefined ? "–" : (value > 0 ? "+" : "") + fixed(value, digits);
}

function inUnit(column, value) {
  return value === null || value === undefined ? null : value / column.unit;
}

function isScore(column) {
  return column.key.startsWith("test") || column.key.startsWith("val.");
}

// The spread is shown of scores, as in the other tables, and where it is not all zeros.
function spread(column, cell) {
  const half = cell && cell[1];
  const seen = isScore(column) && half !== null && half >= 0.5 * 10 ** -column.digits;
  return seen ? ` ± ${fixed(half / column.unit, column.digits)}` : "";
}

function cellText(column, cell) {
  return cell ? fixed(inUnit(column, cell[0]), column.digits) + spread(column, cell) : "–";
}

// Names often differ in their ends, so a long one loses its middle.
function shortened(text, most) {
  if (text.length <= most) return text;
  const last = Math.floor((most - 1) / 2);
  return `${text.slice(0, most - 1 - last).trimEnd()}…${text.slice(-last).trimStart()}`;
}

function rowName(row) {
  return row.name;
}

function trialName(id) {
  const trial = data.trials[id];
  return `${trial.name}, seed ${trial.seed}`;
}

function trialLink(id, text) {
  return el("a", { href: `#trial/${id}` }, text || trialName(id));
}

function metricTitle(name) {
  const metric = data.metrics[name];
  return metric ? `${metric.label} ${metric.better === "higher" ? "↑" : "↓"}` : name.replaceAll("_", " ");
}

// A table in a region of its own that scrolls sideways, so that the page never does. The first column names the rows.
function tableOf(caption, titles, rows, { tall = false, text = [0] } = {}) {
  const kind = (i) => (text.includes(i) ? null : "number");
  const head = titles.map((title, i) => el("th", { scope: "col", class: kind(i) }, breakable(title)));
  const body = rows.map((row) =>
    el("tr", null, row.map((cell, i) => el(i ? "td" : "th", { scope: i ? null : "row", class: kind(i) }, cell))));
  const table = el("table", null, el("caption", { class: "hidden" }, caption),
    el("thead", null, el("tr", null, head)), el("tbody", null, body));
  const props = { class: tall ? "scroll tall" : "scroll", tabindex: "0", role: "region", "aria-label": caption };
  return el("div", props, table);
}

function labelled(text, control) {
  return el("label", null, text, control);
}

// A long dotted name may be broken after its dots, and at any letter only where that is not enough.
function breakable(text) {
  return text.split(/(?<=[._])/).flatMap((part, i) => (i ? [el("wbr"), part] : [part]));
}

function select(text, options, chosen, change) {
  const entries = options.map(([value, title]) =>
    el("option", { value, selected: value === chosen }, shortened(title, 90)));
  const control = el("select", { change: () => change(control.value) }, entries);
  return labelled(text, control);
}

function check(text, checked, change) {
  const box = el("input", { type: "checkbox", checked, change: () => change(box.checked) });
  return el("label", { class: "check" }, box, text);
}

// A large file is stored compressed.
async function contentOf(file) {
  if (typeof file === "string") return file;
  const packed = Uint8Array.from(atob(file.packed), (c) => c.charCodeAt(0));
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

async function save(name, file) {
  const text = await contentOf(file);
  const kind = name.endsWith(".csv") ? "text/csv" : "text/plain";
  const link = el("a", { href: URL.createObjectURL(new Blob([text], { type: `${kind};charset=utf-8` })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  say(`${name} saved`);
}

// Storage may be refused to a file that was opened from disk; then nothing is remembered.
function remembered(store, key) {
  try { return window[store].getItem(`sam3-bench ${key}`); } catch { return null; }
}

function remember(store, key, value) {
  try { window[store].setItem(`sam3-bench ${key}`, value); } catch { /* not remembered */ }
}

function dark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function colour(name) {
  if (still) return `var(--${name})`;
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function setUpTheme(redraw) {
  const button = document.getElementById("theme");
  const name = () => { button.textContent = dark() ? "Light" : "Dark"; };
  const chosen = remembered("localStorage", "theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  button.setAttribute("aria-label", "Switch between light and dark");
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    remember("localStorage", "theme", document.documentElement.dataset.theme);
    name();
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { name(); redraw(); });
  name();
}
