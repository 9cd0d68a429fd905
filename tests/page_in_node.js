// Runs the scripts of a page without a browser: node page_in_node.js SCRIPT DATA. Prints the overview as HTML.
// There is no plotly here, as in a browser before the plots are drawn.
const fs = require("fs");
const [scriptPath, dataPath, address] = process.argv.slice(2);

class Text { constructor(text) { this.text = String(text); } html() { return this.text.replaceAll("&", "&amp;").replaceAll("<", "&lt;"); } }
class Element {
  constructor(tag) { this.tag = tag; this.attributes = {}; this.children = []; this.dataset = {}; this.style = {}; this.isConnected = true; this.textContent = ""; }
  setAttribute(name, value) { this.attributes[name] = String(value); }
  append(...children) { this.children.push(...children.map((child) => (child instanceof Element ? child : new Text(child)))); }
  replaceChildren(...children) { this.children = []; this.append(...children); }
  addEventListener() {}
  focus() {}
  scrollIntoView() {}
  remove() {}
  querySelector() { return null; }
  querySelectorAll() { return []; }
  html() {
    const attributes = Object.entries(this.attributes).map(([name, value]) => ` ${name}="${value.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;")}"`);
    return `<${this.tag}${attributes.join("")}>${this.children.map((child) => child.html()).join("")}</${this.tag}>`;
  }
}

const byId = { page: new Element("main"), sections: new Element("nav"), theme: new Element("button"), said: new Element("div") };
byId.data = Object.assign(new Element("script"), { textContent: fs.readFileSync(dataPath, "utf-8") });
byId.svg = Object.assign(new Element("svg"), { namespaceURI: "svg" });
globalThis.document = {
  documentElement: new Element("html"), head: new Element("head"),
  createElement: (tag) => new Element(tag), createElementNS: (space, tag) => new Element(tag),
  getElementById: (id) => byId[id] ?? null, querySelector: () => new Element("a"), querySelectorAll: () => [],
};
globalThis.window = { addEventListener() {} };
globalThis.location = { hash: address ?? "" };
globalThis.matchMedia = () => ({ matches: false, addEventListener() {} });
globalThis.getComputedStyle = () => ({ getPropertyValue: () => "#000000" });
globalThis.scrollTo = () => {};
globalThis.scrollY = 0;
globalThis.CSS = { escape: (text) => text };
globalThis.setTimeout = () => 0;
(0, eval)(fs.readFileSync(scriptPath, "utf-8"));
process.stdout.write(byId.page.html());
