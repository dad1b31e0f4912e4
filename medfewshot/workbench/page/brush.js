// Painting into one slice of a label volume.
import { axesOf, index, voxelOf } from "./grid.js";

export class Brush {
  // diameter: in voxels of the finer axis of the slice. allow: (index in the volume) -> may it be painted?
  constructor({ labels, shape, spacing, plane, at, value, diameter, allow }) {
    Object.assign(this, { labels, shape, plane, at, value, allow });
    const [u, v] = axesOf(plane);
    this.size = [shape[u], shape[v]];
    const finest = Math.min(spacing[u], spacing[v]);
    this.steps = [spacing[u] / finest, spacing[v] / finest];
    this.radius = diameter / 2;
  }

  set(u, v) {
    if (u < 0 || v < 0 || u >= this.size[0] || v >= this.size[1]) return;
    const at = index(this.shape, voxelOf(this.plane, this.at, u, v));
    if (this.allow(at)) this.labels[at] = this.value;
  }

  // A disc around a voxel. A diameter of 1 is the voxel alone.
  dot(u, v) {
    const reach = Math.max(0, this.radius - 0.5);
    const [ru, rv] = this.steps.map((step) => Math.floor(reach / step));
    for (let dv = -rv; dv <= rv; dv++) {
      for (let du = -ru; du <= ru; du++) {
        if ((du * this.steps[0]) ** 2 + (dv * this.steps[1]) ** 2 <= reach * reach + 0.25) this.set(u + du, v + dv);
      }
    }
  }

  line(from, to) {
    const n = Math.max(1, Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1]));
    for (let i = 0; i <= n; i++) {
      this.dot(...[0, 1].map((axis) => Math.round(from[axis] + ((to[axis] - from[axis]) * i) / n)));
    }
  }

  // The inside of a closed line through voxel centres (even-odd rule), and the line itself.
  fill(points) {
    points.forEach((point, i) => this.line(point, points[(i + 1) % points.length]));
    const rows = points.map((point) => point[1]);
    for (let v = Math.max(0, Math.min(...rows)); v <= Math.min(this.size[1] - 1, Math.max(...rows)); v++) {
      const crossings = [];
      points.forEach(([u0, v0], i) => {
        const [u1, v1] = points[(i + 1) % points.length];
        if (v0 <= v !== v1 <= v) crossings.push(u0 + ((v - v0) / (v1 - v0)) * (u1 - u0));
      });
      crossings.sort((a, b) => a - b);
      for (let i = 0; i + 1 < crossings.length; i += 2) {
        for (let u = Math.ceil(crossings[i]); u <= crossings[i + 1]; u++) this.set(u, v);
      }
    }
  }
}
