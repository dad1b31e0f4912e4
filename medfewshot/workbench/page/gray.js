// The scan on the graphics card: one gray byte a voxel.
//
// NiiVue colours all voxels and derives their gradients: textures of 16 bytes a voxel, and half a minute for a large CT
// without a graphics card. Here it does so for a stand-in: a few voxels that fill the same field of view. Then the gray
// texture takes the stand-in's place. A new window is painted slab by slab, what is on screen first.
import { slice, texels } from "./grid.js";

const SCAN_UNIT = 33984; // TEXTURE0, where NiiVue keeps the scan
export const HEADER = 352; // bytes before the voxels

// A NIfTI file of `small` voxels that fill the field of view of `shape` voxels. type: code and bits of NIfTI.
export function refit(head, shape, small, [code, bits], voxels) {
  const file = new ArrayBuffer(HEADER + (bits >> 3) * small[0] * small[1] * small[2]), view = new DataView(file);
  new Uint8Array(file).set(new Uint8Array(head, 0, HEADER));
  if (voxels) new Uint8Array(file).set(voxels, HEADER);
  view.setInt16(70, code, true);
  view.setInt16(72, bits, true);
  small.forEach((n, axis) => {
    const spacing = view.getFloat32(80 + 4 * axis, true), coarse = (spacing * shape[axis]) / n;
    view.setInt16(42 + 2 * axis, n, true);
    view.setFloat32(80 + 4 * axis, coarse, true);
    view.setFloat32(280 + 20 * axis, coarse, true);
    view.setFloat32(292 + 16 * axis, (coarse - spacing) / 2, true);
  });
  return file;
}

export class Gray {
  // around: () -> the voxel on screen.
  constructor(nv, around) {
    Object.assign(this, { nv, around, waiting: [], stand: null, texture: nv.gl.createTexture() });
    this.slab = 12e6; // voxels that are painted before a frame
    const layers = nv.refreshLayers.bind(nv);
    nv.refreshLayers = (volume, layer) => (layer ? layers(volume, layer) : this.refresh(volume, layers));
  }

  // file: NIfTI bytes of the server, int16. Returns a volume for NiiVue, which knows the grid and the voxels.
  async volume(file, shape) {
    const buffer = refit(file, shape, shape.map((n) => Math.min(n, 2)), [4, 16]);
    const load = () => niivue.NVImage.loadFromUrl({ url: "scan.nii", name: "scan.nii", buffer, colormap: "gray" });
    const [standIn, scan] = [await load(), await load()], view = new DataView(file);
    shape.forEach((n, axis) => {
      const spacing = view.getFloat32(80 + 4 * axis, true);
      scan.hdr.dims[axis + 1] = n;
      scan.hdr.pixDims[axis + 1] = scan.hdr.affine[axis][axis] = spacing;
      scan.hdr.affine[axis][3] = 0;
    });
    scan.calculateRAS();
    return Object.assign(scan, { img: new Int16Array(file, HEADER), nVox3D: shape[0] * shape[1] * shape[2], standIn });
  }

  // alpha: whether 3D shows the scan, too, and needs to see through what is dark.
  open(scan, shape, { alpha }) {
    const { gl } = this.nv, format = alpha ? gl.LUMINANCE_ALPHA : gl.LUMINANCE, most = gl.getParameter(gl.MAX_3D_TEXTURE_SIZE);
    this.small = shape.map((n) => Math.min(n, most)); // a radiograph may be shown coarser than it is drawn
    Object.assign(this, { scan, shape, alpha, format, shown: "", waiting: [] });
    this.bind();
    for (const side of ["S", "T", "R"]) gl.texParameteri(gl.TEXTURE_3D, gl[`TEXTURE_WRAP_${side}`], gl.CLAMP_TO_EDGE);
    for (const kind of ["MIN", "MAG"]) gl.texParameteri(gl.TEXTURE_3D, gl[`TEXTURE_${kind}_FILTER`], gl.NEAREST);
    gl.texImage3D(gl.TEXTURE_3D, 0, format, ...this.small, 0, format, gl.UNSIGNED_BYTE, null);
  }

  bind() {
    const { gl } = this.nv;
    gl.activeTexture(SCAN_UNIT);
    gl.bindTexture(gl.TEXTURE_3D, this.texture);
  }

  // What NiiVue does whenever the scan may look different.
  refresh(scan, layers) {
    const { nv } = this, { pixDimsRAS: pixDims, matRAS } = scan;
    scan.standIn.opacity = scan.opacity;
    nv.volumeTexture = this.stand;
    layers(scan.standIn, 0);
    this.stand = nv.volumeTexture;
    Object.assign(nv.back, { dims: [3, ...this.small], pixDims, matRAS });
    nv.vox = nv.sliceScale(true).vox;
    nv.renderShader.use(nv.gl);
    nv.gl.uniform3fv(nv.renderShader.uniforms.texVox, nv.vox); // the length of a step of 3D
    if (scan !== this.scan || !scan.opacity) return; // 3D shows the surfaces alone: the stand-in is empty
    nv.volumeTexture = this.texture;
    this.paint();
    this.bind();
  }

  // Paint all voxels if the window or the intensities changed.
  paint() {
    const { scan, shape } = this, window = [scan.cal_min, scan.cal_max].join();
    if (window === this.shown && scan.img === this.painted) return;
    Object.assign(this, { shown: window, painted: scan.img, table: this.grays() });
    const step = Math.max(1, Math.floor(this.slab / (shape[0] * shape[1])));
    if (!this.waiting.length) requestAnimationFrame(() => this.paintOn());
    this.waiting = [];
    for (let z = 0; z < shape[2]; z += step) this.waiting.push([0, shape[0], 0, shape[1], z, Math.min(z + step, shape[2])]);
    this.paintAround();
  }

  paintOn() {
    if (!this.waiting.length) return;
    this.put(this.waiting.shift());
    requestAnimationFrame(() => this.paintOn());
  }

  // The slices on screen, before their turn.
  paintAround() {
    if (!this.waiting.length) return;
    if (this.waiting.length === 1) return this.put(this.waiting.pop());
    this.around().forEach((at, axis) => this.put(slice(this.shape, axis, at)));
  }

  // Stored value, as an unsigned number -> gray.
  grays() {
    const { cal_min: low, cal_max: high, hdr } = this.scan, slope = hdr.scl_slope || 1, table = new Uint8ClampedArray(1 << 16);
    for (let value = 0; value < table.length; value++) table[value] = (255 * (((value << 16) >> 16) * slope + hdr.scl_inter - low)) / (high - low || 1);
    return table;
  }

  put(where) {
    const { scan: { img }, shape, small, table, alpha, format } = this, { gl } = this.nv;
    const stored = new Uint16Array(img.buffer, img.byteOffset, img.length), { box, part } = texels(stored, shape, small, where);
    const n = part.length, bytes = new Uint8Array(alpha ? 2 * n : n);
    for (let i = 0; i < n; i++) {
      const gray = table[part[i]];
      if (!alpha) bytes[i] = gray;
      else {
        bytes[2 * i] = gray;
        bytes[2 * i + 1] = gray >> 1; // as NiiVue's gray
      }
    }
    this.bind();
    upload(gl, box, format, bytes);
  }
}

// One byte of each colour into a box of the texture that is bound.
export function upload(gl, box, format, bytes) {
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  gl.texSubImage3D(gl.TEXTURE_3D, 0, box[0], box[2], box[4], box[1] - box[0], box[3] - box[2], box[5] - box[4], format, gl.UNSIGNED_BYTE, bytes);
}
