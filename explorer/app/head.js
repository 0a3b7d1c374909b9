// One head: its spectrum, and a card for each component, by method and naming.
"use strict";

const CARDS = 6; // on a page
const POLED = ["components", "weights"];
const SPANS = ["textspan", "textspan_paper"];
const METHOD_NAMES = {
  components: "Components",
  weights: "Of the weights",
  sparse: "Sparse sums",
  sparse_coherent: "Sums of like texts",
  textspan: "TextSpan",
  textspan_paper: "TextSpan, as published",
};

const METHOD_SENTENCES = {
  components: "principal components of the head's contributions.",
  weights: "components of the head's value-output map, from the weights alone.",
};
const NAMING_SENTENCES = {
  says: "Texts: those that lie closest to the component; score: the projection of the text on it.",
  fires_on:
    "Texts: those that the pole's pictures are like; score: how much more than all pictures, in the text's standard " +
    "deviations over all. “Writes against it”: the component moves such pictures away from the text.",
};

function HeadScreen({ state, run }) {
  const { values, error } = useRun(run);
  if (!values) return html`<${Waiting} error=${error} />`;
  const [overview, texts, list] = values;
  const units = unitsOf(overview);
  if (!units.includes(state.h || units[0])) {
    return html`<p class="problem" role="alert">
      ${run.model} has no head “${state.h}” here: its layers are ${overview.layers[0]} to
      ${` ${overview.layers[0] + overview.layers[1] - 1}, each with ${overview.heads} heads. `}
      <a href=${link({ v: "map" })}>Back to the map</a></p>`;
  }
  const unit = state.h || units[0];
  const place = units.indexOf(unit);
  const other = (step, words) =>
    units[place + step] === undefined
      ? null
      : html`<a class="step" href=${link({ h: units[place + step], c: undefined })} rel=${words}>
        ${words} ${unitLabel(units[place + step])}</a>`;
  return html`
    <h1 tabindex="-1">${capital(unitLabel(unit))}<span class="of"> of ${run.model} on ${run.dataset}</span></h1>
    <p class="controls">${other(-1, "previous:")} ${other(1, "next:")}
      <a class="step" href=${link({ v: "compare", h: unit, with: compareDefault(run, unit) })}>compare</a></p>
    <details open=${matchMedia("(min-width: 760px)").matches}><summary>Its numbers</summary><dl class="facts">
      ${overview.quantities
      .filter((quantity) => quantity.values[place] !== null)
      .map(
        (quantity) => html`
      <div key=${quantity.key}><dt>${quantity.label}</dt><dd>
        ${cellOf(overview, quantity, rangeOf(quantity), place).words}</dd></div>`,
      )}</dl></details>
    <${HeadPanel} ...${{ state, run, unit, overview, texts, list, change: go, href: link }} />`;
}

/** Spectrum and cards of a head; `change` and `href` write the part of the address that is about it. */
function HeadPanel({ state, run, unit, overview, texts, list, change, href, cards = CARDS, marked = null }) {
  const { values, error } = useParts([`${run.folder}/heads/${unit}`]);
  const panel = ui.useRef(null);
  const [onKey, byKey] = [ui.useRef(null), ui.useRef(null)];
  ui.useEffect(() => {
    // from a link to a component: show its card
    const card = panel.current && panel.current.querySelector(".card.current");
    if (card && state.c !== undefined) card.scrollIntoView({ block: "nearest" });
    if (card && byKey.current === state.c) card.querySelector("a").focus({ preventScroll: true });
  }, [state.c, values === null]);
  ui.useEffect(() => {
    const listen = (event) => onKey.current && onKey.current(event);
    document.addEventListener("keydown", listen);
    return () => document.removeEventListener("keydown", listen);
  }, []);
  onKey.current = null;
  if (!values) return html`<${Waiting} error=${error} />`;
  const [head] = values;
  const methods = Object.keys(head.methods);
  if (!methods.length)
    return html`<p class="note">This head has no components: its contribution is the same for every picture.</p>`;
  const method = methods.includes(state.k) ? state.k : methods[0];
  const naming = NAMINGS.includes(state.n) ? state.n : overview.naming;
  const own = method !== "weights"; // of the head's contributions, which the pictures' scores are of
  const part = head.methods[method];
  const ofVariance = own && head.share.length > 0;
  const share = ofVariance ? head.share : part.strength;
  const ofMethod = (name) => [METHOD_NAMES[name], { k: name, c: undefined }, name === method, index().methods[name]];
  const ofNaming = (name) => [NAMING_WORDS[name], { n: name }, name === naming, index().namings[name]];
  const tabs = html`<${Tabs} label="Method" tabs=${methods.map(ofMethod)} href=${href} />`;
  const namings = POLED.includes(method)
    ? html`<${Tabs} label="Names" tabs=${["fires_on", "says"].map(ofNaming)} href=${href} />`
    : null;
  const sentence = POLED.includes(method)
    ? `${capital(METHOD_SENTENCES[method])} ${NAMING_SENTENCES[naming]}`
    : `${capital(index().methods[method])}.`;
  const intro = html`<p class="note">${sentence}</p>`;
  if (SPANS.includes(method))
    return html`<div ref=${panel}>${tabs}${intro}<${SpanTable} ...${{ part, texts, marked }} /></div>`;
  const count = share.length;
  const current = Math.min(Math.max(Math.trunc(Number(state.c)) || 0, 0), count - 1);
  const first = Math.floor(current / cards) * cards;
  const shown = Array.from({ length: Math.min(cards, count - first) }, (_, n) => first + n);
  // Of the whole page, as focus is on the heading first, and a card in focus goes with its page of cards.
  onKey.current = (event) => {
    const step = { j: 1, k: -1 }[event.key];
    if (!step || event.target.matches("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    const side = panel.current.closest(".side"); // of two, the one with the focus
    if (side && !side.contains(event.target)) return;
    event.preventDefault();
    byKey.current = String(state.c === undefined ? 0 : Math.min(Math.max(current + step, 0), count - 1));
    change({ c: byKey.current }, { replace: true });
  };
  const pager =
    count > cards
      ? html`<p class="pager"><span>components ${first} to ${first + shown.length - 1} of ${count}</span>
    ${first > 0 ? html`<a href=${href({ c: first - cards })}>earlier</a>` : null} ${first + cards < count ? html`<a
      href=${href({ c: first + cards })}>later</a>` : null}</p>`
      : null;
  return html`<div ref=${panel}>${tabs}${namings}${intro}
    <${Spectrum} share=${share} current=${state.c === undefined ? -1 : current}
      href=${(component) => href({ c: component })}
      label=${ofVariance ? "share of the head's variance on the pictures that are scored" : "share of the sum of singular values"} />
    ${pager}
    <ol class="cards" start=${first}>${shown.map((component) => {
      const isCurrent = state.c !== undefined && component === current;
      return html`<${Card} key=${`${unit}/${method}/${component}`} current=${isCurrent}
        ...${{ head, part, naming, component, texts, list, marked, href, own }} />`;
    })}</ol>
    ${pager}</div>`;
}

/** The texts of a component at a pole: [{text, score, projection}], and whether the first is above chance. */
function poleNames(names, component, pole) {
  const side = 2 * component + (pole === "top" ? 0 : 1);
  let start = 0;
  for (let before = 0; before < side; before++) start += names.count[before];
  const end = start + names.count[side];
  const rows = [];
  for (let row = start; row < end; row++)
    rows.push({
      text: names.text[row],
      score: names.score[row],
      projection: names.projection ? names.projection[row] : null,
    });
  return { rows, named: Boolean(names.named[side]), chance: names.chance[side] };
}

/** Sentences about a component: its share, what moves it, how alike its pictures are, and how steady it is. */
function componentFacts(head, part, component, own) {
  const facts = [`singular value ${number(part.singular[component])}`];
  if (!own) return facts;
  if (head.share.length) facts.unshift(`${number(head.share[component])} % of the variance`);
  const [strongest] = [...head.factors].sort((a, b) => b.eta2[component] - a.eta2[component]);
  if (strongest && strongest.eta2[component] >= 1) {
    const [low, high] = [strongest.low, strongest.high].map((numbers) => strongest.values[numbers[component]]);
    const share = `${number(strongest.eta2[component], 2)} % of it by ${strongest.name} (η²)`;
    facts.push(`${share}: − ${low}, + ${high}`);
  }
  if (head.monosemanticity) {
    const { top, bottom, chance, of } = head.monosemanticity;
    const [low, high, any] = [bottom[component], top[component], chance].map((value) => number(value, 2));
    facts.push(`likeness of a pole's pictures (${of}): − ${low}, + ${high}; any pictures ${any}`);
  }
  const { match } = head.scores;
  if (match.component.length) {
    const cosine = match.cosine[component];
    const swapped = cosine < 0 ? ", poles swapped" : "";
    const other = `with the next seed: most like its component ${match.component[component]}${swapped}`;
    facts.push(`${other}, cosine ${number(Math.abs(cosine), 2)}`);
  }
  return facts;
}

/** One component: both poles with texts and pictures, and its scores. */
function Card({ head, part, naming, component, texts, list, marked, href, current, own }) {
  const { scores } = head;
  const share = { texts, marked, list };
  const poles = part.names ? POLES : [];
  return html`<li class=${`card${current ? " current" : ""}`} value=${component}>
    <h2><a href=${href({ c: component })} aria-current=${current ? "true" : undefined}>Component ${component}</a></h2>
    <p class="note">${componentFacts(head, part, component, own).join(" · ")}</p>
    ${part.names ? null : html`<${SparseSum} ...${{ part, component, scores, ...share }} />`}
    <div class="poles">${poles.map(([pole, sign]) => {
      const names = poleNames(part.names[naming], component, pole);
      const pictures = own ? scores[pole][component] : null;
      return html`<${Pole} key=${pole} ...${{ pole, sign, names, naming, pictures, ...share }} />`;
    })}</div>
    ${
      own
        ? html`<${Histogram} counts=${scores.histogram[component]} low=${scores.low[component]}
          high=${scores.high[component]} label="scores of the pictures" />
      <${Deciles} ...${{ list, pictures: scores.deciles[component] }} />`
        : null
    }
  </li>`;
}

/** The pictures at the deciles of a component's scores, the lowest first. */
function Deciles({ list, pictures }) {
  const captions = pictures.map((_, n) => `${10 * (n + 1)} %`);
  const notes = captions.map((share) => `at ${share} of the scores`);
  const label = "pictures at the deciles of the scores, lowest first";
  return html`<${Pictures} ...${{ list, pictures, side: 40, captions, notes, label }} />`;
}

/** A pole of a component: its texts with bars, and its pictures. */
function Pole({ pole, sign, names, naming, texts, marked, list, pictures }) {
  const most = Math.max(...names.rows.map((row) => Math.abs(row.score)), names.chance || 0);
  return html`<section class=${`pole ${pole}`} aria-label=${`${sign === "+" ? "plus" : "minus"} pole`}>
    <h3><span class="sign" aria-hidden="true">${sign}</span><span class="note">
      ${names.named ? "" : "no name above chance; "}random texts reach ${number(names.chance)}</span></h3>
    <ul class="texts">${names.rows.map((row, place) => {
      const text = texts[row.text];
      const against = naming !== "says" && row.projection !== null && row.projection < 0;
      const across = naming === "says" && (pole === "top" ? row.score < 0 : row.score > 0);
      return html`<li key=${place} class=${marked && marked.has(row.text) ? "shared" : ""}><${Bar}
        value=${Math.abs(row.score)} of=${most} />
        <a href=${link({ v: "search", i: text, q: undefined })}><${Text} dim=${!names.named || across}>
          ${text}<//></a> <span class="score">
          ${number(Math.abs(row.score))}${against ? ", writes against it" : ""}${across ? ", on the other side" : ""}</span></li>`;
    })}</ul>
    ${pictures ? html`<${PolePictures} ...${{ list, pictures, sign }} />` : null}
  </section>`;
}

/** A component as a weighted sum of texts, with the pictures at the pole that it stands for. */
function SparseSum({ part, component, texts, marked, list, scores }) {
  const start = part.count.slice(0, component).reduce((sum, count) => sum + count, 0);
  const rows = Array.from({ length: part.count[component] }, (_, n) => [part.text[start + n], part.weight[start + n]]);
  const most = Math.max(...rows.map(([, weight]) => weight), 1e-9);
  const [pole, sign] = part.pole[component] ? ["bottom", "−"] : ["top", "+"];
  return html`<section class=${`pole ${pole}`}>
    <h3><span class="sign">${sign}</span><span class="note">cosine of the sum with the component:
      ${` ${number(part.cosine[component])}`}</span></h3>
    <ul class="texts">${rows.map(([text, weight], place) => html`
      <li key=${place} class=${marked && marked.has(text) ? "shared" : ""}><${Bar} value=${weight} of=${most} />
        <a href=${link({ v: "search", i: texts[text], q: undefined })}><${Text}>${texts[text]}<//></a>
        <span class="score">× ${number(weight)}</span></li>`)}</ul>
    <${PolePictures} ...${{ list, pictures: scores[pole][component], sign }} />
  </section>`;
}

/** The pictures at a pole, [numbers, scores], the most extreme first. */
function PolePictures({ list, pictures: [numbers, scores], sign }) {
  const label = `pictures at the ${sign === "+" ? "plus" : "minus"} pole`;
  const notes = scores.map((score) => `score ${number(score)}`);
  return html`<${Pictures} ...${{ list, pictures: numbers, side: 44, notes, label }} />`;
}

/** The texts of TextSpan in the order that they were picked. */
function SpanTable({ part, texts, marked }) {
  const most = Math.max(...part.variance, 1e-9);
  return html`<ol class="texts span">${part.text.map(
    (
      text,
      place,
    ) => html`<li key=${place} class=${marked && marked.has(text) ? "shared" : ""}><span class="place-number">
      ${place + 1}</span><${Bar} value=${part.variance[place]} of=${most} />
    <a href=${link({ v: "search", i: texts[text], q: undefined })}><${Text}>${texts[text]}<//></a> <span class="score">
      ${number(part.variance[place])} % of the variance</span></li>`,
  )}</ol>`;
}
