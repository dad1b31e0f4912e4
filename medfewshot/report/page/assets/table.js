"use strict";
// The table of all scans: sort by a column, find by text. Rows exist only where they can be seen.
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("rows").textContent);  // see table.py
  const LONG = 300, MARGIN = 30;  // rows: of a table that scrolls by itself; that are ready above and below
  const table = $("table"), body = table.tBodies[0], view = table.parentElement;
  const headings = [...table.tHead.rows[0].cells], last = headings.length - 1;
  const long = data.rows.length > LONG;
  let order = data.rows.map((_, i) => i), shown = order, height = 34, from = 0, to = 0;

  const make = (tag, className, ...content) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...content);
    return element;
  };
  const dot = (label) => {
    const element = make("i", "dot");
    element.style.background = data.structures[label].colour;
    return element;
  };
  const number = (value, digits) => {
    if (typeof value === "string") return value;  // "absent"
    return value === null ? "–" : value.toFixed(digits ?? (value >= 10 ? 1 : 2));
  };
  const element = (i, place) => {
    const { scan, label, numbers, reason, count } = data.rows[i], { name, link, failed, seconds } = data.scans[scan];
    const row = make("tr"), link_ = make("a"), head = make("th", "", link_);
    link_.href = link;
    name.split(/(?<=_)/).forEach((piece, n) => link_.append(...(n ? [make("wbr")] : []), piece));  // breaks after an underscore
    head.scope = "row";
    row.append(head, make("td", "structure", ...(label === null ? ["–"] : [dot(label), data.structures[label].name])));
    const cell = (column, value) => {
      const made = make("td", "number", number(value, column.digits));
      made.dataset.label = column.label;
      row.append(made);
    };
    data.columns.forEach((column, n) => cell(column, numbers[n] ?? null));
    const why = make("td", "reasons", ...(failed ? [make("span", "flag error", "not segmented"), " "] : []),
      ...(count ? [make("span", "flag", data.reasons[reason])] : []));
    why.dataset.label = "Review";
    if (long) { why.title = data.reasons[reason]; head.title = name; }
    row.append(why);
    cell({ label: "Seconds", digits: 1 }, seconds);
    row.ariaRowIndex = place + 2;
    row.dataset.row = i;
    return row;
  };

  const space = (rows) => {
    const row = make("tr", "space"), cell = make("td");
    cell.colSpan = headings.length;
    cell.style.height = `${rows * height}px`;
    row.append(cell);
    row.ariaHidden = "true";
    return row;
  };
  const fill = () => {
    const focused = document.activeElement.closest("#table tbody tr")?.dataset.row;
    const rows = shown.slice(from, to).map((i, n) => element(i, from + n));
    body.replaceChildren(...(long ? [space(from), ...rows, space(shown.length - to)] : rows));
    if (focused !== undefined) body.querySelector(`[data-row="${focused}"] a`)?.focus({ preventScroll: true });
  };
  const draw = () => {
    [from, to] = [0, shown.length];
    if (long) {
      const top = Math.floor(view.scrollTop / height), seen = Math.ceil(view.clientHeight / height);
      from = Math.max(0, Math.min(top, shown.length - seen) - MARGIN);
      to = Math.min(shown.length, top + seen + MARGIN);
    }
    fill();
  };
  const scroll = () => {
    const top = view.scrollTop / height, bottom = top + view.clientHeight / height;
    if ((top < from + MARGIN / 2 && from > 0) || (bottom > to - MARGIN / 2 && to < shown.length)) draw();
  };
  const measure = () => {
    const row = body.querySelector("tr[data-row]");
    if (!row) return;
    const now = row.getBoundingClientRect().height;
    if (now > 0 && Math.abs(now - height) > 0.01) { height = now; draw(); }
  };

  const key = (i, column) => {
    const row = data.rows[i], scan = data.scans[row.scan];
    if (column === 0) return scan.name;
    if (column === 1) return row.label === null ? null : data.structures[row.label].name;
    if (column === last) return scan.seconds;
    if (column === last - 1) return (scan.failed ? 9 : 0) + row.count || null;
    return row.numbers[column - 2] ?? null;
  };
  const { compare } = new Intl.Collator(undefined, { numeric: true });
  headings.forEach((header, column) => header.querySelector("button").addEventListener("click", () => {
    const sign = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    headings.forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", sign < 0 ? "descending" : "ascending");
    const known = [], unknown = [];  // what is undefined stays at the end
    for (const i of order) {
      const value = key(i, column), text = column < 2;
      (value === null || (!text && typeof value === "string") ? unknown : known).push([i, value]);
    }
    known.sort(column < 2 ? (a, b) => sign * compare(a[1], b[1]) : (a, b) => sign * (a[1] - b[1]));
    order = [...known, ...unknown].map(([i]) => i);
    filter();
  }));

  const texts = data.rows.map((row) => {
    const scan = data.scans[row.scan];
    const words = [scan.name, row.label === null ? "" : data.structures[row.label].name, scan.failed ? "not segmented" : ""];
    return [...words, data.reasons[row.reason]].join(" ").toLowerCase();
  });
  const filter = () => {
    const words = $("find").value.toLowerCase().split(/\s+/).filter(Boolean), show = $("show").value, only = $("structure").value;
    shown = order.filter((i) => {
      const row = data.rows[i], flagged = row.count > 0 || data.scans[row.scan].failed;
      return words.every((word) => texts[i].includes(word)) && (only === "" || String(row.label) === only)
        && (show === "all" || flagged === (show === "flagged"));
    });
    view.scrollTop = 0;
    draw();
    $("count").textContent = `${shown.length} of ${data.rows.length} rows`;
    const seen = new Set(shown.map((i) => data.scans[data.rows[i].scan].link));
    document.querySelectorAll("article.case").forEach((article) => { article.hidden = !seen.has(`#${article.id}`); });
  };
  $("filter").addEventListener("submit", (event) => event.preventDefault());
  $("find").addEventListener("input", filter);
  [$("show"), $("structure")].forEach((select) => select.addEventListener("change", filter));
  table.ariaRowCount = data.rows.length + 1;
  view.classList.toggle("long", long);
  filter();
  if (long) {
    measure();
    view.addEventListener("scroll", scroll, { passive: true });
    window.addEventListener("resize", measure);
  }
})();
