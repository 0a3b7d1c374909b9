// Compare: two heads, seeds, models or methods side by side.
"use strict";

/** What a head is first compared with: itself in another seed, else in another model, else by another method. */
function compareDefault(run, unit) {
  const differs = (key) =>
    index().runs.find(
      (other) =>
        other[key] !== run[key] && ["model", "dataset", "seed", "texts"].every((k) => k === key || other[k] === run[k]),
    );
  const other = differs("seed") || differs("model");
  return sideAddress(
    other ? { ...runState(other), h: unit } : { ...runState(run), h: unit, k: Object.keys(index().methods)[1] },
  );
}

const sideAddress = (side) =>
  new URLSearchParams(
    Object.entries(side)
      .filter(([, value]) => value !== undefined)
      .map(([key, value]) => [key, String(value)]),
  ).toString();

function CompareScreen({ state, run }) {
  const other = Object.fromEntries(new URLSearchParams(state.with || compareDefault(run, state.h)));
  const changeOther = (changes, options) => go({ with: sideAddress({ ...other, ...changes }) }, options);
  const hrefOther = (changes) => link({ with: sideAddress({ ...other, ...changes }) });
  const { run: otherRun, problem } = findRun(other);
  const left = useSide(state, run);
  const right = useSide(other, otherRun);
  const [leftTexts, rightTexts] = [left, right].map((side) => side.texts);
  const same = run.texts === otherRun.texts;
  const shared =
    same && leftTexts && rightTexts ? new Set([...leftTexts].filter((text) => rightTexts.has(text))) : null;
  const count = shared ? `${shared.size} ${shared.size === 1 ? "text is" : "texts are"}` : "";
  const note = shared
    ? `${count} the name of a pole (the first, above chance) on both sides, and marked.`
    : same
      ? ""
      : "The two sides have different text pools.";
  const here = { side: left, state, run, change: go, href: link };
  const there = { side: right, state: other, run: otherRun, change: changeOther, href: hrefOther };
  return html`<h1 tabindex="-1">Compare</h1>
    ${problem ? html`<p class="problem" role="alert">${problem}</p>` : null}
    <p class="note">${note}</p>
    ${left.values && right.values ? html`<${Numbers} left=${left} right=${right} />` : null}
    <div class="sides"><${Side} title="left" marked=${shared} ...${here} />
      <${Side} title="right" marked=${shared} ...${there} /></div>`;
}

/** The numbers of the two heads side by side. */
function Numbers({ left, right }) {
  const words = ({ values: [overview], units, unit }, key) => {
    const quantity = overview.quantities.find((other) => other.key === key);
    return quantity ? cellOf(overview, quantity, rangeOf(quantity), units.indexOf(unit)).words : "–";
  };
  const rows = left.values[0].quantities.map(({ key, label }) => [label, words(left, key), words(right, key)]);
  return html`<details><summary>Their numbers</summary>
    <${Table} label="Numbers of the two heads" columns=${["", "left", "right"]} rows=${rows} /></details>`;
}

/** The first texts of all poles that have a name above chance. */
function firstNames(names) {
  const texts = new Set();
  let start = 0;
  names.count.forEach((count, side) => {
    if (names.named[side]) texts.add(names.text[start]);
    start += count;
  });
  return texts;
}

/** What a side of the comparison shows, and the set of its names. */
function useSide(state, run) {
  const { values, error } = useRun(run);
  const units = values ? unitsOf(values[0]) : null;
  const unit = units ? (units.includes(state.h) ? state.h : units[0]) : null;
  const head = useParts(unit ? [`${run.folder}/heads/${unit}`] : []);
  const texts = ui.useMemo(() => {
    if (!unit || !head.values) return null;
    const methods = head.values[0].methods;
    const method = Object.hasOwn(methods, state.k) ? state.k : Object.keys(methods)[0];
    const part = methods[method];
    if (!part) return new Set();
    return part.names ? firstNames(part.names[NAMINGS.includes(state.n) ? state.n : values[0].naming]) : new Set(part.text);
  }, [unit, head.values && head.values[0], state.k, state.n]);
  return { values, error, units, unit, texts };
}

function Side({ title, side, state, run, marked, change, href }) {
  if (!side.values) return html`<section class="side" aria-label=${title}><${Waiting} error=${side.error} /></section>`;
  const [overview, texts, list] = side.values;
  return html`<section class="side" aria-label=${`${title} side`}>
    <div class="controls"><${RunChoice} run=${run}
      onChange=${(other) => change({ ...runState(other), c: undefined })} />
      <${Choice} label="head" value=${side.unit} options=${side.units.map((unit) => [unit, unitLabel(unit)])}
        onChange=${(unit) => change({ h: unit, c: undefined })} /></div>
    <${HeadPanel} cards=${3} ...${{ state, run, unit: side.unit, overview, texts, list, change, href, marked }} />
  </section>`;
}
