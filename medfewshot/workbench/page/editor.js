// Drawing with mouse and keyboard: one slice at a time, with undo and redo.
import { runTool } from "./api.js";
import { Brush } from "./brush.js";
import { axesOf, boxWhere, cut, index, paste, slice, slicer, whole, within } from "./grid.js";
import { OUTSIDE } from "./saver.js";

const UNDO_BYTES = 256e6;
const MARGIN = 12; // voxels around the marks in which they may grow
const copy = (drawn) => drawn && { plane: drawn.plane, slices: new Set(drawn.slices) };

export class Editor {
  // viewer, saver; say: (sentence) for the user; changed: () after every change.
  constructor({ viewer, saver, say, changed }) {
    Object.assign(this, { viewer, saver, say, changed, tool: "look", value: 1, diameter: 5, reach: 30, deep: false, protect: true, limits: null, last: [2, 0] });
    this.reset({ drawn: null });
    const stage = viewer.canvas.parentElement;
    // Before NiiVue sees them: the left button draws unless the tool is "look".
    ["mousedown", "touchstart"].forEach((kind) => stage.addEventListener(kind, (event) => this.drawing && event.button !== 2 && event.stopPropagation(), true));
    stage.addEventListener("pointerdown", (event) => this.press(event), true);
    stage.addEventListener("pointermove", (event) => this.move(event), true);
    window.addEventListener("pointerup", () => this.release());
    window.addEventListener("pointercancel", () => this.release());
  }

  // drawn: {plane, slices: Set} or null if the whole scan counts.
  reset({ drawn }) {
    Object.assign(this, { drawn, done: [], undone: [], stroke: null, vertices: [] });
  }

  get drawing() {
    return this.tool !== "look" && Boolean(this.viewer.labels);
  }

  get marks() {
    return this.tool === "erase" ? 0 : this.tool === "outside" ? OUTSIDE : this.value;
  }

  allow() {
    const { viewer, value, protect, limits, tool } = this, { labels } = viewer;
    return (at) => {
      const old = labels[at];
      if (protect && old && old !== value && old !== OUTSIDE) return false;
      if (!limits || tool === "erase" || tool === "outside") return true;
      const intensity = viewer.intensity(at);
      return intensity >= limits[0] && intensity <= limits[1];
    };
  }

  brush(plane, at, diameter) {
    const { labels, shape, spacing } = this.viewer;
    return new Brush({ labels, shape, spacing, plane, at, value: this.marks, diameter, allow: this.allow() });
  }

  press(event) {
    if (!this.drawing || event.button !== 0) return;
    const place = this.viewer.pick(event);
    if (!place) return;
    event.preventDefault();
    event.stopPropagation();
    this.viewer.canvas.focus();
    this.viewer.moveTo(place.voxel);
    this.begin(place.plane, place.voxel);
    if (this.tool === "click") this.release();
  }

  begin(plane, voxel) {
    const { labels, shape } = this.viewer, at = voxel[plane], [u, v] = axesOf(plane);
    this.viewer.plane = plane;
    this.last = [plane, at];
    if (this.tool === "click") return this.click(plane, voxel);
    const box = slice(shape, plane, at), point = [voxel[u], voxel[v]];
    const brush = this.brush(plane, at, this.tool === "contour" ? 1 : this.diameter);
    this.stroke = { box, before: cut(labels, shape, box), brush, plane, at, points: [point] };
    brush.line(point, point);
    this.viewer.upload(box);
  }

  move(event) {
    if (!this.stroke) return;
    event.stopPropagation();
    const { plane, brush, points, box } = this.stroke, place = this.viewer.pick(event, plane);
    if (!place) return;
    const [u, v] = axesOf(plane), point = [place.voxel[u], place.voxel[v]], last = points[points.length - 1];
    if (point[0] === last[0] && point[1] === last[1]) return;
    brush.line(last, point);
    points.push(point);
    this.viewer.upload(box);
  }

  release() {
    const stroke = this.stroke;
    if (!stroke) return;
    this.stroke = null;
    if (this.tool === "contour") stroke.brush.fill(stroke.points);
    this.commit(stroke.box, stroke.before, [stroke.plane, [stroke.at]]);
  }

  // The keyboard's pen: a dot at the cross; with the contour tool a corner, which Enter closes.
  stamp() {
    const { plane } = this.viewer, voxel = this.viewer.voxel();
    if (this.tool !== "contour") {
      this.begin(plane, voxel);
      return this.release();
    }
    if (this.vertices.length && (this.vertices[0].plane !== plane || this.vertices[0].voxel[plane] !== voxel[plane])) this.vertices = [];
    this.vertices.push({ plane, voxel });
    this.say(`Corner ${this.vertices.length}. Enter closes the contour.`);
  }

  close() {
    if (this.vertices.length < 3) return this.say("A contour needs three corners: Space sets one.");
    const [u, v] = axesOf(this.vertices[0].plane), points = this.vertices.map(({ voxel }) => [voxel[u], voxel[v]]);
    this.begin(this.vertices[0].plane, this.vertices[0].voxel);
    this.stroke.points = points;
    this.vertices = [];
    this.release();
  }

  // Keep a change in the history, count its slices (null: the whole scan) as finished, show and save it.
  commit(box, before, counted) {
    const { labels, shape } = this.viewer, now = cut(labels, shape, box);
    const changed = boxWhere(shape, box, now, (value, i) => value !== before[i]);
    this.viewer.upload(box);
    if (!changed) return counted || this.setDrawn(null);
    const old = copy(this.drawn);
    if (!counted) this.drawn = null;
    else if (this.marks !== OUTSIDE) this.count(...counted);
    this.keep({ box, before, after: now, drawn: [old, copy(this.drawn)] }, changed);
  }

  keep(change, box) {
    this.done.push(change);
    this.undone = [];
    for (let bytes = this.done.reduce((sum, one) => sum + 2 * one.after.length, 0); bytes > UNDO_BYTES && this.done.length > 1;) {
      bytes -= 2 * this.done.shift().after.length;
    }
    this.saver.mark(box);
    this.changed();
  }

  count(plane, slices) {
    if (!this.drawn) return;
    if (!this.drawn.slices.size) this.drawn.plane = plane;
    if (this.drawn.plane === plane) slices.forEach((at) => this.drawn.slices.add(at));
  }

  setDrawn(drawn) {
    const box = [0, 1, 0, 1, 0, 1], part = cut(this.viewer.labels, this.viewer.shape, box), old = this.drawn;
    this.drawn = drawn;
    this.keep({ box, before: part, after: part, drawn: [old, copy(drawn)] }, box);
  }

  // The slices that counted before the whole scan did, or none.
  countSlices() {
    const before = this.done.findLast(({ drawn }) => drawn[0]);
    this.setDrawn(before ? copy(before.drawn[0]) : { plane: this.viewer.plane, slices: new Set() });
  }

  undo() {
    this.swap(this.done, this.undone, "before", 0);
  }

  redo() {
    this.swap(this.undone, this.done, "after", 1);
  }

  swap(from, to, side, which) {
    const one = from.pop();
    if (!one) return this.say(side === "before" ? "There is nothing to undo." : "There is nothing to redo.");
    to.push(one);
    this.drawn = copy(one.drawn[which]);
    this.put(one.box, one[side]);
    this.saver.mark(one.box);
    this.changed();
  }

  put(box, part) {
    paste(this.viewer.labels, this.viewer.shape, box, part);
    this.viewer.upload(box);
  }

  // Replace a region by what `next` makes of it: (old label, index in the part, index in the volume) -> new label.
  rewrite(box, next, counted = [2, []]) {
    const { labels, shape } = this.viewer, before = cut(labels, shape, box), after = before.slice();
    let i = 0;
    for (let z = box[4]; z < box[5]; z++) {
      for (let y = box[2]; y < box[3]; y++) {
        for (let at = index(shape, [box[0], y, z]), x = box[0]; x < box[1]; x++, i++, at++) after[i] = next(before[i], i, at);
      }
    }
    paste(labels, shape, box, after);
    this.commit(box, before, counted);
  }

  async click(plane, voxel) {
    const limits = this.limits || [];
    const found = await this.ask({ tool: "click", seed: voxel.join(","), plane: this.deep ? -1 : plane, low: limits[0], high: limits[1], reach: this.reach });
    if (!found) return;
    const allow = this.allow();
    this.rewrite(found.box, (old, i, at) => (found.labels[i] && allow(at) ? this.value : old), [plane, [voxel[plane]]]);
  }

  // What a tool of the server proposes; null if another scan was opened meanwhile.
  async ask(params, labels) {
    const { name } = this.saver;
    try {
      const found = await runTool({ case: name, channel: this.viewer.channel, ...params }, labels);
      return name === this.saver.name && this.viewer.labels ? found : null;
    } catch (error) {
      this.say(error.message);
      return null;
    }
  }

  // The smallest box that contains every voxel whose label passes the test.
  extent(test) {
    return boxWhere(this.viewer.shape, whole(this.viewer.shape), this.viewer.labels, test);
  }

  async fillBetween() {
    const { labels, shape } = this.viewer, plane = this.drawn?.slices.size ? this.drawn.plane : this.last[0];
    const box = this.extent((label) => label === this.value);
    if (!box) return this.say("Draw this structure in two slices first.");
    const found = await this.ask({ tool: "fill", value: this.value, plane, box: box.join(",") }, cut(labels, shape, box));
    if (!found) return;
    const between = [];
    for (let at = box[2 * plane]; at < box[2 * plane + 1]; at++) between.push(at);
    this.rewrite(box, (old, i) => (old === 0 || old === OUTSIDE ? found.labels[i] : old), [plane, between]);
  }

  async grow() {
    const { labels, shape } = this.viewer, marks = this.extent((label) => label > 0);
    if (!marks) return this.say("Mark the structure, then the background with the outside pen.");
    const box = within(marks.map((edge, i) => edge + (i % 2 ? MARGIN : -MARGIN)), whole(shape));
    const found = await this.ask({ tool: "grow", box: box.join(",") }, cut(labels, shape, box));
    if (!found) return;
    const plane = this.last[0], across = [];
    for (let at = box[2 * plane]; at < box[2 * plane + 1]; at++) across.push(at);
    this.tool = "look";
    this.rewrite(box, (old, i) => found.labels[i], [plane, across]);
  }

  // Finished slices keep what is drawn there; the draft takes the place of the rest.
  copyDraft(draft) {
    const box = whole(this.viewer.shape), { plane, slices } = this.drawn || { plane: 0, slices: new Set() };
    const sliceAt = slicer(box, plane);
    this.rewrite(box, (old, i) => (slices.has(sliceAt(i)) ? old : draft[i]), null);
  }

  // Everything of the slice whose intensity is inside the limits.
  fillRange() {
    if (!this.limits) return this.say("Choose an intensity range first: tick “Only intensities”, or press Otsu.");
    const { plane } = this.viewer, at = this.viewer.voxel()[plane], allow = this.allow();
    this.rewrite(slice(this.viewer.shape, plane, at), (old, i, where) => (allow(where) ? this.value : old), [plane, [at]]);
  }
}

