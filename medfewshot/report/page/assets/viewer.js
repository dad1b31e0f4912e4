"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const settings = JSON.parse($("settings").textContent);

  const dialog = $("viewer"), canvas = $("canvas"), where = $("where"), opacity = $("opacity");
  const level = $("level"), width = $("width"), outlines = $("outlines"), uncertainty = $("uncertainty"), solid = $("solid");
  const NAMES = ["image", "labels", "reference", "uncertainty"];
  const FAINT = 0.005;  // NiiVue draws the outline of a drawing only if its inside is not quite transparent
  const WHITE = "#ffffff";
  const hidden = new Set();  // structures that are switched off
  const frame = $("frame"), play = $("play");
  let nv = null, current = 0, loading = 0, layers = {}, playing = null;

  settings.labels.forEach((label, i) => {
    const line = document.createElement("label"), box = document.createElement("input"), swatch = document.createElement("i");
    box.type = "checkbox"; box.checked = true; swatch.className = "dot"; swatch.style.background = label.colour;
    line.append(box, " ", swatch, label.name);
    $("structures").append(line);
    box.addEventListener("change", () => { box.checked ? hidden.delete(i) : hidden.add(i); paint(); });
  });

  const colormap = (colour) => {
    const map = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: ["background"] };
    settings.labels.forEach((label, i) => {
      const channel = (at) => parseInt((colour || label.colour).slice(at, at + 2), 16);
      map.R.push(channel(1)); map.G.push(channel(3)); map.B.push(channel(5));
      map.A.push(hidden.has(i) ? 0 : 255); map.I.push(i + 1); map.labels.push(label.name);
    });
    return map;
  };
  const shown = () => document.querySelector("input[name=map]:checked").value;
  const outline = (layer, colour) => {
    if (!layer) return nv.drawBitmap && nv.closeDrawing();
    const size = layer.nVox3D, at = (layer.nFrame4D > 1 ? layer.frame4D : 0) * size;
    nv.loadDrawing({ hdr: layer.hdr, permRAS: layer.permRAS, img: layer.img.slice(at, at + size) });
    nv.setDrawColormap(colormap(colour));
    nv.drawRimOpacity = 1;
    nv.setDrawOpacity(FAINT);
  };

  const film = () => settings.cases[current].frames;
  const elsewhere = () => film().length > 0 && Number(frame.value) !== settings.cases[current].paused;
  const toFrame = (n) => {  // the reference belongs to one frame alone
    if (!layers.image || !film().length) return;
    frame.value = (n + film().length) % film().length;
    $("frame-value").textContent = `${film()[frame.value]}${layers.reference && !elsewhere() ? " (with reference)" : ""}`;
    for (const name of ["image", "labels"]) layers[name].frame4D = Number(frame.value);
    paint();
    nv.createOnLocationChange();
  };
  const pause = () => { clearInterval(playing); playing = null; play.textContent = "Play (Space)"; };
  const turn = () => {
    if (playing) return pause();
    if (!film().length) return;
    playing = setInterval(() => toFrame(Number(frame.value) + 1), 120);
    play.textContent = "Pause (Space)";
  };

  // Fills are NiiVue overlays, the outline is its drawing. A single label map has a faint fill, so that bright organs
  // keep their contrast, and an outline; of both label maps one is filled and one a line.
  const paint = () => {
    if (!nv || !layers.labels) return;
    const what = elsewhere() && shown() !== "none" ? "labels" : shown(), both = what === "both", doubt = Boolean(layers.uncertainty) && uncertainty.checked;
    const lines = outlines.checked || doubt;
    const line = both ? (lines ? "labels" : "reference") : what;
    const fill = both ? (lines ? "reference" : "labels") : what;  // of a single map, in 3D always
    for (const name of ["labels", "reference"].filter((name) => layers[name])) {
      layers[name].setColormapLabel(colormap(both && name === "reference" ? WHITE : null));
      layers[name].opacity = name === fill && !doubt ? 1 : 0;
    }
    if (layers.uncertainty) layers.uncertainty.opacity = doubt ? 1 : 0;
    const fade = !lines || doubt ? 1 : both ? 0.5 : 0;  // of the fill, which lies above the line
    nv.overlayAlphaShader = fade * opacity.value / 100;  // acts on the slices, not on 3D
    nv.opts.multiplanarShowRender = solid.checked ? 1 : 0;
    outline(layers[line], both && line === "reference" ? WHITE : null);
    nv.updateGLVolume();
    tell();
  };

  const tell = (data) => {
    if (data) tell.last = data;
    if (!tell.last || !nv || !layers.labels) return;
    const { mm, vox, values } = tell.last, dims = layers.image.dimsRAS;
    const at = [["L", "R"], ["P", "A"], ["I", "S"]].map(([low, high], i) => `${Math.abs(mm[i]).toFixed(1)} ${mm[i] < 0 ? low : high}`);
    const value = (name) => values[nv.volumes.indexOf(layers[name])].value;
    const structure = (name) => (settings.labels[Math.round(value(name)) - 1] || { name: "no structure" }).name;
    const facts = [`Grey level ${Number(value("image")).toPrecision(4)}`, `segmentation: ${structure("labels")}`];
    if (layers.reference && !elsewhere()) facts.push(`reference: ${structure("reference")}`);
    if (layers.uncertainty) facts.push(`uncertainty ${Number(value("uncertainty")).toFixed(2)}`);
    where.textContent = `Slices: sagittal ${vox[0] + 1} of ${dims[1]}, coronal ${vox[1] + 1} of ${dims[2]}, axial ${vox[2] + 1} of ${dims[3]}. `
      + `${at.join(", ")} mm. ${facts.join("; ")}.`;
  };

  // Level and width are in grey levels of the scan; the sliders run over the range that the page contains.
  const greys = (low, high) => {
    const { global_min: least, global_max: most } = layers.image, round = (v) => Number(v.toPrecision(3));
    const step = (most - least) / 255;
    Object.assign(level, { min: least, max: most, step, value: (low + high) / 2 });
    Object.assign(width, { min: step, max: most - least, step, value: high - low });
    $("level-value").textContent = round((low + high) / 2);
    $("width-value").textContent = round(high - low);
  };
  const setGreys = (low, high) => {
    layers.image.cal_min = low;
    layers.image.cal_max = high;
    greys(low, high);
    nv.updateGLVolume();
  };
  const slide = () => {
    if (layers.image) setGreys(Number(level.value) - width.value / 2, Number(level.value) + width.value / 2);
  };
  const reset = () => { if (layers.image) setGreys(layers.image.global_min, layers.image.global_max); };

  const start = async () => {
    if (nv) return;
    if (!document.createElement("canvas").getContext("webgl2")) throw new Error("this browser offers no WebGL 2");
    const viewer = new niivue.Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [1, 1, 1, 1], crosshairWidth: 0.25, crosshairWidthUnit: "percent", crosshairGap: 8, dragAndDropEnabled: false, isColorbar: false,
      isRadiologicalConvention: true, sagittalNoseLeft: true, isResizeCanvas: true, logLevel: "error", loadingText: "",
      sliceType: 3, multiplanarLayout: 2, multiplanarShowRender: 1, dragMode: 9,  // three planes and 3D in a grid; right drag: level and width
      isNearestInterpolation: false, viewModeHotKey: "none", clipPlaneHotKey: "none", cycleClipPlaneHotKey: "none",
    });
    await viewer.attachToCanvas(canvas);
    viewer.setRenderAzimuthElevation(165, 10);  // from the front: the patient's right is on the left here, too
    viewer.onLocationChange = tell;
    viewer.onIntensityChange = (volume) => greys(volume.cal_min, volume.cal_max);
    nv = viewer;
  };

  const load = async (index) => {
    const mine = ++loading;
    pause();
    current = (index + settings.cases.length) % settings.cases.length;
    const info = settings.cases[current];
    $("viewer-title").textContent = info.name;
    $("note").textContent = `Shown at ${info.note}.`;
    where.textContent = "Loading";
    document.querySelectorAll("#maps .reference").forEach((line) => { line.hidden = !info.reference; });
    $("doubt").hidden = !info.uncertainty;
    $("film").hidden = !info.frames.length;
    frame.max = Math.max(0, info.frames.length - 1);
    if (!info.reference && ["reference", "both"].includes(shown())) choose("labels");
    try {
      await start();
      const names = NAMES.filter((name) => $(`${info.id}-${name}`));
      const volumes = await Promise.all(names.map((name) => niivue.NVImage.loadFromBase64({
        base64: $(`${info.id}-${name}`).textContent, name: `${name}.nii.gz`,
        ...{ image: { colormap: "gray" }, uncertainty: { colormap: "inferno", opacity: 0 } }[name] || { opacity: 0 },
      })));
      if (mine !== loading) return;  // another case was asked for meanwhile
      outline(null);
      while (nv.volumes.length) nv.removeVolume(nv.volumes[nv.volumes.length - 1]);
      volumes.forEach((volume) => nv.addVolume(volume));
      layers = Object.fromEntries(names.map((name, i) => [name, volumes[i]]));
      if (layers.uncertainty) {  // up to its largest value; what is almost certain stays clear
        const most = layers.uncertainty.global_max || 1;
        Object.assign(layers.uncertainty, { cal_min: most / 20, cal_max: most });
      }
      reset();
      nv.scene.crosshairPos = nv.mm2frac(info.centre);
      paint();
      toFrame(info.paused);
      nv.createOnLocationChange();
      nv.drawScene();
      dialog.dataset.ready = info.id;
    } catch (error) {
      where.textContent = `The viewer cannot be shown here: ${error.message}. The previews remain.`;
      dialog.dataset.ready = "failed";
    }
  };

  const choose = (name) => {
    document.querySelector(`input[name=map][value=${name}]`).checked = true;
    paint();
  };
  const choices = () => ["labels", ...(layers.reference ? ["reference", "both"] : [])];
  const plane = () => Number(document.querySelector("input[name=plane]:checked").value);
  const step = (n) => {
    const move = [0, 0, 0];
    move[plane()] = n;
    if (layers.image) nv.moveCrosshairInVox(...move);
  };
  const moreOpaque = (n) => { opacity.value = Number(opacity.value) + n; paint(); };
  const scrollAlong = (value) => { document.querySelector(`input[name=plane][value="${value}"]`).checked = true; };
  const flip = (box) => { box.checked = !box.checked; paint(); };
  const keys = {
    ArrowUp: () => step(1), ArrowDown: () => step(-1), PageUp: () => step(10), PageDown: () => step(-10),
    a: () => scrollAlong(2), c: () => scrollAlong(1), s: () => scrollAlong(0),
    "+": () => moreOpaque(10), "=": () => moreOpaque(10), "-": () => moreOpaque(-10),
    m: () => choose(shown() === "none" ? "labels" : "none"),
    r: () => choose(choices()[(choices().indexOf(shown()) + 1) % choices().length]),
    o: () => flip(outlines), u: () => { if (layers.uncertainty) flip(uncertainty); }, w: reset, v: () => flip(solid),
    " ": turn, ".": () => toFrame(Number(frame.value) + 1), ",": () => toFrame(Number(frame.value) - 1),
    n: () => load(current + 1), p: () => load(current - 1),
  };
  dialog.addEventListener("keydown", (event) => {
    const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    const own = event.target instanceof HTMLInputElement && event.key.startsWith("Arrow");  // sliders and radios use them
    const pressed = event.key === " " && /^(BUTTON|INPUT)$/.test(event.target.tagName);  // they use the space bar
    if (!action || own || pressed || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  }, true);

  opacity.addEventListener("input", paint);
  [level, width].forEach((slider) => slider.addEventListener("input", slide));
  $("reset").addEventListener("click", reset);
  frame.addEventListener("input", () => { pause(); toFrame(Number(frame.value)); });
  play.addEventListener("click", turn);
  dialog.addEventListener("close", pause);
  [...document.querySelectorAll("input[name=map]"), outlines, uncertainty, solid].forEach((input) => input.addEventListener("change", paint));
  $("previous").addEventListener("click", () => load(current - 1));
  $("next").addEventListener("click", () => load(current + 1));
  $("close").addEventListener("click", () => dialog.close());
  const open = (id) => {
    dialog.showModal();
    canvas.focus();
    return load(settings.cases.findIndex((info) => info.id === id));
  };
  document.querySelectorAll("button[data-case]").forEach((button) => button.addEventListener("click", () => open(button.dataset.case)));
})();
