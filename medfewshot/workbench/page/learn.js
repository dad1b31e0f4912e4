// Learn, progress, review, the quality curve and the export.
import { sendJson } from "./api.js";
import { $, askDialog, draw, fail, make, say } from "./dom.js";

const LAST = 5;
const ENDS = { done: "Done. Review the drafts.", cancelled: "Cancelled. What was learned before stays." };

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
const time = (seconds) => (seconds >= 90 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds)} s`);

export class Learning {
  // current: () -> the open case or null; seen: () -> version and draft on screen; flush: () saves; refresh: () reads the project again.
  constructor({ current, seen, flush, refresh }) {
    Object.assign(this, { current, seen, flush, refresh });
    $("learn").addEventListener("click", () => this.learn());
    $("cancel").addEventListener("click", () => sendJson("POST", "cancel", {}).catch(fail));
    $("export").addEventListener("click", () => this.openExport());
    $("export-go").addEventListener("click", () => this.export());
  }

  async learn() {
    if (!(await this.flush())) return;
    try {
      await sendJson("POST", "learn", { case: this.current(), quality: $("quality").value });
      this.showJob({ status: "running", stage: "starting" });
    } catch (error) {
      fail(error);
    }
  }

  showJob(job) {
    const running = job.status === "running", part = job.total ? job.done / job.total : null;
    $("learn").disabled = running;
    $("cancel").hidden = !running;
    $("progress").hidden = !running;
    if (part === null) $("progress").removeAttribute("value");
    else $("progress").value = part;
    const left = running && job.seconds_left ? `, about ${time(job.seconds_left)} left` : "";
    const what = [job.stage, job.case].filter(Boolean).join(": ");
    const text = running ? `${what || "working"}${job.total ? ` (${job.done} of ${job.total})` : ""}${left}` : job.error || [ENDS[job.status], ...(job.warnings || [])].filter(Boolean).map(sentence).join(" ");
    if ($("job").textContent !== text) $("job").textContent = text;
    $("job").classList.toggle("failed", job.status === "failed");
  }

  async review(status, note = "") {
    const name = this.current();
    if (!name || !(await this.flush())) return false;
    try {
      await sendJson("POST", "review", { case: name, status, note, ...this.seen() });
      await this.refresh();
      if (status) say(`${name}: ${status}.`);
      return true;
    } catch (error) {
      fail(error);
      return false;
    }
  }

  async note(old) {
    if (!this.current()) return;
    $("note-input").value = old || "";
    if ((await askDialog($("note-dialog"))) === "save") await this.review("", $("note-input").value.trim());
  }

  // Dice between drafts and what they were corrected to, in the order of the reviews.
  showCurve(points, advice) {
    const box = $("curve");
    box.replaceChildren();
    if (!points.length) return;
    const width = 260, height = 70, x = (i) => 8 + (i * (width - 16)) / Math.max(1, points.length - 1), y = (dice) => 6 + (1 - dice) * (height - 12);
    const line = points.map(({ dice }, i) => `${x(i)},${y(dice)}`).join(" ");
    const last = points.slice(-LAST), mean = last.reduce((sum, { dice }) => sum + dice, 0) / last.length;
    const text = `Drafts agree with your corrections: Dice ${mean.toFixed(2)}, mean of the last ${last.length}.`;
    box.append(
      draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": text },
        ...[0, 0.5, 1].map((dice) => draw("line", { class: "grid", x1: 8, x2: width - 8, y1: y(dice), y2: y(dice) })),
        draw("polyline", { class: "path", points: line }),
        ...points.map(({ dice, case: name }, i) => draw("circle", { class: "dot", cx: x(i), cy: y(dice), r: 3 }, draw("title", {}, `${name}: ${dice.toFixed(3)}`)))),
      make("p", { className: "small", textContent: [text, advice].filter(Boolean).join(" ") }));
  }

  setFormats(formats) {
    $("formats").replaceChildren(...Object.entries(formats).map(([name, text], i) =>
      make("label", { className: "check" }, make("input", { type: "checkbox", value: name, checked: i === 0 }), ` ${text}`)));
  }

  openExport() {
    $("exported").textContent = "";
    return askDialog($("export-dialog"));
  }

  async export() {
    if (!(await this.flush())) { $("exported").textContent = $("saved").textContent; return; }
    const chosen = [...document.querySelectorAll("#formats input:checked")].map((box) => box.value);
    if (!chosen.length) { $("exported").textContent = "Choose a format."; return; }
    $("export-go").disabled = true;
    $("exported").textContent = "Writing …";
    try {
      const { files, notes } = await sendJson("POST", "export", chosen);
      const rest = files.length > 10 ? ` and ${files.length - 10} more` : "";
      const list = files.length ? `Written: ${files.slice(0, 10).join(", ")}${rest}.` : "Nothing was written.";
      $("exported").textContent = [list, ...notes].join(" ");
    } catch (error) {
      $("exported").textContent = error.message;
    }
    $("export-go").disabled = false;
  }
}
