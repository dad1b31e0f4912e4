// NiiVue shows the scan and the labels. Its own drawing tools are not used: see editor.js.
import { Gray, HEADER, refit, upload } from "./gray.js";
import { axesOf, texels, unite, whole, within } from "./grid.js";

const DRAWING_UNIT = 33991; // TEXTURE7, where NiiVue keeps the drawing
const FAINT = 0.005; // NiiVue draws outlines only if the inside is not quite transparent
const LARGEST_3D = 80e6; // voxels; beyond it surfaces are drawn only on demand
const CT_WINDOWS = { "Soft tissue": [40, 400], Lung: [-600, 1500], Bone: [400, 1800], Brain: [40, 80], Liver: [60, 160] };
const DOUBT = [38, 200]; // of 255; below it nothing is drawn
const OUTSIDE = { name: "outside", value: 255, color: "#a0a0a0" };

export class Viewer {
  constructor(canvas) {
    this.canvas = canvas;
    this.plane = 2;
    this.view = "all";
    this.opacity = 0.45;
    this.outline = false;
    this.channel = 0;
    this.onMove = () => {};
    this.onWindow = () => {};
  }

  // Takes seconds, so it runs while the scan is read.
  start() {
    return (this.starting ??= this.begin());
  }

  async begin() {
    if (!document.createElement("canvas").getContext("webgl2")) {
      throw new Error("This browser has no WebGL 2, which the viewer needs. Use a current Chrome, Edge, Firefox or Safari.");
    }
    const nv = new niivue.Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [0.9, 0.9, 0.3, 0.9], crosshairWidth: 0.3, crosshairWidthUnit: "percent", crosshairGap: 6,
      dragAndDropEnabled: false, isColorbar: false, isRadiologicalConvention: true, sagittalNoseLeft: true, isResizeCanvas: true,
      logLevel: "error", loadingText: "", sliceType: 3, multiplanarLayout: 2, multiplanarShowRender: 1, dragMode: 9,
      isNearestInterpolation: true, viewModeHotKey: "none", clipPlaneHotKey: "none", cycleClipPlaneHotKey: "none",
      maxDrawUndoBitmaps: 1, fontColor: [0.9, 0.9, 0.9, 1],
    });
    await nv.attachToCanvas(this.canvas);
    nv.setRenderAzimuthElevation(165, 10); // from the front: the patient's right is on the left here, too
    nv.onLocationChange = () => {
      this.gray.paintAround();
      this.onMove(this.voxel());
    };
    nv.onIntensityChange = (volume) => this.onWindow(volume.cal_min, volume.cal_max);
    const driver = nv.gl.getExtension("WEBGL_debug_renderer_info");
    this.slow = /swiftshader|llvmpipe|software/i.test(driver ? nv.gl.getParameter(driver.UNMASKED_RENDERER_WEBGL) : "");
    this.nv = nv;
    this.gray = new Gray(nv, () => this.voxel());
  }

  // facts: of the server. file: NIfTI bytes. The labels start empty.
  async open(facts, file) {
    await this.start();
    const nv = this.nv;
    const scan = await this.gray.volume(file, facts.shape);
    this.draft = this.doubt = null;
    if (nv.drawBitmap) nv.closeDrawing();
    while (nv.volumes.length) nv.removeVolume(nv.volumes[nv.volumes.length - 1]);
    Object.assign(this, { facts, shape: facts.shape, head: file.slice(0, HEADER), scan, raw: scan.img });
    this.spacing = [0, 1, 2].map((axis) => Math.hypot(...facts.affine.slice(0, 3).map((row) => row[axis])));
    [scan.cal_min, scan.cal_max] = this.firstWindow;
    this.layout(facts.flat === null ? (this.view === "flat" ? "all" : this.view) : "flat");
    nv.scene.crosshairPos = this.shape.map((n) => ((n >> 1) + 0.5) / n);
    this.gray.open(scan, this.shape, { alpha: Boolean(nv.opts.multiplanarShowRender) });
    nv.addVolume(scan);
    nv.drawBitmap = this.labels = new Uint8Array(scan.nVox3D); // createEmptyDrawing would need three of them, and look through all
    nv.drawTexture = nv.r8Tex(nv.drawTexture, DRAWING_UNIT, nv.back.dims);
    this.blank = true;
    nv.scene.pan2Dxyzmm = [0, 0, 0, 1];
    this.moveTo(this.shape.map((n) => n >> 1));
    this.paintStyle();
    this.onWindow(...this.firstWindow);
  }

  // Soft tissue for CT; what the intensities suggest otherwise.
  get firstWindow() {
    return this.windows().get(this.facts.ct ? "Soft tissue" : "Automatic");
  }

  // Show other intensities on the same grid.
  async replace(facts, file) {
    const fresh = await this.gray.volume(file, facts.shape);
    this.scan.img = this.raw = fresh.img;
    this.scan.hdr = fresh.hdr;
    this.facts = facts;
    this.setWindow(...this.firstWindow);
  }

  // Intensity of a voxel in the units of the scan.
  intensity(at) {
    return this.raw[at] * (this.scan.hdr.scl_slope || 1) + this.scan.hdr.scl_inter;
  }

  show(view) {
    this.layout(view);
    this.paintStyle();
  }

  // Which planes are drawn. Everything that costs time waits until the scan is there.
  layout(view) {
    const { nv } = this, { flat, shape } = this.facts;
    this.view = view;
    if (["0", "1", "2"].includes(view)) this.plane = Number(view);
    if (view === "flat") this.plane = flat;
    nv.opts.multiplanarShowRender = this.slow || shape[0] * shape[1] * shape[2] > LARGEST_3D ? 0 : 1;
    nv.opts.sliceType = view === "flat" ? 2 - flat : { all: 3, "3d": 4 }[view] ?? 2 - this.plane;
    this.visible(this.scan, view === "3d" ? 0 : 1); // 3D shows the surfaces alone
  }

  // Opacity of a volume. NiiVue then works through all voxels, so only if it changes.
  visible(volume, opacity) {
    if (volume.opacity === opacity) return;
    volume.opacity = opacity;
    if (this.nv.volumes.includes(volume)) this.nv.updateGLVolume();
  }

  paintStyle() {
    if (!this.nv?.drawBitmap) return;
    const solid = this.view === "3d";
    const both = this.draft && this.showDraft; // the mask is then an outline over the draft
    if (this.draft) this.visible(this.draft, both && !solid ? 0.6 : 0);
    if (this.doubt) this.visible(this.doubt, this.showDoubt && !solid ? 0.7 : 0);
    this.nv.drawRimOpacity = this.opacity && !solid ? 1 : 0;
    this.nv.setDrawOpacity(solid ? 1 : this.outline || both ? FAINT : this.opacity);
  }

  // NiiVue's table of label colours, which must ascend.
  colours(structures, marks = []) {
    const map = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: [""] };
    for (const { name, value, color } of [...structures, ...marks].sort((a, b) => a.value - b.value)) {
      const [red, green, blue] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
      map.R.push(red); map.G.push(green); map.B.push(blue); map.A.push(255); map.I.push(value); map.labels.push(name);
    }
    return map;
  }

  setStructures(structures) {
    this.structures = structures;
    const now = JSON.stringify(structures);
    if (!this.nv?.drawBitmap || now === this.coloured) return;
    this.coloured = now;
    this.nv.drawLut = niivue.cmapper.makeDrawLut(this.colours(structures, [OUTSIDE])); // setDrawColormap would work through all voxels
    this.nv.refreshColormaps();
    this.nv.drawScene();
    if (this.draft) this.draft.setColormapLabel(this.colours(structures));
  }

  setWindow(low, high) {
    [this.scan.cal_min, this.scan.cal_max] = [low, high];
    this.nv.updateGLVolume();
    this.onWindow(low, high);
  }

  windows() {
    const around = ([level, width]) => [level - width / 2, level + width / 2];
    const presets = this.facts.ct ? Object.entries(CT_WINDOWS).map(([name, window]) => [name, around(window)]) : [];
    return new Map([["Automatic", this.facts.window], ...presets, ["Full range", this.facts.range]]);
  }

  // All labels, or none.
  put(labels) {
    if (!labels && this.blank) return;
    if (labels) this.labels.set(labels);
    else this.labels.fill(0);
    this.upload();
  }

  // Bring a changed region of the labels to the graphics card, once a frame.
  upload(box = whole(this.shape)) {
    if (!this.waiting) requestAnimationFrame(() => this.uploadNow());
    this.blank = false;
    this.waiting = unite(this.waiting, box);
  }

  uploadNow() {
    const { box, part } = texels(this.labels, this.shape, this.gray.small, within(this.waiting, whole(this.shape)));
    const { gl, drawTexture } = this.nv;
    this.waiting = null;
    gl.activeTexture(DRAWING_UNIT);
    gl.bindTexture(gl.TEXTURE_3D, drawTexture);
    upload(gl, box, gl.RED, part);
    this.nv.drawScene();
  }

  async setDraft(labels) {
    if (this.draft) this.nv.removeVolume(this.draft);
    this.draft = null;
    if (!labels) return;
    this.draft = await this.overlay(labels);
    this.draft.setColormapLabel(this.colours(this.structures));
    this.nv.addVolume(this.draft);
    this.paintStyle();
  }

  // Where the draft is uncertain: 0 to 255. What is sure stays clear.
  async setDoubt(values) {
    if (this.doubt) this.nv.removeVolume(this.doubt);
    this.doubt = null;
    if (!values) return;
    this.doubt = await this.overlay(values, { colormap: "warm" });
    Object.assign(this.doubt, { colormapType: 1, cal_min: DOUBT[0], cal_max: DOUBT[1] });
    this.nv.addVolume(this.doubt);
    this.paintStyle();
  }

  // One byte a voxel as a volume on the grid of the scan.
  overlay(labels, options = {}) {
    const { shape, gray: { small } } = this, { part } = texels(labels, shape, small, whole(shape));
    const buffer = refit(this.head, shape, small, [2, 8], part), view = new DataView(buffer);
    view.setFloat32(112, 1, true); // no slope
    view.setFloat32(116, 0, true);
    return niivue.NVImage.loadFromUrl({ url: "draft.nii", name: "draft.nii", buffer, opacity: 0, ...options });
  }

  voxel() {
    return this.voxelAt(this.nv.scene.crosshairPos);
  }

  // place: shares of the field of view.
  voxelAt(place) {
    return this.shape.map((n, axis) => Math.min(Math.max(0, Math.round(place[axis] * n - 0.5)), n - 1));
  }

  moveTo(voxel) {
    this.nv.scene.crosshairPos = voxel.map((at, axis) => (at + 0.5) / this.shape[axis]);
    this.gray.paintAround();
    this.nv.drawScene();
    this.onMove(this.voxel());
  }

  step(axis, by) {
    const voxel = this.voxel();
    voxel[axis] = Math.min(Math.max(0, voxel[axis] + by), this.shape[axis] - 1);
    this.moveTo(voxel);
  }

  // The voxel under the mouse: {plane, voxel, scale}; null outside of the slices. scale: pixels of the page per voxel.
  pick(event, plane = null) {
    if (!this.labels) return null;
    const area = this.canvas.getBoundingClientRect(), dense = this.nv.uiData.dpr || 1;
    const x = (event.clientX - area.left) * dense, y = (event.clientY - area.top) * dense;
    const tile = this.nv.tileIndex(x, y);
    const kind = tile < 0 ? 4 : this.nv.screenSlices[tile].axCorSag;
    if (kind > 2 || (plane !== null && 2 - kind !== plane)) return null;
    const place = this.nv.screenXY2TextureFrac(x, y, tile, true);
    if (place[0] < 0) return null;
    const [u] = axesOf(2 - kind), { leftTopWidthHeight: [, , width], fovMM } = this.nv.screenSlices[tile];
    return {
      plane: 2 - kind,
      voxel: this.voxelAt(place),
      scale: Math.abs(width / dense / fovMM[0]) * this.spacing[u],
    };
  }

  millimetres(voxel) {
    return this.facts.affine.slice(0, 3).map((row) => row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2] + row[3]);
  }
}

