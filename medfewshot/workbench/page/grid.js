// Boxes of a volume whose first axis is fastest. A box is [x0, x1, y0, y1, z0, z1], ends exclusive.
export const whole = (shape) => [0, shape[0], 0, shape[1], 0, shape[2]];
export const count = (box) => (box[1] - box[0]) * (box[3] - box[2]) * (box[5] - box[4]);
export const index = (shape, [x, y, z]) => x + shape[0] * (y + shape[1] * z);

// The one slice across `plane` at `at`.
export function slice(shape, plane, at) {
  const box = whole(shape);
  box[2 * plane] = at;
  box[2 * plane + 1] = at + 1;
  return box;
}

export function unite(first, second) {
  if (!first || !second) return first || second;
  return first.map((edge, i) => (i % 2 ? Math.max(edge, second[i]) : Math.min(edge, second[i])));
}

function* rows(shape, box) {
  const length = box[1] - box[0];
  let at = 0;
  for (let z = box[4]; z < box[5]; z++) {
    for (let y = box[2]; y < box[3]; y++, at += length) yield [box[0] + shape[0] * (y + shape[1] * z), at, length, y, z];
  }
}

export function cut(volume, shape, box) {
  if (count(box) === volume.length) return volume.slice();
  const part = new volume.constructor(count(box));
  for (const [from, to, length] of rows(shape, box)) part.set(volume.subarray(from, from + length), to);
  return part;
}

// (index in what `cut` gives of a box) -> the slice across `plane` that contains this voxel.
export function slicer(box, plane) {
  const size = [0, 2, 4].map((at) => box[at + 1] - box[at]), step = [1, size[0], size[0] * size[1]][plane];
  return (i) => box[2 * plane] + (Math.floor(i / step) % size[plane]);
}

// What a texture of `small` voxels shows of a box: {box: in the texture, part}. It takes the voxels nearest to its own.
export function texels(volume, shape, small, box) {
  if (small.every((n, axis) => n === shape[axis])) return { box, part: cut(volume, shape, box) };
  const inside = box.map((edge, i) => Math.ceil((edge * small[i >> 1]) / shape[i >> 1] - 0.5));
  const places = [0, 1, 2].map((axis) => {
    const [from, to] = inside.slice(2 * axis, 2 * axis + 2);
    return Array.from({ length: to - from }, (_, i) => Math.floor(((from + i + 0.5) * shape[axis]) / small[axis]));
  });
  const part = new volume.constructor(count(inside));
  let at = 0;
  for (const z of places[2]) for (const y of places[1]) for (const x of places[0]) part[at++] = volume[index(shape, [x, y, z])];
  return { box: inside, part };
}

export function paste(volume, shape, box, part) {
  if (count(box) === volume.length) return volume.set(part);
  for (const [to, from, length] of rows(shape, box)) volume.set(part.subarray(from, from + length), to);
}

// The smallest box inside `box` whose voxels pass the test, or null. `part` is what `cut` gives.
export function boxWhere(shape, box, part, test) {
  let found = null;
  for (const [, at, length, y, z] of rows(shape, box)) {
    let first = 0, last = length - 1;
    while (first < length && !test(part[at + first], at + first)) first++;
    if (first === length) continue;
    while (!test(part[at + last], at + last)) last--;
    found = unite(found, [box[0] + first, box[0] + last + 1, y, y + 1, z, z + 1]);
  }
  return found;
}

export const within = (box, outer) => [
  Math.max(box[0], outer[0]), Math.min(box[1], outer[1]), Math.max(box[2], outer[2]),
  Math.min(box[3], outer[3]), Math.max(box[4], outer[4]), Math.min(box[5], outer[5]),
];

// The two axes of a slice, and a voxel from its place in the slice.
export const axesOf = (plane) => [[1, 2], [0, 2], [0, 1]][plane];
export function voxelOf(plane, at, u, v) {
  const voxel = [at, at, at], [first, second] = axesOf(plane);
  voxel[first] = u;
  voxel[second] = v;
  return voxel;
}
