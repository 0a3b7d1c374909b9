// Pieces that several screens are made of: links, choices, pictures, names.
"use strict";

const { html } = ui;

/** What a screen shows until its parts are there, and if they are not. */
function Waiting({ error }) {
  return error ? html`<p class="problem" role="alert">${error}</p>` : html`<p class="wait" role="status">Loading …</p>`;
}

/** A labelled choice. options: [[value, label], …]; one option is no choice, and is shown as text. */
function Choice({ label, value, options, onChange, quiet = false }) {
  if (options.length < 2)
    return quiet
      ? null
      : html`<span class="choice"><span class="label">${label}</span> <bdi>
        ${options[0] ? options[0][1] : "–"}</bdi></span>`;
  return html`<label class="choice"><span class="label">${label}</span>
    <select value=${value} onChange=${(event) => onChange(event.target.value)}>
      ${options.map(([key, name]) => html`<option key=${key} value=${key} selected=${key === value}>${name}</option>`)}
    </select></label>`;
}

/** Choices of a run: model, dataset, seed and texts, each among those that go with the ones before. */
function RunChoice({ run, onChange }) {
  const keys = ["model", "dataset", "seed", "texts"];
  let candidates = index().runs;
  return keys.map((key) => {
    const options = [...new Set(candidates.map((other) => String(other[key])))];
    const here = candidates;
    candidates = candidates.filter((other) => other[key] === run[key]);
    const choose = (value) => {
      const fitting = here.filter((other) => String(other[key]) === value);
      const score = (other) => keys.filter((k) => other[k] === run[k]).length;
      onChange(fitting.reduce((best, other) => (score(other) > score(best) ? other : best)));
    };
    return html`<${Choice} key=${key} label=${key} value=${String(run[key])}
      options=${options.map((name) => [name, name])} onChange=${choose} />`;
  });
}

/** Tabs as links: [[label, changes, whether it is the current one, title], …]; href: of changes, of this address. */
function Tabs({ label, tabs, href = link }) {
  return html`<nav class="tabs" aria-label=${label}>${tabs.map(
    ([name, changes, current, title]) => html`
    <a key=${name} href=${href(changes)} title=${title} aria-current=${current ? "true" : undefined}>${name}</a>`,
  )}</nav>`;
}

/** Arrow keys in a row of links, which is one stop of the tab key. */
function Roving({ children, of = null, ...rest }) {
  const own = ui.useRef(null);
  const ref = of || own;
  ui.useLayoutEffect(() => {
    const items = [...ref.current.querySelectorAll("a")];
    if (items.length && !items.some((item) => item.tabIndex === 0)) {
      const current = items.find((item) => item.getAttribute("aria-current") === "true") || items[0];
      for (const item of items) item.tabIndex = item === current ? 0 : -1;
    }
  });
  const onKeyDown = (event) => {
    const items = [...ref.current.querySelectorAll("a")];
    const at = items.indexOf(document.activeElement);
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const next = step ? items[at + step] : { Home: items[0], End: items[items.length - 1] }[event.key];
    if (at < 0 || !next) return;
    event.preventDefault();
    for (const item of items) item.tabIndex = item === next ? 0 : -1;
    next.focus();
  };
  return html`<div ref=${ref} onKeyDown=${onKeyDown} ...${rest}>${children}</div>`;
}

/** What a picture is: its name, class and factor values. */
function pictureWords(list, picture) {
  const values = Object.entries(list.factors)
    .map(([name, column]) => `${name} ${column.values[column.codes[picture]]}`)
    .filter((words) => !words.endsWith(" "));
  return `${list.names[picture]}${values.length ? ": " : ""}${values.join(", ")}`;
}

/** The style that shows a picture of a list out of its sheet, `side` pixels wide. */
function pictureStyle(list, picture, side) {
  const place = picture % list.across ** 2;
  const column = place % list.across;
  const row = Math.floor(place / list.across);
  const sheet = pathOf(`${list.folder}/sheet-${Math.floor(picture / list.across ** 2)}`, ".webp");
  return {
    width: `${side}px`,
    height: `${side}px`,
    backgroundImage: `url("${sheet}")`,
    backgroundSize: `${list.across * side}px auto`,
    backgroundPosition: `${-column * side}px ${-row * side}px`,
  };
}

/** [ref, whether the element that has it has been on the screen, or nearly]: sheets of thumbnails are large. */
function useSeen() {
  const ref = ui.useRef(null);
  const [seen, see] = ui.useState(false);
  ui.useEffect(() => {
    const observer = new IntersectionObserver(
      (entries) => {
        if (!entries.some((entry) => entry.isIntersecting)) return;
        see(true);
        observer.disconnect();
      },
      { rootMargin: "200px" },
    );
    observer.observe(ref.current);
    const seeAll = () => see(true); // on paper
    window.addEventListener("beforeprint", seeAll);
    return () => {
      observer.disconnect();
      window.removeEventListener("beforeprint", seeAll);
    };
  }, []);
  return [ref, seen];
}

/** A row of pictures, links to their screens. notes: of each, what its label adds; captions: shown below each. */
function Pictures({ list, pictures, side = 48, notes = [], captions = null, label }) {
  const [ref, seen] = useSeen();
  const unseen = { width: `${side}px`, height: `${side}px` };
  return html`<${Roving} of=${ref} class="pictures" role="group" aria-label=${label}>${pictures.map((picture, place) => {
    const words = `${pictureWords(list, picture)}${notes[place] ? ` (${notes[place]})` : ""}`;
    return html`<a key=${place} class="picture" href=${link({ v: "picture", p: list.names[picture] })}
      aria-label=${words} title=${words}>
      <span class="thumb" style=${seen ? pictureStyle(list, picture, side) : unseen}></span>
      ${captions ? html`<span class="caption" aria-hidden="true">${captions[place]}</span>` : null}</a>`;
  })}<//>`;
}

/** A text of a pool: data, never markup; in its own direction, and cut off where it is very long. */
function Text({ children, dim = false }) {
  return html`<bdi class=${dim ? "text dim" : "text"} dir="auto" title=${children.length > 90 ? children : undefined}>
    ${children}</bdi>`;
}

/** A link to a component, or to a head without one; of this run, or of another. naming: the names to show there. */
function PlaceLink({ unit, component = undefined, run = null, naming = undefined }) {
  const changes = { v: "head", h: unit, c: component, k: undefined, ...(run ? runState(run) : {}) };
  if (naming) changes.n = naming;
  const words = component === undefined ? unitLabel(unit) : `${unitLabel(unit)}, component ${component}`;
  return html`<a class="place" href=${link(changes)}>${words}</a>`;
}

/** A table that scrolls sideways where it is too wide. columns: its headings; rows: lists of cells. */
function Table({ label, columns, rows }) {
  return html`<div class="wide" tabindex="0" role="region" aria-label=${label}><table>
    <thead><tr>${columns.map((name) => html`<th key=${name} scope="col">${name}</th>`)}</tr></thead>
    <tbody>${rows.map((cells, row) => html`<tr key=${row}>${cells.map((cell, n) => html`<td key=${n}>
      ${cell}</td>`)}</tr>`)}</tbody>
  </table></div>`;
}

/** Everything of a run that screens share. */
function useRun(run, more = []) {
  const keys = [`${run.folder}/overview`, `texts/${run.texts}`, `pictures/${run.dataset}/list`, ...more];
  return useParts(keys);
}
