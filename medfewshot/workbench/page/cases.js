// The list of scans: status, reason, search; the order is what to label next.
import { $, make } from "./dom.js";

export class Cases {
  // open: (name) shows a scan.
  constructor(open) {
    this.open = open;
    this.all = [];
    this.current = null;
    this.list = $("cases");
    this.list.addEventListener("click", (event) => {
      const row = event.target.closest("li");
      if (row) this.open(row.dataset.name);
    });
    this.list.addEventListener("keydown", (event) => {
      const by = { ArrowDown: 1, ArrowUp: -1, Home: -1e9, End: 1e9 }[event.key];
      if (!by && event.key !== "Enter") return;
      event.preventDefault();
      event.stopPropagation();
      if (event.key === "Enter") return this.open(this.marked);
      this.mark(this.neighbour(by, this.marked));
    });
    $("find").addEventListener("input", () => this.render());
    $("find").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && this.shown().length) this.open(this.shown()[0].name);
    });
  }

  get(name) {
    return this.all.find((one) => one.name === name);
  }

  shown() {
    const words = $("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    return this.all.filter((one) => words.every((word) => `${one.name} ${one.status} ${one.reason} ${one.check} ${one.note}`.toLowerCase().includes(word)));
  }

  neighbour(by, from = this.current) {
    const names = this.shown().map((one) => one.name), at = names.indexOf(from) + by;
    return names[Math.abs(by) > 1 ? Math.min(Math.max(0, at), names.length - 1) : (at + names.length) % names.length];
  }

  // The next frame (by: 1 or -1) of the film that the open scan is a frame of.
  frame(by) {
    const film = (name) => name.replace(/\d+$/, ""), open = this.get(this.current);
    return this.all.find((one) => one.frame !== null && one.frame === open?.frame + by && film(one.name) === film(open.name))?.name;
  }

  // The scan that should be labelled next: the first one that is not open and that nobody has dealt with.
  next() {
    return this.all.find((one) => one.name !== this.current && ["needs review", "draft", "unlabelled"].includes(one.status))?.name;
  }

  update(cases) {
    this.all = cases;
    const counts = Map.groupBy ? Map.groupBy(cases, (one) => one.status) : new Map();
    $("counts").textContent = [`${cases.length} scans`, ...[...counts].map(([status, rows]) => `${rows.length} ${status}`)].join(" · ");
    this.render();
  }

  choose(name) {
    this.current = name;
    this.marked = name;
    this.render();
    this.list.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
  }

  mark(name) {
    this.marked = name;
    this.list.querySelectorAll("li").forEach((row) => row.classList.toggle("marked", row.dataset.name === name));
    const row = this.list.querySelector(".marked");
    if (row) {
      this.list.setAttribute("aria-activedescendant", row.id);
      row.scrollIntoView({ block: "nearest" });
    }
  }

  // Rows are kept by name, so that 1,000 scans stay smooth while states change.
  render() {
    this.rows ??= new Map();
    const rows = this.shown().map((one) => {
      const text = JSON.stringify([one.status, one.reason, one.check, one.confidence, one.distance, one.note, one.name === this.current]);
      const kept = this.rows.get(one.name);
      if (kept?.text === text) return kept.row;
      const row = this.row(one);
      this.rows.set(one.name, { text, row });
      return row;
    });
    this.list.replaceChildren(...rows);
    if (!rows.length) this.list.append(make("li", { className: "none", textContent: this.all.length ? "No scan fits." : "There are no scans." }));
  }

  row({ name, status, reason, check, confidence, distance, note }) {
    const badge = make("span", { className: "badge", data: { status }, textContent: status });
    const score = confidence === null || !["draft", "needs review"].includes(status) ? [] : [make("span", { className: "score", title: "Expected Dice of the draft", textContent: confidence.toFixed(2) })];
    const row = make("li", { data: { name }, id: `case-${this.all.findIndex((one) => one.name === name)}`, aria: { role: "option", selected: String(name === this.current) } },
      make("span", { className: "name", textContent: name, title: name }), make("span", { className: "line" }, badge, ...score));
    const far = score.length && distance !== null ? `distance ${distance.toFixed(1)} to the examples` : "";
    if (reason || far) row.append(make("span", { className: "reason", textContent: [reason, far].filter(Boolean).join(" · ") }));
    if (check) row.append(make("span", { className: "reason warned", textContent: check }));
    if (note) row.append(make("span", { className: "reason", textContent: `“${note}”` }));
    return row;
  }
}
