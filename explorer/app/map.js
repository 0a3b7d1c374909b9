// The map: every head by layer, coloured by a quantity, or two quantities as a scatter; below it the clearest components.
"use strict";

const FACTOR = "factor"; // in place of a quantity: the factor that explains most of each head

function MapScreen({ state, run }) {
  const { values, error } = useParts([`${run.folder}/overview`]);
  const [pointed, point] = ui.useState(null);
  if (!values) return html`<${Waiting} error=${error} />`;
  const [overview] = values;
  const list = overview.clearest_pictures; // the list of all pictures is large
  const units = unitsOf(overview);
  const choices = overview.quantities.map((quantity) => [quantity.key, quantity.label]);
  if (overview.factor) choices.push([FACTOR, "factor that explains most of it"]);
  const find = (key) => overview.quantities.find((quantity) => quantity.key === key);
  const by = state.by === FACTOR && overview.factor ? FACTOR : (find(state.by) || overview.quantities[0]).key;
  const scatter = state.x !== undefined;
  const x = find(state.x) || overview.quantities[0];
  const y = find(state.y) || overview.quantities[1] || x;
  const shown = units.includes(pointed) ? pointed : state.h && units.includes(state.h) ? state.h : units[0];
  const share = { overview, units, run, shown, point };
  return html`
    <h1 tabindex="-1">Every head of ${run.model} on ${run.dataset}</h1>
    <div class="controls">
      <${Tabs} label="Kind of map" tabs=${[
        ["Map", { x: undefined, y: undefined }, !scatter],
        ["Scatter", { x: x.key, y: y.key }, scatter],
      ]} />
      ${
        scatter
          ? html`<${Choice} label="across" value=${x.key} options=${choices.filter(([key]) => key !== FACTOR)}
            onChange=${(key) => go({ x: key }, { replace: true })} />
               <${Choice} label="up" value=${y.key} options=${choices.filter(([key]) => key !== FACTOR)}
                 onChange=${(key) => go({ y: key }, { replace: true })} />`
          : html`<${Choice} label="colour by" value=${by} options=${choices}
            onChange=${(key) => go({ by: key }, { replace: true })} />`
      }
    </div>
    <div class="mapped">
      ${scatter ? html`<${Scatter} ...${share} x=${x} y=${y} />` : html`
        <${Grid} ...${share} quantity=${by === FACTOR ? null : find(by)} />`}
      <${Pointed} ...${share} quantities=${scatter ? [x, y] : by === FACTOR ? [] : [find(by)]} />
    </div>
    ${
      overview.clearest.length
        ? html`<h2>The clearest components</h2>
      <p class="note">Those with the surest names (${WHAT_THEY[overview.naming]}), none like another; at 1 × a name
        scores as high as the best of as many random texts does in 95 % of the cases.</p>
      <ul class="clearest">${overview.clearest.map((card) => html`
        <${ClearCard} key=${`${card.unit}/${card.component}`} ...${{ card, list }} />`)}</ul>`
        : null
    }`;
}

const WHAT_THEY = { fires_on: "what they fire on", says: "what they say" };

/** How a head looks on the map: {colour, words}. */
function cellOf(overview, quantity, range, place) {
  if (!quantity) {
    const { names, number: numbers, share } = overview.factor;
    const categories = index().scales.categories;
    return {
      colour: categories[numbers[place] % categories.length],
      opacity: 0.15 + (0.85 * share[place]) / 100,
      words: `${names[numbers[place]]}, ${number(share[place], 2)} % of its variance`,
      text: names[numbers[place]],
    };
  }
  const value = quantity.values[place];
  if (value === null) return { colour: null, words: "not known", text: "–" };
  const unsure = quantity.low && quantity.low[place] !== null && quantity.low[place] <= 0 && quantity.high[place] >= 0;
  const bounds =
    quantity.low && quantity.low[place] !== null
      ? ` (95 %: ${number(quantity.low[place])} to ${number(quantity.high[place])})`
      : "";
  return {
    colour: scaleColour(quantity.scale, (value - range[0]) / (range[1] - range[0])),
    words: `${number(value)} ${quantity.unit}${bounds}${unsure ? ", not told from 0" : ""}`,
    text: number(value, 2),
    unsure,
  };
}

/** Layers by heads as a table of links; arrow keys move, Enter opens. */
function Grid({ overview, units, run, shown, point, quantity }) {
  const [first, count] = overview.layers;
  const range = quantity ? rangeOf(quantity) : [0, 1];
  const roomy = overview.heads <= 6;
  const table = ui.useRef(null);
  const onKeyDown = (event) => {
    const at = units.indexOf(shown);
    const inGrid = shown !== "embedding";
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: overview.heads, ArrowUp: -overview.heads }[event.key];
    let next = step === undefined ? { Home: 0, End: units.length - 1 }[event.key] : at + step;
    if (next === undefined) return;
    if (event.key === "ArrowUp" && !inGrid) next = units.length - 2;
    next = Math.min(Math.max(next, 0), units.length - 1);
    event.preventDefault();
    point(units[next]);
    table.current.querySelector(`[data-unit="${units[next]}"]`).focus();
  };
  const cell = (unit, place, words = null) => {
    const look = cellOf(overview, quantity, range, place);
    const style = look.colour
      ? {
          backgroundColor:
            look.opacity === undefined
              ? look.colour
              : `color-mix(in srgb, ${look.colour} ${Math.round(look.opacity * 100)}%, var(--paper))`,
        }
      : {};
    if (look.colour) style.color = look.opacity === undefined ? inkOn(look.colour) : "var(--ink)";
    return html`<a href=${link({ v: "head", h: unit, c: undefined })} data-unit=${unit} style=${style}
      class=${`cell${look.unsure ? " unsure" : ""}${unit === shown ? " shown" : ""}`}
        tabindex=${unit === shown ? 0 : -1}
      aria-label=${`${unitLabel(unit)}: ${look.words}`} onFocus=${() => point(unit)} onMouseEnter=${() => point(unit)}>
      <span>${words || (roomy ? look.text : "")}</span></a>`;
  };
  return html`<div class="grid" ref=${table} onKeyDown=${onKeyDown}>
    <table style=${{ "--heads": overview.heads }}><caption
      class="aside">Heads by layer; arrow keys move, Enter opens a head</caption>
      <thead><tr><th scope="col"><span class="label">layer</span></th>
        ${Array.from({ length: overview.heads }, (_, head) => html`<th key=${head} scope="col"><span
        class="aside">head </span>${head}</th>`)}</tr></thead>
      <tbody>${Array.from(
        { length: count },
        (_, row) => html`<tr key=${row}><th scope="row"><span class="aside">layer </span>${first + row}</th>
        ${Array.from({ length: overview.heads }, (_, head) => html`<td key=${head}>
          ${cell(`${first + row}.${head}`, row * overview.heads + head)}</td>`)}</tr>`,
      )}</tbody>
    </table>
    <p class="whole">${cell("embedding", units.length - 1, "the whole embedding")}</p>
    <${Legend} ...${{ overview, quantity, range }} />
  </div>`;
}

function Legend({ overview, quantity, range }) {
  if (!quantity) {
    const categories = index().scales.categories;
    const shades = (colour) => `linear-gradient(to right, color-mix(in srgb, ${colour} 15%, var(--paper)), ${colour})`;
    return html`<ul class="legend">${overview.factor.names.map((name, n) => html`<li key=${name}>
      <span class="swatch" style=${{ background: shades(categories[n % categories.length]) }}></span>${name}</li>`)}
      <li class="note">from 0 to 100 % of the head's variance</li></ul>`;
  }
  if (quantity.values.every((value) => !value)) return html`<p class="note">all 0 ${quantity.unit}, or not known</p>`;
  const steps = Array.from({ length: 9 }, (_, step) => scaleColour(quantity.scale, step / 8));
  return html`<div class="legend scale"><span>${number(range[0], 2)}</span><span class="ramp"
    style=${{ background: `linear-gradient(to right, ${steps.join(",")})` }}></span><span>
    ${number(range[1], 2)} ${quantity.unit}</span>
    ${quantity.low ? html`<span class="note"><span
      class="swatch unsure"></span> hatched: not told from 0 (95 % interval)</span>` : null}</div>`;
}

/** Two quantities of each head against each other. */
function Scatter({ overview, units, shown, point, x, y }) {
  const [width, height, left, bottom] = [560, 400, 56, 46];
  const [xRange, yRange] = [x, y].map((quantity) => {
    const values = quantity.values.filter((value) => value !== null);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const margin = (high - low || 1) * 0.05;
    return [low - margin, high + margin];
  });
  const across = (value) => left + ((value - xRange[0]) / (xRange[1] - xRange[0])) * (width - left - 12);
  const up = (value) => height - bottom - ((value - yRange[0]) / (yRange[1] - yRange[0])) * (height - bottom - 12);
  const dots = units
    .map((unit, place) => ({ unit, place }))
    .filter(({ place }) => x.values[place] !== null && y.values[place] !== null);
  const ref = ui.useRef(null);
  const onKeyDown = (event) => {
    const at = dots.findIndex(({ unit }) => unit === shown);
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step || !dots.length) return;
    event.preventDefault();
    const next = dots[Math.min(Math.max(at + step, 0), dots.length - 1)].unit;
    point(next);
    ref.current.querySelector(`[data-unit="${next}"]`).focus();
  };
  const active = dots.some(({ unit }) => unit === shown) ? shown : dots.length ? dots[0].unit : null;
  const [first, count] = overview.layers;
  const ticks = ([low, high]) => {
    const step = 10 ** Math.floor(Math.log10((high - low) / 2));
    const fine = [1, 2, 5].map((f) => f * step).find((s) => (high - low) / s <= 6) || 5 * step;
    const start = Math.ceil(low / fine);
    return Array.from({ length: Math.floor(high / fine) - start + 1 }, (_, n) =>
      Number(((start + n) * fine).toPrecision(6)),
    );
  };
  return html`<figure class="scatter" ref=${ref} onKeyDown=${onKeyDown}>
    <svg viewBox="0 0 ${width} ${height}" role="group"
      aria-label=${`${y.label} against ${x.label}, a dot for each head; arrow keys move, Enter opens a head`}>
      ${ticks(xRange).map((tick) => html`<g key=${`x${tick}`} class="tick"><line x1=${across(tick)} x2=${across(tick)}
        y1="12" y2=${height - bottom} /><text x=${across(tick)} y=${height - bottom + 15} text-anchor="middle">
        ${number(tick)}</text></g>`)}
      ${ticks(yRange).map((tick) => html`<g key=${`y${tick}`} class="tick"><line x1=${left} x2=${width - 12}
        y1=${up(tick)} y2=${up(tick)} /><text x=${left - 6} y=${up(tick) + 4} text-anchor="end">
        ${number(tick)}</text></g>`)}
      <text class="axis" x=${(left + width) / 2} y=${height - 8} text-anchor="middle">${x.label} (${x.unit})</text>
      <text class="axis" transform=${`translate(13 ${(height - bottom) / 2}) rotate(-90)`} text-anchor="middle">
        ${y.label} (${y.unit})</text>
      ${dots.map(({ unit, place }) => {
        const layer = unit === "embedding" ? null : Number(unit.split(".")[0]);
        const colour =
          layer === null ? "none" : scaleColour("sequential", count > 1 ? (layer - first) / (count - 1) : 1);
        const words = `${unitLabel(unit)}: ${x.label} ${number(x.values[place])}, ${y.label} ${number(y.values[place])}`;
        return html`<a key=${unit} href=${link({ v: "head", h: unit, c: undefined, x: undefined, y: undefined })}
          data-unit=${unit} tabindex=${unit === active ? 0 : -1} aria-label=${words} onFocus=${() => point(unit)}
          onMouseEnter=${() => point(unit)}>
          <circle cx=${across(x.values[place])} cy=${up(y.values[place])} r=${unit === shown ? 8 : 5.5} fill=${colour}
            class=${unit === shown ? "shown" : ""} /></a>`;
      })}
    </svg>
    <figcaption
      class="note">Colour: layer, ${first} dark to ${first + count - 1} light; hollow: the whole embedding.</figcaption></figure>`;
}

/** What is pointed at: a head's numbers and first names. */
function Pointed({ overview, units, shown, quantities }) {
  const place = units.indexOf(shown);
  const [top, bottom] = overview.names[place];
  return html`<section class="pointed" aria-label="The head pointed at">
    <h2>${capital(unitLabel(shown))}</h2>
    <dl>${(quantities.length ? quantities : overview.quantities.slice(0, 3)).map((quantity) => html`
      <div key=${quantity.key}><dt>${quantity.label}</dt><dd>
      ${cellOf(overview, quantity, rangeOf(quantity), place).words}</dd></div>`)}
      ${overview.factor ? html`<div><dt>explained most by</dt><dd>
        ${cellOf(overview, null, null, place).words}</dd></div>` : null}</dl>
    ${
      top || bottom
        ? html`<p class="note">Its first component ${NAMING_WORDS[overview.naming]}</p>
      <p class="pole bottom signed"><span class="sign">−</span><${Text}>${bottom}<//></p><p class="pole top signed">
        <span class="sign">+</span><${Text}>${top}<//></p>`
        : null
    }
    <p><a class="open"
      href=${link({ v: "head", h: shown, c: undefined, x: undefined, y: undefined })}>Open this ${shown === "embedding" ? "spectrum" : "head"}</a></p>
  </section>`;
}

/** One of the clearest components, a link to its card. */
function ClearCard({ card, list }) {
  return html`<li><h3><${PlaceLink} unit=${card.unit} component=${card.component} /></h3>
    <p class="note">
      ${number(card.share, 2)} % of the head's variance${card.factor ? `, ${number(card.eta2, 2)} % of that by ${card.factor}` : ""}; names at ${number(card.sureness)} × random texts</p>
    <div class="poles">${POLES.map(
      ([pole, sign]) => html`<div key=${pole} class=${`pole ${pole}`}>
      <p class="signed"><span class="sign">${sign}</span> <${Text} dim=${!card[pole].named}>
        ${card[pole].named ? card[pole].text : `unnamed (${card[pole].text})`}<//></p>
      <${Pictures} ...${{ list, pictures: card[pole].pictures, side: 38, label: `pictures at the ${sign} pole` }} /></div>`,
    )}</div></li>`;
}
