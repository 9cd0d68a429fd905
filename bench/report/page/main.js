// The overview, and the way from an address (#trial/ID, #compare/A/B) to a page.
const RELOAD_MILLISECONDS = 60000;
const SECTIONS = [["answer", "Answer"], ["table", "Leaderboard"], ["front", "Trade-off"], ["explore", "Explore"], ["compare", "Compare"], ["files", "Files"]];
let timer = null;
let overviewScroll = 0;
let current = null;

function watching() {
  return data.pending > 0 && remembered("sessionStorage", "watch") === "yes";
}

function setTimer() {
  clearTimeout(timer);
  if (watching()) timer = setTimeout(() => location.reload(), RELOAD_MILLISECONDS);
}

function runningBanner() {
  if (!data.pending) return null;
  return el("div", { class: "running" },
    el("span", null, el("strong", null, `Running: ${data.done} of ${data.total} trials done.`), " If the sweep was stopped, the same command goes on from there."),
    check("reload this page every minute", watching(), (on) => { remember("sessionStorage", "watch", on ? "yes" : "no"); keepView(); setTimer(); }));
}

function embeddedWarning() {
  if (!data.embedded.length) return null;
  return el("p", { class: "warning", role: "note" }, el("strong", null, data.embedded));
}

function answerSection() {
  const several = data.tables.length > 1;
  return el("section", { id: "answer" }, data.tables.flatMap((table, i) => [
    several ? el("h3", null, `Environment ${i + 1} of ${data.tables.length}: not comparable with the others`) : null,
    el("p", { class: "lead" }, el("strong", null, table.verdict[0]), ` ${table.verdict[1]}`),
    firstScreen(table),
    table.details.map((text) => el("p", { class: "muted" }, text)),
    pairsTable(table),
    el("p", { class: "muted" }, measuredOn(table)),
  ]));
}

function measuredOn(table) {
  const facts = table.environment.map(([name, value]) => `${name} ${value}`);
  if (!facts.length) return "Measured on an unknown machine.";
  if (table.weights.length) facts.push(`weights ${table.weights.join(", ")}`);
  return `Measured on ${[...facts, `commit ${table.commits.join(", ")}`, `speeds with ${table.atOnce.join(" to ")} trial${table.atOnce.at(-1) > 1 ? "s" : ""} at once on the machine`].join("; ")}.`;
}

// Words between double asterisks are strong: in sentences of the suite's own only.
function withStrong(text) {
  return text.split("**").map((part, i) => (i % 2 ? el("strong", null, part) : part));
}

function pairsTable(table) {
  if (!table.pairs.length) return null;
  const metric = data.metrics[table.main];
  const rows = table.pairs.map(([first, second, difference, low, high, p, seeds, unresolved]) => {
    const better = (difference > 0) === (metric.better === "higher") ? first : second;
    return [`${rowName(table.rows[first])} − ${rowName(table.rows[second])}`, signed(difference, 3), `${signed(low, 3)} to ${signed(high, 3)}`,
      p < 0.001 ? "< 0.001" : fixed(p, 3), String(seeds), unresolved || `${rowName(table.rows[better])} is better`];
  });
  const more = table.pairsInAll > rows.length ? el("p", { class: "muted" }, `${rows.length} of ${table.pairsInAll}; all are in comparisons.csv.`) : null;
  return el("details", null, el("summary", null, `All comparisons of two rows (${table.pairsInAll})`),
    tableOf("Comparisons", ["pair", `difference in ${metric.label}`, "95 % interval", "p (adjusted)", "seeds", ""], rows, { tall: true, text: [0, 5] }), more);
}

function compareSection() {
  const ids = Object.keys(data.trials);
  if (ids.length < 2) return null;
  const scored = ids.filter((id) => data.trials[id].images);
  const chosen = scored.length > 1 ? [scored[0], scored.at(-1)] : [ids[0], ids.at(-1)];
  return el("section", { id: "compare" }, el("h2", null, "Compare two trials"), el("div", { class: "controls" },
    trialSelect("A", chosen[0], (value) => { chosen[0] = value; }), trialSelect("B", chosen[1], (value) => { chosen[1] = value; }),
    el("button", { type: "button", class: "primary", id: "compare-button", click: () => { location.hash = `#compare/${chosen[0]}/${chosen[1]}`; } }, "Compare")));
}

function filesSection() {
  const buttons = Object.entries(data.files).map(([name, file]) => el("button", { type: "button", click: () => save(name, file) }, name));
  const beside = data.filesLeftOut.length ? ` Too large for this page, and beside it in the folder: ${data.filesLeftOut.join(", ")}.` : "";
  return el("section", { id: "files" }, el("h2", null, "Files"), el("p", { class: "muted" }, `Numbers in SI units, bytes and seconds; an empty field is unknown.${beside}`),
    el("div", { class: "controls" }, buttons));
}

function overview() {
  return [
    embeddedWarning(), runningBanner(),
    el("p", { class: "kicker" }, data.name),
    el("h1", { tabindex: "-1" }, data.question),
    answerSection(),
    el("p", { class: "muted" }, `Profile ${data.profile}: ${data.settings}.`),
    data.chosen.map((text) => el("p", null, withStrong(text))), data.remarks.map((text) => el("p", null, text)),
    tableSection(), besideSection(), tradeoffSection(), explorerSection(), compareSection(), filesSection(),
    el("footer", { class: "muted" }, data.samplesLeftOut ? `${data.samplesLeftOut} sample predictions were left out to keep this page below 8 MB. ` : "",
      "One file, no network: it can be kept, moved and sent as it is."),
  ];
}

function pageOf(address) {
  const [kind, a, b] = address.split("/");
  const known = (id) => id !== undefined && Object.hasOwn(data.trials, id);
  if (kind === "trial" && known(a)) return { key: address, title: trialName(a), make: () => trialPage(a) };
  if (kind === "compare" && known(a) && known(b)) return { key: address, title: comparisonTitle(a, b), make: () => comparePage(a, b) };
  if (kind === "trial" || (kind === "compare" && a !== undefined)) return { key: address, title: "Not found", make: () => [el("h1", { tabindex: "-1" }, "No such trial here"), el("p", null, el("a", { href: "#" }, "Back to the overview"))] };
  return { key: "", title: null, make: overview };
}

function route() {
  const address = location.hash.slice(1);
  const page = pageOf(address);
  const body = document.getElementById("page");
  if (page.key !== current) {
    if (current === "") overviewScroll = scrollY;
    const first = current === null;
    current = page.key;
    forgetPlots();
    body.replaceChildren(...page.make().flat(Infinity).filter(Boolean));
    document.title = page.title ? `${page.title} · ${data.name}` : data.name;
    scrollTo({ top: page.key === "" ? overviewScroll : 0, behavior: "instant" });
    if (!first) body.querySelector("h1")?.focus({ preventScroll: true });
  }
  if (page.key === "" && address) document.getElementById(address)?.scrollIntoView();
}

// Print unfolds all lists.
let unfolded = [];
window.addEventListener("beforeprint", () => {
  unfolded = [...document.querySelectorAll("details:not(.chooser, [open])")];
  unfolded.forEach((part) => { part.open = true; });
});
window.addEventListener("afterprint", () => unfolded.forEach((part) => { part.open = false; }));

restoreView();
document.getElementById("sections").append(el("a", { href: "#" }, data.name), ...SECTIONS.map(([id, title]) => el("a", { href: `#${id}` }, title)));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // an address of its own would lead away from a trial
  document.getElementById("page").focus();
});
setUpTheme(redrawPlots);
window.addEventListener("hashchange", route);
route();
setTimer();
