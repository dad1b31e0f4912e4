// Saves what was drawn a moment after each stroke. Nothing is dropped: what could not be saved is tried again.
import { putMask } from "./api.js";
import { cut, slicer, unite, whole } from "./grid.js";

const SOON_MS = 400;
const AGAIN_MS = 4000;
export const OUTSIDE = 255; // marks of the background: never saved

export class Saver {
  // tell: (state, message) with state "saved", "waiting", "saving" or "failed". ask: () -> "mine" or "theirs".
  constructor({ tell, ask, reload }) {
    Object.assign(this, { tell, ask, reload, dirty: null, running: null });
  }

  // scan: the stamp of its file. draft: a copy of the labels if they are a draft, else null. drawn: () -> {plane, slices} or null for the whole scan.
  open({ name, scan, shape, labels, version, draft, drawn }) {
    Object.assign(this, { name, scan, shape, labels, version, draft, drawn, dirty: null, sent: null });
    clearTimeout(this.timer);
    this.tell("saved", "");
  }

  get pending() {
    return Boolean(this.dirty || this.running);
  }

  // Whether the labels are a draft that nobody changed.
  get untouched() {
    const { draft, labels } = this;
    return Boolean(draft && !this.drawn() && labels.every((value, i) => (value === OUTSIDE ? 0 : value) === draft[i]));
  }

  // What is saved of a box: of a draft only what is finished or changed.
  part(box, drawn) {
    const part = cut(this.labels, this.shape, box), draft = this.draft && drawn && cut(this.draft, this.shape, box);
    const sliceAt = draft && slicer(box, drawn.plane);
    return part.map((value, i) => (value === OUTSIDE || (draft && value === draft[i] && !drawn.slices.has(sliceAt(i))) ? 0 : value));
  }

  mark(box) {
    this.dirty = unite(this.dirty, box);
    this.tell("waiting", "Not saved yet");
    this.schedule(SOON_MS);
  }

  schedule(delay) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.flush(), delay);
  }

  // Save now. True if everything is saved.
  async flush() {
    clearTimeout(this.timer);
    while (this.running) await this.running;
    this.running = this.save();
    try {
      return (await this.running) && !this.dirty;
    } finally {
      this.running = null;
    }
  }

  async save() {
    while (this.dirty) {
      const drawn = this.untouched ? { plane: 0, slices: new Set() } : this.drawn(), counts = drawn ? [drawn.plane, ...drawn.slices].join() : "all";
      // The server has only what counts of a draft, which may be replaced there meanwhile.
      const box = this.draft && counts !== this.sent ? whole(this.shape) : this.dirty;
      this.dirty = null;
      if (!this.version && this.untouched) break;
      this.tell("saving", "Saving");
      try {
        this.version = await putMask(this.name, box, this.part(box, drawn), { version: this.version, drawn, scan: this.scan });
        this.sent = counts;
      } catch (error) {
        this.dirty = unite(this.dirty, box);
        if (error.status !== 409) {
          this.tell("failed", error.message);
          this.schedule(AGAIN_MS);
          return false;
        }
        if ((await this.ask()) === "theirs") {
          this.dirty = null;
          await this.reload();
          return true;
        }
        this.version = error.facts.current;
        this.dirty = whole(this.shape);
      }
    }
    this.tell("saved", this.version ? `Saved (version ${this.version})` : "");
    return true;
  }
}
