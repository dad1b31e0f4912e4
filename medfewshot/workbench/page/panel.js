// Buttons and sliders of the page, and what the keys do.
import { runTool } from "./api.js";
import { $, askDialog, press, say } from "./dom.js";
import { axesOf, index } from "./grid.js";

const PLANES = ["sagittal", "coronal", "axial"];

export function connectPanel({ viewer, saver, editor, cases, structures, learning, draftLabels, doubtValues, showChannel, next, openFrame }) {
  const click = (id, action) => $(id).addEventListener("click", action);
  const number = (value) => Number(value.toPrecision(4));

  function view(which) {
    if (!viewer.labels || viewer.facts.flat !== null) return;
    viewer.show(which);
    show();
  }

  function tool(which) {
    if (!viewer.labels) return;
    editor.tool = which;
    editor.vertices = [];
    if (!structures.all.length && !["look", "erase"].includes(which)) structures.add();
    show();
  }

  function window_(name) {
    $("window").value = name;
    viewer.setWindow(...viewer.windows().get(name));
  }

  function limits() {
    editor.limits = $("limit").checked ? [Number($("low").value), Number($("high").value)] : null;
  }

  async function otsu() {
    try {
      const { threshold } = await runTool({ case: saver.name, tool: "otsu", channel: viewer.channel });
      $("low").value = number(threshold);
      $("high").value = Math.ceil(viewer.facts.range[1]);
      $("limit").checked = true;
      limits();
    } catch (error) {
      say(error.message, { stay: true });
    }
  }

  function finish() {
    const { plane } = viewer, at = viewer.voxel()[plane], old = editor.drawn;
    const drawn = old && old.plane === plane ? { plane, slices: new Set(old.slices) } : { plane, slices: new Set() };
    if (old && old.slices.size && old.plane !== plane) return say(`Finished slices are ${PLANES[old.plane]} here: choose that plane.`);
    if (!drawn.slices.delete(at)) drawn.slices.add(at);
    editor.setDrawn(drawn);
  }

  async function copyDraft() {
    const { name } = saver, labels = await draftLabels();
    if (name !== saver.name || !viewer.labels) return; // another scan was opened meanwhile
    if (labels) editor.copyDraft(labels);
    else say("This scan has no draft. Press Learn first.");
  }

  async function toggleDraft(on) {
    viewer.showDraft = on;
    $("draft").checked = on;
    if (!viewer.labels) return;
    if (on && !viewer.draft) await viewer.setDraft(await draftLabels());
    viewer.paintStyle();
  }

  async function toggleDoubt(on) {
    viewer.showDoubt = on;
    $("doubt").checked = Boolean(on);
    if (!viewer.labels) return;
    if (on && !viewer.doubt) {
      const values = await doubtValues();
      if (values) await viewer.setDoubt(values);
      else say("This scan has no map of uncertainty: its draft is missing, older, or too large for one.");
    }
    viewer.paintStyle();
  }

  function correct() {
    tool("pen");
    say("Correct the mask with pen and eraser. Every stroke is saved. Accept it when it is right.");
  }

  async function decide(status) {
    const from = cases.current, open = cases.get(from);
    if (!open?.draft && !saver.version) return say("There is nothing to review yet: draw here, or press Learn in another scan.");
    if (await learning.review(status)) next(0, from);
  }

  function size(by) {
    $("size").value = Number($("size").value) + by;
    sizes();
  }

  function sizes() {
    editor.diameter = Number($("size").value);
    editor.reach = Number($("reach").value);
    $("size-value").textContent = editor.diameter;
    $("reach-value").textContent = `${editor.reach} mm`;
  }

  function style() {
    viewer.opacity = Number($("opacity").value) / 100;
    viewer.outline = $("outline").checked;
    viewer.paintStyle();
  }

  function slices() {
    const { drawn } = editor;
    if (!drawn) return "Slices that I draw";
    const list = [...drawn.slices].sort((a, b) => a - b).map((at) => at + 1);
    if (!list.length) return "Slices that I draw (none yet)";
    const runs = [];
    for (const at of list) {
      const run = runs[runs.length - 1];
      if (run && at === run[1] + 1) run[1] = at;
      else runs.push([at, at]);
    }
    const text = runs.slice(0, 8).map(([first, last]) => (first === last ? first : `${first} to ${last}`)).join(", ");
    return `${list.length} ${PLANES[drawn.plane]} slice${list.length > 1 ? "s" : ""}: ${text}${runs.length > 8 ? " …" : ""}`;
  }

  // Bring every control in line with the state.
  function show() {
    document.querySelectorAll("[data-tool]").forEach((button) => press(button, button.dataset.tool === editor.tool));
    const shown = viewer.view === "flat" ? String(viewer.facts.flat) : viewer.view;
    document.querySelectorAll("[data-view]").forEach((button) => press(button, button.dataset.view === shown));
    $("stage").dataset.tool = document.querySelector("aside").dataset.tool = editor.tool;
    $("count-text").textContent = slices();
    $("counting").hidden = viewer.view === "flat";
    $("count-all").checked = editor.drawn === null;
    $("count-drawn").checked = editor.drawn !== null;
    $("undo").disabled = !editor.done.length;
    $("redo").disabled = !editor.undone.length;
    const open = cases.get(cases.current);
    $("copy").disabled = $("draft").disabled = $("doubt").disabled = !open?.draft;
    $("note-text").textContent = open?.note ? `Note: ${open.note}` : "";
    ["accept", "reject", "correct", "note"].forEach((id) => { $(id).disabled = !open; });
  }

  function opened() {
    const { facts } = viewer;
    $("window").replaceChildren(...[...viewer.windows().keys(), "Custom"].map((name) => new Option(name)));
    viewer.onWindow(viewer.scan.cal_min, viewer.scan.cal_max);
    [$("low").value, $("high").value] = facts.window.map(number);
    $("channel-box").hidden = facts.channels < 2;
    $("channel").replaceChildren(...Array.from({ length: facts.channels }, (_, at) => new Option(at + 1, at)));
    $("channel").value = viewer.channel;
    limits();
    style();
    show();
  }

  function where(voxel) {
    const at = index(viewer.shape, voxel), label = viewer.labels[at];
    const sides = [["L", "R"], ["P", "A"], ["I", "S"]].map(([low, high], i) => {
      const mm = viewer.millimetres(voxel)[i];
      return `${Math.abs(mm).toFixed(1)} ${mm < 0 ? low : high}`;
    });
    const structure = structures.all.find((one) => one.value === label);
    const counts = voxel.map((one, axis) => `${PLANES[axis]} ${one + 1}/${viewer.shape[axis]}`).reverse();
    const parts = [counts.join("  "), viewer.facts.millimetres ? `${sides.join("  ")} mm` : "", `intensity ${number(viewer.intensity(at))}`, structure ? structure.name : ""];
    $("where").textContent = parts.filter(Boolean).join("   ·   ");
  }

  function ring(event) {
    const place = ["pen", "erase", "outside"].includes(editor.tool) ? viewer.pick(event) : null, brush = $("brush");
    brush.hidden = !place;
    if (!place) return;
    const area = $("stage").getBoundingClientRect(), width = Math.max(3, place.scale * editor.diameter);
    Object.assign(brush.style, { width: `${width}px`, height: `${width}px`, left: `${event.clientX - area.left - width / 2}px`, top: `${event.clientY - area.top - width / 2}px` });
  }

  viewer.onMove = where;
  viewer.onWindow = (low, high) => {
    const name = [...viewer.windows()].find(([, one]) => Math.abs(one[0] - low) + Math.abs(one[1] - high) < 1e-3)?.[0];
    $("window").value = name || "Custom";
    $("window").title = `Intensities ${number(low)} to ${number(high)} (W; right mouse button drags)`;
  };
  $("stage").addEventListener("pointermove", ring);
  $("stage").addEventListener("pointerleave", () => { $("brush").hidden = true; });
  document.querySelectorAll("[data-tool]").forEach((button) => button.addEventListener("click", () => tool(button.dataset.tool)));
  document.querySelectorAll("[data-view]").forEach((button) => button.addEventListener("click", () => view(button.dataset.view)));
  $("window").addEventListener("change", () => ($("window").value === "Custom" ? 0 : window_($("window").value)));
  ["opacity", "outline"].forEach((id) => $(id).addEventListener("input", style));
  ["size", "reach"].forEach((id) => $(id).addEventListener("input", sizes));
  ["limit", "low", "high"].forEach((id) => $(id).addEventListener("input", limits));
  $("draft").addEventListener("change", () => toggleDraft($("draft").checked));
  $("doubt").addEventListener("change", () => toggleDoubt($("doubt").checked));
  $("channel").addEventListener("change", () => showChannel(Number($("channel").value)));
  $("protect").addEventListener("change", () => { editor.protect = $("protect").checked; });
  $("deep").addEventListener("change", () => { editor.deep = $("deep").checked; });
  $("count-all").addEventListener("change", () => editor.setDrawn(null));
  $("count-drawn").addEventListener("change", () => editor.countSlices());
  $("alert").querySelector("button").addEventListener("click", () => say(""));
  click("otsu", otsu);
  click("undo", () => editor.undo());
  click("redo", () => editor.redo());
  click("fill", () => editor.fillBetween());
  click("grow", () => editor.grow());
  click("copy", copyDraft);
  click("paint", () => editor.fillRange());
  click("finish", finish);
  click("accept", () => decide("accepted"));
  click("reject", () => decide("rejected"));
  click("correct", correct);
  click("note", () => learning.note(cases.get(cases.current)?.note));
  click("help-button", () => askDialog($("help")));
  click("theme", () => {
    const dark = getComputedStyle(document.documentElement).colorScheme === "dark" || (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
    document.documentElement.dataset.theme = dark ? "light" : "dark";
  });

  const step = (by) => viewer.labels && viewer.step(viewer.plane, by);
  const go = (axis, by) => viewer.labels && viewer.step(axesOf(viewer.plane)[axis], by);
  const toggle = (id) => $(id).click();
  const cycle = () => {
    const names = [...viewer.windows().keys()], at = names.indexOf($("window").value);
    window_(names[(at + 1) % names.length]);
  };
  const actions = {
    "Scans": [["n", "next scan", () => next(1)], ["b", "previous scan", () => next(-1)], ["j", "scan to label next", () => next(0)], ["/", "find a scan", () => $("find").focus()],
      [".", "next frame of a film; keep it pressed to play", () => openFrame(1)], [",", "previous frame", () => openFrame(-1)]],
    "View": [["a", "axial", () => view("2")], ["c", "coronal", () => view("1")], ["s", "sagittal", () => view("0")], ["v", "3D", () => view("3d")],
      ["0", "three planes and 3D", () => view("all")], ["w", "next window", () => viewer.labels && cycle()], ["o", "outline or fill", () => toggle("outline")],
      ["r", "show the draft", () => toggle("draft")], ["z", "show where the draft is uncertain", () => toggle("doubt")], ["PageUp", "next slice", () => step(1)], ["PageDown", "previous slice", () => step(-1)],
      ["ArrowRight", "arrows: move the cross", () => go(0, -1)], ["ArrowLeft", "", () => go(0, 1)], ["ArrowUp", "", () => go(1, 1)], ["ArrowDown", "", () => go(1, -1)]],
    "Draw": [["p", "pen", () => tool("pen")], ["f", "filled contour", () => tool("contour")], ["e", "eraser", () => tool("erase")], ["k", "click to segment", () => tool("click")],
      ["q", "mark background", () => tool("outside")], ["Escape", "look", () => tool("look")], ["Space", "draw at the cross, or set a corner", () => editor.drawing && editor.stamp()],
      ["Enter", "close the contour", () => editor.tool === "contour" && editor.close()], ["[", "smaller", () => size(-1)], ["]", "larger", () => size(1)],
      ["t", "only intensities in the range", () => toggle("limit")], ["i", "fill between slices", () => editor.fillBetween()], ["g", "grow marks", () => editor.grow()], ["h", "copy the draft", copyDraft],
      ["d", "this slice is finished, or not", () => viewer.labels && finish()], ["Ctrl+z", "undo", () => editor.undo()], ["Ctrl+y Ctrl+Shift+z", "redo", () => editor.redo()],
      ...Array.from({ length: 9 }, (_, i) => [String(i + 1), i ? "" : "1 to 9: structure", () => structures.chooseAt(i)])],
    "Learn and review": [["l", "learn", () => learning.learn()], ["y", "accept", () => decide("accepted")], ["x", "reject", () => decide("rejected")], ["u", "correct", correct],
      ["m", "note", () => learning.note(cases.get(cases.current)?.note)], ["?", "this list", () => askDialog($("help"))]],
  };
  return { show, opened, toggleDraft, toggleDoubt, actions };
}
