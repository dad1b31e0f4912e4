// Requests to the server of this page. Every one carries the token of the address.
let token = new URLSearchParams(location.search).get("token") || "";
export const GONE = `The workbench does not answer. What you drew stays in this page. Start it again with --port ${location.port} and open its new address: this page then saves.`;
const tabs = new BroadcastChannel("workbench"); // tabs of this address

// A server that was started again has another token. A tab that knows it tells the others of the same project.
export function shareToken(folder) {
  tabs.onmessage = ({ data }) => { if (data.folder === folder) token = data.token; };
  tabs.postMessage({ folder, token });
}

export class ApiError extends Error {
  constructor(status, message, facts = {}) {
    super(message);
    Object.assign(this, { status, facts });
  }
}

async function call(method, path, params = {}, body = undefined) {
  const query = new URLSearchParams(Object.entries(params).filter(([, value]) => value !== null && value !== undefined));
  let answer;
  try {
    answer = await fetch(`api/${path}?${query}`, { method, headers: { Authorization: `Bearer ${token}` }, body });
  } catch {
    throw new ApiError(0, GONE);
  }
  if (answer.ok) return answer;
  const facts = await answer.json().catch(() => ({}));
  throw new ApiError(answer.status, facts.error || `The workbench answered ${answer.status}.`, facts);
}

export const getJson = async (path, params) => (await call("GET", path, params)).json();
export const sendJson = async (method, path, value, params) => (await call(method, path, params, JSON.stringify(value))).json();

// size: bytes that will come. tell: (share that came) now and then.
export async function getBuffer(path, params, size, tell) {
  const reader = (await call("GET", path, params)).body.getReader(), bytes = new Uint8Array(size);
  let at = 0;
  for (let part; !(part = await reader.read()).done; at += part.value.length) {
    bytes.set(part.value, at);
    tell(at / size);
  }
  if (at !== size) throw new ApiError(0, GONE);
  return bytes.buffer;
}

const through = async (bytes, stream) => new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
export const gzip = (bytes) => through(bytes, new CompressionStream("gzip"));
export const gunzip = (bytes) => through(bytes, new DecompressionStream("gzip"));

// A mask: {facts, labels}; labels is null if the scan has none.
export async function getMask(name, layer) {
  const answer = await call("GET", "mask", { case: name, layer });
  const facts = JSON.parse(answer.headers.get("x-facts"));
  return { facts, labels: answer.status === 204 ? null : await gunzip(await answer.arrayBuffer()) };
}

// An example against the others: {facts, url}; facts: the slice on the page, and the Dice.
export async function getPicture(name) {
  const answer = await call("GET", "compare", { case: name });
  return { facts: JSON.parse(answer.headers.get("x-facts")), url: URL.createObjectURL(await answer.blob()) };
}

export async function putMask(name, box, labels, { version, drawn, scan }) {
  const counted = drawn ? { plane: drawn.plane, drawn: [...drawn.slices].join(",") } : { drawn: "all" };
  const answer = await call("PUT", "mask", { case: name, box: box.join(","), version, scan, ...counted }, await gzip(labels));
  return (await answer.json()).version;
}

// What a drawing tool of the server proposes: {box, labels}, or the JSON that it answers.
export async function runTool(params, labels) {
  const answer = await call("POST", "tool", params, labels && (await gzip(labels)));
  const box = answer.headers.get("x-box");
  return box ? { box: box.split(",").map(Number), labels: await gunzip(await answer.arrayBuffer()) } : answer.json();
}

// Server-sent events, by fetch: EventSource cannot send the token. Reconnects for ever.
export async function listen(receive, connected) {
  for (;;) {
    try {
      const reader = (await call("GET", "events")).body.pipeThrough(new TextDecoderStream()).getReader();
      connected(true);
      for (let text = "", part; !(part = await reader.read()).done;) {
        const events = (text + part.value).split("\n\n");
        text = events.pop();
        events.forEach((event) => receive(JSON.parse(event.replace(/^data: /, ""))));
      }
    } catch (error) {
      if (!(error instanceof ApiError)) console.info(error.message);
    }
    connected(false);
    await new Promise((done) => setTimeout(done, 2000));
  }
}
