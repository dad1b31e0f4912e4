"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const settings = JSON.parse($("settings").textContent);

  // --- the table: sort by a column, find by text -----------------------------------------------------------------
  const table = $("table"), body = table.tBodies[0];
  const headers = [...table.querySelectorAll("th.sortable")];
  // Case, flags and seconds span both header rows, the structures' columns lie between flags and seconds.
  const whole = headers.filter((h) => h.rowSpan === 2), inner = headers.filter((h) => h.rowSpan !== 2);
  const columns = [whole[0], whole[1], ...inner, whole[2]];
  const key = (row, i) => row.cells[i].dataset.sort;
  const compare = (a, b) => {
    const x = Number(a), y = Number(b);
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, undefined, { numeric: true }) : x - y;
  };
  columns.forEach((header, i) => header.querySelector("button").addEventListener("click", () => {
    const down = header.getAttribute("aria-sort") === "ascending";
    columns.forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows];
    rows.sort((a, b) => {
      const x = key(a, i), y = key(b, i);
      if (x === "" || y === "") return (x === "") - (y === "");  // what is undefined stays at the end
      return down ? compare(y, x) : compare(x, y);
    });
    body.append(...rows);
  }));

  const filter = () => {
    const words = $("find").value.toLowerCase().split(/\s+/).filter(Boolean), show = $("show").value;
    let shown = 0;
    for (const row of body.rows) {
      const text = `${row.cells[0].textContent} ${row.cells[1].textContent}`.toLowerCase();
      const flagged = row.dataset.flagged === "yes";
      row.hidden = !words.every((word) => text.includes(word)) || (show === "flagged" && !flagged) || (show === "clear" && flagged);
      shown += !row.hidden;
      const article = document.querySelector(row.cells[0].querySelector("a").getAttribute("href"));
      article.hidden = row.hidden;
    }
    $("count").textContent = `${shown} of ${body.rows.length}`;
  };
  $("filter").addEventListener("submit", (event) => event.preventDefault());
  $("find").addEventListener("input", filter);
  $("show").addEventListener("change", filter);
  filter();

  // --- the viewer -------------------------------------------------------------------------------------------------
  if (!settings.cases.length) return;
  const dialog = $("viewer"), canvas = $("canvas"), where = $("where"), opacity = $("opacity");
  let nv = null, current = 0, shown = "labels", loading = 0;
  const off = new Set();

  const toggles = settings.labels.map((label, i) => {
    const line = document.createElement("label"), box = document.createElement("input"), swatch = document.createElement("i");
    box.type = "checkbox"; box.checked = true; swatch.className = "swatch"; swatch.style.background = label.colour;
    line.append(box, " ", swatch, label.name);
    $("labels").append(line);
    box.addEventListener("change", () => { box.checked ? off.delete(i) : off.add(i); paint(); });
    return box;
  });

  const colormap = () => {
    const map = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: ["background"] };
    settings.labels.forEach((label, i) => {
      const channel = (at) => parseInt(label.colour.slice(at, at + 2), 16);
      map.R.push(channel(1)); map.G.push(channel(3)); map.B.push(channel(5));
      map.A.push(off.has(i) ? 0 : 255); map.I.push(i + 1); map.labels.push(label.name);
    });
    return map;
  };

  const paint = () => {
    if (!nv || nv.volumes.length < 2) return;
    const maps = { labels: 1, reference: 2 };
    for (const [name, index] of Object.entries(maps)) {
      if (!nv.volumes[index]) continue;
      nv.volumes[index].setColormapLabel(colormap());
      nv.volumes[index].opacity = shown === name ? opacity.value / 100 : 0;
    }
    nv.updateGLVolume();
    tell();
  };

  const tell = (data) => {
    if (data) tell.last = data;
    if (!tell.last || !nv || nv.volumes.length < 2) return;
    const { mm, vox, values } = tell.last, dims = nv.volumes[0].dimsRAS;
    const at = [["L", "R"], ["P", "A"], ["I", "S"]].map(([low, high], i) => `${Math.abs(mm[i]).toFixed(1)} ${mm[i] < 0 ? low : high}`);
    const rank = Math.round(values[shown === "reference" && values[2] ? 2 : 1].value);
    const structure = rank > 0 && settings.labels[rank - 1] ? settings.labels[rank - 1].name : "no structure";
    where.textContent = `Slices: sagittal ${vox[0] + 1} of ${dims[1]}, coronal ${vox[1] + 1} of ${dims[2]}, axial ${vox[2] + 1} of ${dims[3]}. `
      + `${at.join(", ")} mm; grey level ${Number(values[0].value).toPrecision(4)}; ${structure}.`;
  };

  const start = async () => {
    if (nv) return;
    if (!document.createElement("canvas").getContext("webgl2")) throw new Error("this browser offers no WebGL 2");
    const viewer = new niivue.Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [1, 1, 1, 1], crosshairWidth: 0.25, crosshairWidthUnit: "percent", crosshairGap: 8, dragAndDropEnabled: false, isColorbar: false,
      isRadiologicalConvention: true, isResizeCanvas: true, logLevel: "error", multiplanarShowRender: 0, loadingText: "",
      isNearestInterpolation: false, viewModeHotKey: "", clipPlaneHotKey: "", cycleClipPlaneHotKey: "", sliceType: 3,
    });
    await viewer.attachToCanvas(canvas);
    viewer.onLocationChange = tell;
    nv = viewer;
  };

  const load = async (index) => {
    const mine = ++loading;
    current = (index + settings.cases.length) % settings.cases.length;
    const info = settings.cases[current];
    $("viewer-title").textContent = info.name;
    $("note").textContent = `Shown at ${info.note}.`;
    where.textContent = "Loading";
    if (shown === "reference" && !info.reference) choose("labels");
    document.querySelector("#maps .reference").hidden = !info.reference;
    try {
      await start();
      const names = ["image", "labels", ...(info.reference ? ["reference"] : [])];
      const volumes = await Promise.all(names.map((name) => niivue.NVImage.loadFromBase64({
        base64: $(`${info.id}-${name}`).textContent, name: `${name}.nii.gz`, ...(name === "image" ? { colormap: "gray" } : { opacity: 0 }),
      })));
      if (mine !== loading) return;  // another case was asked for meanwhile
      while (nv.volumes.length) nv.removeVolume(nv.volumes[nv.volumes.length - 1]);
      volumes.forEach((volume) => nv.addVolume(volume));
      nv.scene.crosshairPos = nv.mm2frac(info.centre);
      paint();
      nv.createOnLocationChange();
      nv.drawScene();
      dialog.dataset.ready = info.id;
    } catch (error) {
      where.textContent = `The viewer cannot be shown here: ${error.message}. The previews remain.`;
      dialog.dataset.ready = "failed";
    }
  };

  const choose = (name) => {
    shown = name;
    document.querySelector(`input[name=map][value=${name}]`).checked = true;
    paint();
  };
  const plane = () => Number(document.querySelector("input[name=plane]:checked").value);
  const step = (n) => {
    const move = [0, 0, 0];
    move[plane()] = n;
    if (nv && nv.volumes.length) nv.moveCrosshairInVox(...move);
  };
  const fade = (n) => { opacity.value = Number(opacity.value) + n; paint(); };
  const scrollAlong = (value) => { document.querySelector(`input[name=plane][value="${value}"]`).checked = true; };
  const keys = {
    ArrowUp: () => step(1), ArrowDown: () => step(-1), PageUp: () => step(10), PageDown: () => step(-10),
    a: () => scrollAlong(2), c: () => scrollAlong(1), s: () => scrollAlong(0),
    "+": () => fade(10), "=": () => fade(10), "-": () => fade(-10),
    m: () => choose(shown === "none" ? "labels" : "none"),
    r: () => { if (settings.cases[current].reference) choose(shown === "reference" ? "labels" : "reference"); },
    n: () => load(current + 1), p: () => load(current - 1),
  };
  dialog.addEventListener("keydown", (event) => {
    const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    const own = event.target instanceof HTMLInputElement && event.key.startsWith("Arrow");  // sliders and radios use them
    if (!action || own || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  }, true);

  opacity.addEventListener("input", paint);
  document.querySelectorAll("input[name=map]").forEach((input) => input.addEventListener("change", () => choose(input.value)));
  $("previous").addEventListener("click", () => load(current - 1));
  $("next").addEventListener("click", () => load(current + 1));
  $("close").addEventListener("click", () => dialog.close());
  const open = (id) => {
    dialog.showModal();
    canvas.focus();
    return load(settings.cases.findIndex((info) => info.id === id));
  };
  document.querySelectorAll("button.open").forEach((button) => button.addEventListener("click", () => open(button.dataset.case)));
})();
