// Search: texts, and values of classes and factors, to the components that have them at a pole.
"use strict";

const MOST = 40; // results shown of each kind
const ROWS = 200; // of a table

function SearchScreen({ state, run }) {
  const { values, error } = useRun(run, [`${run.folder}/search/counts`, `${run.folder}/values`]);
  const query = state.q || "";
  const [typed, type] = ui.useState(query);
  const wait = ui.useRef(null);
  ui.useEffect(() => type(query), [query]);
  ui.useEffect(() => () => clearTimeout(wait.current), [address(state)]); // what was opened meanwhile stays
  const lowered = ui.useMemo(() => (values ? values[1].map((text) => text.toLowerCase()) : []), [values && values[1]]);
  if (!values) return html`<${Waiting} error=${error} />`;
  const [overview, texts, list, counts, factors] = values;
  const words = typed.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (text) => words.every((word) => text.includes(word));
  const found = words.length ? lowered.flatMap((text, number) => (fits(text) ? [number] : [])) : [];
  found.sort((a, b) => counts.counts[b] - counts.counts[a]);
  const valuesFound = factors.flatMap((factor) =>
    factor.values
      .filter(({ value }) => words.length && fits(`${factor.name} ${value}`.toLowerCase()))
      .map(({ value }) => [factor.name, value]),
  );
  const onInput = (event) => {
    const q = event.target.value;
    type(q);
    clearTimeout(wait.current); // the address follows when the keys rest
    wait.current = setTimeout(() => go({ q, i: undefined, f: undefined, w: undefined }, { replace: true }), 250);
  };
  const valueCount = `${valuesFound.length} ${valuesFound.length === 1 ? "value" : "values"}`;
  const status = words.length
    ? `${found.length} of ${texts.length} texts, ${valueCount}`
    : `${texts.length} texts, ${factors.map((factor) => factor.name).join(", ") || "no factors"}`;
  return html`<h1 tabindex="-1">Search<span class="of"> in ${run.model} on ${run.dataset}</span></h1>
    <p class="searching"><label>a text, a class or a factor's value <input id="search" type="search" dir="auto"
      value=${typed} onInput=${onInput} autocomplete="off" /></label></p>
    <p class="note" role="status">${status}</p>
    ${state.i !== undefined ? html`<${TextPlaces} ...${{ text: state.i, texts, counts, overview, run }} />` : null}
    ${state.f !== undefined ? html`
      <${ValuePlaces} ...${{ factor: state.f, value: state.w, factors, list, overview, run }} />` : null}
    <div class="results">
      ${
        valuesFound.length || !words.length
          ? html`<section><h2>Values</h2>${factors.map((factor) => {
              const shown = words.length
                ? factor.values.filter(({ value }) => valuesFound.some(([f, w]) => f === factor.name && w === value))
                : factor.values;
              return shown.length
                ? html`<div key=${factor.name}><h3>${factor.name}</h3><ul class="values">
                  ${shown.slice(0, 3 * MOST).map(({ value }) => html`<li key=${value}><a
                  href=${link({ f: factor.name, w: value, i: undefined })}><${Text}>${value}<//></a></li>`)}</ul></div>`
                : null;
            })}</section>`
          : null
      }
      ${
        found.length
          ? html`<section><h2>Texts</h2><ul class="texts plain">${found.slice(0, MOST).map(
              (number) => html`<li key=${number}>
        <a href=${link({ i: texts[number], f: undefined, w: undefined })}><${Text} dim=${!counts.counts[number]}>
          ${texts[number]}<//></a> <span class="score">
          ${counts.counts[number] ? `at ${counts.counts[number]} ${counts.counts[number] === 1 ? "pole" : "poles"}` : "at no pole"}</span></li>`,
            )}</ul>
        ${found.length > MOST ? html`<p class="note">… and ${found.length - MOST} more; type more of the text.</p>` : null}</section>`
          : null
      }
    </div>`;
}

/** The components that have a text at a pole. */
function TextPlaces({ text, texts, counts, overview, run }) {
  const number = texts.indexOf(text);
  const part = number < 0 ? null : Math.floor(number / counts.size);
  const { values, error } = useParts(part === null ? [] : [`${run.folder}/search/${part}`]);
  if (number < 0)
    return html`<p class="problem" role="alert">The text “<bdi>${text}</bdi>” is not in the pool ${run.texts}.</p>`;
  if (!values) return html`<${Waiting} error=${error} />`;
  const units = unitsOf(overview);
  const places = new Map(); // a pole may have the text by both namings
  for (const code of values[0][number - part * counts.size]) {
    const at = Math.floor(code / 2);
    places.set(at, [...(places.get(at) || []), NAMINGS[code & 1]]);
  }
  const rows = [...places].slice(0, ROWS).map(([at, by]) => {
    const [pole, place] = [at & 1 ? "−" : "+", Math.floor(at / 2)];
    const unit = units[Math.floor(place / counts.width)];
    const component = place % counts.width;
    return [
      html`<${PlaceLink} unit=${unit} component=${component} naming=${by[0]} />`,
      pole,
      by.map((naming) => NAMING_WORDS[naming]).join(", "),
    ];
  });
  const columns = ["component", "pole", "by"];
  return html`<section class="places"><h2>“<${Text}>${text}<//>”</h2>
    ${
      rows.length
        ? html`<p class="note">is among the names of ${places.size} ${places.size === 1 ? "pole" : "poles"}, where it is
          the best name first${places.size > rows.length ? `; here are ${rows.length} of them` : ""}</p>
    <${Table} label="Where the text is" columns=${columns} rows=${rows} />`
        : html`<p class="note">is among the names of no pole.</p>`
    }</section>`;
}

/** The components that a value of a factor is at a pole of, and its pictures. */
function ValuePlaces({ factor, value, factors, list, overview, run }) {
  const units = unitsOf(overview);
  const known = factors.find((other) => other.name === factor);
  const entry = known && known.values.find((other) => other.value === value);
  if (!entry)
    return html`<p class="problem" role="alert">No component here is moved by ${factor} “<bdi>${value}</bdi>”.</p>`;
  const column = Object.hasOwn(list.factors, factor) ? list.factors[factor] : null;
  const code = column ? column.values.indexOf(value) : -1;
  const pictures = column ? column.codes.flatMap((other, picture) => (other === code ? [picture] : [])) : [];
  const shown = pictures.slice(0, 24);
  return html`<section class="places"><h2>${factor} “<${Text}>${value}<//>”</h2>
    <p class="note">has the highest (+) or lowest (−) mean score of all values on
      ${` ${entry.total} ${entry.total === 1 ? "component" : "components"} that ${factor} explains at least 5 % of`}
      ${entry.total > entry.components.length ? `; here are the ${entry.components.length} that it explains most of` : ""}.
      ${" η²: the share of the scores' variance that lies between values."}</p>
    <${Table} label="Where the value is" columns=${["component", "pole", "η² (%)"]} rows=${entry.components.map(
      ([unit, component, pole, eta2]) => [
        html`<${PlaceLink} unit=${units[unit]} component=${component} />`,
        pole ? "−" : "+",
        number(100 * eta2, 2),
      ],
    )} />
    <p class="note">
      ${shown.length < pictures.length ? `${shown.length} of ${pictures.length} pictures` : "Pictures"} with this value;
      ${" "}<a href=${link({ v: "picture", f: factor, w: value })}>all of them</a></p>
    <${Pictures} ...${{ list, pictures: shown, label: `pictures with ${factor} ${value}` }} />
  </section>`;
}
