// The workbench: scans on the left, the scan in the middle, tools on the right.
import { getBuffer, getJson, getMask, GONE, listen, shareToken } from "./api.js";
import { Cases } from "./cases.js";
import { Checks } from "./checks.js";
import { $, askDialog, fail, press, say, unsay } from "./dom.js";
import { Editor } from "./editor.js";
import { HEADER } from "./gray.js";
import { shortcuts } from "./keys.js";
import { Learning } from "./learn.js";
import { connectPanel } from "./panel.js";
import { Saver } from "./saver.js";
import { Structures } from "./structures.js";
import { Viewer } from "./viewer.js";

const viewer = new Viewer($("canvas"));
const saver = new Saver({
  tell(state, text) {
    $("saved").textContent = text;
    $("saved").dataset.state = state;
    if (state === "failed" && text !== unsaved) say(unsaved = text, { stay: true }); // whole: the corner cuts it off
    if (state !== "saved") return;
    unsay(unsaved);
    unsaved = "";
    refreshSoon();
  },
  ask: async () => ((await askDialog($("conflict"))) === "theirs" ? "theirs" : "mine"),
  reload: () => loadLabels(cases.current),
});
const editor = new Editor({ viewer, saver, say, changed: () => panel.show() });
const cases = new Cases((name) => openCase(name));
const structures = new Structures({
  chosen: (value) => { editor.value = value; },
  changed: (all) => viewer.setStructures(all),
});
const seen = () => ({ version: saver.version, draft: shownDraft });
const learning = new Learning({ current: () => cases.current, seen, flush: settled, refresh });
const app = { viewer, saver, editor, cases, structures, learning, openCase, openFrame, draftLabels, doubtValues, showChannel, next };
const panel = connectPanel(app);
let opening = 0, target = null, shownDraft = 0, timer = 0, unsaved = "", unopened = "";
const checks = new Checks({ go: openAt });

async function refresh() {
  const project = await getJson("project");
  document.title = `${project.name} - medfewshot workbench`;
  $("project").textContent = project.name;
  $("project").title = project.folder;
  structures.update(project.structures);
  const found = new Map(project.checks.map(({ case: name, message }) => [name, message]));
  cases.update(project.cases.map((one) => ({ ...one, check: found.get(one.name) || "" })));
  learning.showCurve(project.curve, project.advice);
  checks.show(project.checks, project.examples);
  learning.showJob(project.job);
  if (!$("formats").childElementCount) {
    learning.setFormats(project.formats);
    $("quality").value = project.quality;
  }
  panel.show();
  const open = cases.get(cases.current);
  if (open && !saver.pending) await follow(open);
  return project;
}

// Show what changed on disk: a newer mask, or a newer draft unless somebody drew on the one on screen.
async function follow({ name, version, draft }) {
  const fresh = draft !== shownDraft;
  if (version > saver.version || (fresh && !editor.done.length && (!saver.version || saver.untouched))) {
    const mask = await getMask(name, "mask");
    if (name === cases.current && !saver.pending && !editor.stroke) await loadLabels(name, mask); // else at the next change
    return undefined;
  }
  if (!fresh) return undefined;
  shownDraft = draft;
  await viewer.setDraft(null);
  await viewer.setDoubt(null);
  await panel.toggleDoubt(viewer.showDoubt);
  return panel.toggleDraft(true); // what was learned, beside what was drawn
}

function refreshSoon() {
  clearTimeout(timer);
  timer = setTimeout(() => refresh().catch(fail), 300);
}

// Save what was drawn before something else happens; if that fails, say why nothing happens.
async function settled() {
  const done = await saver.flush();
  if (!done) say(unsaved = $("saved").textContent, { stay: true });
  return done;
}

async function openCase(name) {
  if (!name || !(await settled())) return; // what is not saved keeps its scan open
  const mine = ++opening;
  target = name;
  $("welcome").hidden = false;
  $("welcome").textContent = `Opening ${name} …`;
  document.body.dataset.ready = "";
  const tell = (text) => { if (mine === opening) $("welcome").textContent = text; };
  try {
    viewer.start().catch(() => {}); // `open` tells why it failed
    tell(`Reading ${name} …`);
    const facts = await getJson("case", { case: name });
    const channel = Math.min(viewer.channel, facts.channels - 1);
    const file = await voxels(name, channel, facts, (share) => tell(`Opening ${name}: ${Math.round(100 * share)} %`));
    const mask = await getMask(name, "mask"); // what fails so far leaves the other scan open
    if (mine !== opening) return;
    if (!(await settled())) { // drawn meanwhile in the scan that is still on screen
      $("welcome").hidden = true;
      target = document.body.dataset.ready = cases.current;
      return;
    }
    editor.reset({ drawn: null });
    viewer.labels = null; // nothing is drawn into a scan that is open by half
    await viewer.open(channel ? await getJson("case", { case: name, channel }) : facts, file);
    viewer.channel = channel;
    cases.choose(name);
    await loadLabels(name, mask);
    $("welcome").hidden = true;
    unsay(unopened);
    if (facts.warnings.length) say(facts.warnings[0]);
    panel.opened();
    document.body.dataset.ready = name;
  } catch (error) {
    $("welcome").textContent = unopened = error.message;
    fail(error);
  }
}

// Another frame of the film, at the same place. A key that is kept pressed plays the film, as fast as frames are read.
async function openFrame(by) {
  const name = cases.frame(by);
  if (!name || target !== cases.current) return;
  const voxel = viewer.voxel(), window = [viewer.scan.cal_min, viewer.scan.cal_max];
  await openCase(name);
  if (name !== cases.current) return;
  viewer.setWindow(...window);
  viewer.moveTo(voxel);
  panel.show();
}

// The NIfTI file of a channel.
function voxels(name, channel, { shape }, tell = () => {}) {
  return getBuffer("scan", { case: name, channel }, HEADER + 2 * shape[0] * shape[1] * shape[2], tell);
}

// Another channel of the open scan; what is drawn stays.
async function showChannel(channel) {
  const name = cases.current;
  try {
    const facts = await getJson("case", { case: name, channel }), file = await voxels(name, channel, facts);
    if (name !== target) return;
    viewer.channel = channel;
    await viewer.replace(facts, file);
    panel.opened();
    viewer.moveTo(viewer.voxel());
  } catch (error) {
    fail(error);
  }
}

// The slice of an example that its check shows.
async function openAt(name, { plane, slice }) {
  if (name !== cases.current) await openCase(name);
  if (name !== cases.current) return;
  const voxel = viewer.voxel();
  voxel[plane] = slice;
  if (viewer.facts.flat === null) viewer.show(String(plane));
  viewer.moveTo(voxel);
  panel.show();
}

async function loadLabels(name, mask = null) {
  const { facts, labels } = mask || (await getMask(name, "mask"));
  viewer.setStructures(structures.all);
  viewer.put(labels);
  const partial = facts.drawn ? { plane: facts.plane, slices: new Set(facts.drawn) } : null;
  // A draft, a mask or a 2D image counts as a whole; an empty scan begins with single slices.
  const started = facts.version > 0 || labels || viewer.facts.flat !== null;
  editor.reset({ drawn: facts.is_draft ? null : partial || (started ? null : { plane: 2, slices: new Set() }) });
  saver.open({ name, scan: viewer.facts.stamp, shape: viewer.shape, labels: viewer.labels, version: facts.version, draft: facts.is_draft ? viewer.labels.slice() : null, drawn: () => editor.drawn });
  shownDraft = facts.draft;
  await viewer.setDraft(viewer.showDraft && !facts.is_draft ? await draftLabels() : null); // without a mask, the draft itself is shown
  await viewer.setDoubt(null);
  await panel.toggleDoubt(viewer.showDoubt);
  viewer.paintStyle();
  panel.show();
}

async function draftLabels() {
  return (await getMask(cases.current, "draft")).labels;
}

async function doubtValues() {
  return (await getMask(cases.current, "uncertainty")).labels;
}

// by: 1 or -1 along the list; 0 for what to label next, unless somebody left the scan `from` meanwhile.
function next(by, from = target) {
  if (from === target) openCase(by ? cases.neighbour(by) : cases.next());
}

shortcuts(panel.actions);
window.addEventListener("beforeunload", (event) => { if (saver.pending) event.preventDefault(); });
document.addEventListener("visibilitychange", () => { if (document.hidden) saver.flush(); });
press($("theme"), false);
window.workbench = app; // for tests and for the curious
try {
  const project = await refresh();
  shareToken(project.folder);
  const first = new URLSearchParams(location.hash.slice(1)).get("case") || project.cases[0]?.name;
  if (first) await openCase(first);
} catch (error) {
  $("welcome").textContent = error.message;
  fail(error);
}
let changes = 0;
listen((event) => {
  learning.showJob(event.job);
  const state = JSON.stringify([event.changes, event.job.done, event.job.stage, event.job.status]);
  if (state !== changes) refreshSoon();
  changes = state;
}, (connected) => {
  document.body.classList.toggle("offline", !connected);
  if (!connected) return;
  unsay(GONE);
  refreshSoon();
});
