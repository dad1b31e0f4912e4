// Shortcuts: one table, which the help shows.
import { $, make } from "./dom.js";

// actions: {group: [[key, text, action], ...]}. A key may be "Ctrl+z".
export function shortcuts(actions) {
  const table = new Map();
  for (const [group, rows] of Object.entries(actions)) {
    const part = make("tbody", {}, make("tr", {}, make("th", { colSpan: 2, textContent: group })));
    $("keys").append(part);
    for (const [keys, text, action] of rows) {
      keys.split(" ").forEach((key) => table.set(key === "Space" ? " " : key, action));
      if (!text) continue;
      const names = keys.split(" ").flatMap((key) => [make("kbd", { textContent: key.length === 1 ? key.toUpperCase() : key }), " "]);
      part.append(make("tr", {}, make("td", {}, ...names), make("td", { textContent: text })));
    }
  }
  const typing = (target) => target.matches("textarea, select, input:not([type=radio]):not([type=checkbox]):not([type=range])");
  const own = (target, key) => (target.matches("[role=listbox]") && key.length > 1) || (target.matches("input") && key.startsWith("Arrow")) || (target.matches("button, input, a, select") && [" ", "Enter"].includes(key));
  document.addEventListener("keydown", (event) => {
    if (event.altKey || document.querySelector("dialog[open]") || typing(event.target)) return;
    const letter = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const name = event.ctrlKey || event.metaKey ? `Ctrl+${event.shiftKey ? "Shift+" : ""}${letter}` : letter;
    const action = table.get(name);
    if (!action || own(event.target, event.key)) return;
    event.preventDefault();
    event.stopPropagation(); // NiiVue has shortcuts of its own
    action(event);
  }, true);
}
