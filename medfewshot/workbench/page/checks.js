// The check of the examples: how well each mask fits those of the others, and a picture of its worst slice.
import { getPicture } from "./api.js";
import { $, askDialog, make } from "./dom.js";

const FEW = "With three labelled scans, each is compared with the others, and a mask that fits none of them is named.";

export class Checks {
  // go: (name, {plane, slice}) shows that slice.
  constructor({ go }) {
    this.go = go;
  }

  // rows: of the last learning: {case, dice, message}; examples: how many there are now.
  show(rows, examples) {
    $("checks").replaceChildren(...rows.map((row) => this.row(row)));
    const unknown = rows.length && rows.every(({ dice }) => dice === null) ? "The learner that is set does not compare examples; press one to compare it now. " : "";
    $("checks-text").textContent = examples < 3 ? FEW : rows.length ? `${unknown}Dice of each mask against the others, when you last learned.` : "Press Learn to compare the examples.";
  }

  row(row) {
    const { case: name, dice, message } = row, score = dice === null ? "–" : dice.toFixed(2);
    const button = make("button", { type: "button", title: message || "Compare with another example" },
      make("span", { className: "name", textContent: name }), make("span", { className: "score", textContent: score }),
      ...(message ? [make("span", { className: "reason warned", textContent: message })] : []));
    button.addEventListener("click", () => this.picture(row));
    return make("li", {}, button);
  }

  async picture({ case: name, message }) {
    const image = $("check-picture"), open = $("check-dialog").querySelector("[value=open]");
    $("check-title").textContent = name;
    $("check-message").textContent = message;
    $("check-text").textContent = "Comparing with another example …";
    image.hidden = open.disabled = true;
    const closed = askDialog($("check-dialog"));
    const mine = (this.asked = {});
    let place = null;
    try {
      const { facts, url } = await getPicture(name);
      if (mine !== this.asked) return;
      place = facts;
      image.src = url;
      image.alt = `Slice ${facts.slice + 1} of ${name}: mask and prediction`;
      image.hidden = open.disabled = false;
      const dice = facts.dice === null ? "" : ` Dice of the whole mask: ${facts.dice.toFixed(2)}.`;
      $("check-text").textContent = `The slice that differs most. Dashed: your mask. Colours: what ${facts.other} predicts.${dice}`;
    } catch (error) {
      $("check-text").textContent = error.message;
    }
    const answer = await closed;
    URL.revokeObjectURL(image.src);
    if (answer === "open" && place) this.go(name, place);
  }
}
