// Saves what was drawn a moment after each stroke. Nothing is dropped: what could not be saved is tried again.
import { putMask } from "./api.js";
import { cut, unite, whole } from "./grid.js";

const SOON_MS = 400;
const AGAIN_MS = 4000;
export const OUTSIDE = 255; // marks of the background: never saved

export class Saver {
  // tell: (state, message) with state "saved", "waiting", "saving" or "failed". ask: () -> "mine" or "theirs".
  constructor({ tell, ask, reload }) {
    Object.assign(this, { tell, ask, reload, dirty: null, running: null });
  }

  // blank: there is neither a mask nor a draft. drawn: () -> {plane, slices} or null for the whole scan.
  open({ name, shape, labels, version, blank, drawn }) {
    Object.assign(this, { name, shape, labels, version, blank, drawn, dirty: null });
    clearTimeout(this.timer);
    this.tell("saved", "");
  }

  get pending() {
    return Boolean(this.dirty || this.running);
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
      // Until there is a mask of one's own on disk, the page may show a draft that is replaced meanwhile.
      const box = this.version || this.blank ? this.dirty : whole(this.shape);
      this.dirty = null;
      this.tell("saving", "Saving");
      const part = cut(this.labels, this.shape, box).map((value) => (value === OUTSIDE ? 0 : value));
      try {
        this.version = await putMask(this.name, box, part, { version: this.version, drawn: this.drawn() });
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
