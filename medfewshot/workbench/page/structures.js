// The structures of the project: choose, name, colour, add, remove.
import { sendJson } from "./api.js";
import { $, fail, make } from "./dom.js";

const COLOURS = ["#e6194b", "#3cb44b", "#4363d8", "#ffe119", "#f58231", "#911eb4", "#46f0f0", "#f032e6", "#bcf60c", "#fabebe"];

export class Structures {
  // chosen: (value) after a choice; changed: (structures) after an edit.
  constructor({ chosen, changed }) {
    Object.assign(this, { chosen, changed, all: [], value: 0, saved: Promise.resolve() });
    $("add").addEventListener("submit", (event) => {
      event.preventDefault();
      this.add($("add-name").value.trim());
    });
  }

  get current() {
    return this.all.find((one) => one.value === this.value);
  }

  update(structures) {
    const before = JSON.stringify(this.all);
    this.all = structures;
    if (!this.current) this.choose(structures[0]?.value ?? 0);
    if (before !== JSON.stringify(structures)) {
      this.render();
      this.changed(structures);
    }
  }

  choose(value) {
    this.value = value;
    this.chosen(value);
    this.render();
  }

  chooseAt(position) {
    if (this.all[position]) this.choose(this.all[position].value);
  }

  async add(name = "") {
    const added = (all) => {
      const number = 1 + all.reduce((most, one) => Math.max(most, one.value), 0);
      return [...all, { name: name || `structure ${number}`, value: 0, color: COLOURS[all.length % COLOURS.length] }];
    };
    if (!(await this.save(added))) return;
    $("add-name").value = "";
    this.choose(this.all.at(-1).value);
  }

  // change: (structures) => structures. Edits are sent one after the other, each on what the one before left.
  save(change) {
    const send = async () => {
      try {
        const answer = await sendJson("PUT", "structures", change(this.all), { known: JSON.stringify(this.all) });
        this.update(answer.structures);
        return true;
      } catch (error) {
        fail(error);
        this.render();
        return false;
      }
    };
    return (this.saved = this.saved.then(send));
  }

  edit(value, change) {
    return this.save((all) => all.map((one) => (one.value === value ? { ...one, ...change } : one)));
  }

  render() {
    $("structures").replaceChildren(...this.all.map(({ name, value, color }, i) => {
      const choice = make("input", { type: "radio", name: "structure", checked: value === this.value, aria: { label: `Draw ${name}` } });
      const paint = make("input", { type: "color", value: color, title: "Colour", aria: { label: `Colour of ${name}` } });
      const label = make("input", { className: "name", value: name, maxLength: 200, aria: { label: `Name of structure ${value}` } });
      const remove = make("button", { type: "button", textContent: "✕", title: "Remove", aria: { label: `Remove ${name}` } });
      choice.addEventListener("change", () => this.choose(value));
      label.addEventListener("focus", () => { if (this.value !== value) { this.value = value; this.chosen(value); choice.checked = true; } });
      paint.addEventListener("change", () => this.edit(value, { color: paint.value }));
      label.addEventListener("change", () => this.edit(value, { name: label.value.trim() }));
      remove.addEventListener("click", () => this.save((all) => all.filter((one) => one.value !== value)));
      return make("li", { title: `Value ${value}` }, choice, make("kbd", { textContent: i < 9 ? i + 1 : "" }), paint, label, remove);
    }));
  }
}
