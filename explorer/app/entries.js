// What the config asked for besides: interventions, queries, neighbours, maps of texts.
"use strict";

const KINDS = {
  interventions: "Interventions",
  queries: "Queries",
  topics: "Topics",
  neighbours: "Neighbours",
  spatial: "Maps of texts",
};

function EntriesScreen({ state }) {
  const entries = index().entries;
  const entry = entries.find((other) => other.key === state.e);
  const problem =
    state.e !== undefined && !entry
      ? html`<p class="problem" role="alert">This explorer has no entry “<bdi>${state.e}</bdi>”.</p>`
      : null;
  if (entry)
    return html`<p><a href=${link({ e: undefined })}>All queries and edits</a></p>
      <${Entry} key=${entry.key} entry=${entry} />`;
  return html`<h1 tabindex="-1">Queries and edits</h1>${problem}
    <p class="note">What the config asks for by name.</p>
    ${Object.entries(KINDS).map(([kind, title]) => {
      const own = entries.filter((other) => other.kind === kind);
      return own.length
        ? html`<section key=${kind}><h2>${title}</h2><ul>${own.map((other) => html`<li key=${other.key}><a
          href=${link({ ...(entryRun(other) ? runState(entryRun(other)) : {}), e: other.key })}>${other.name}</a> <span
          class="note">${entrySentence(other)}</span></li>`)}</ul></section>`
        : null;
    })}
    ${entries.length ? null : html`
      <p>None. Add <code>queries</code>, <code>neighbours</code>, <code>spatial</code> or <code>interventions</code> to the config.</p>`}`;
}

function entrySentence(entry) {
  const on = `${entry.model}${entry.dataset ? ` on ${entry.dataset}` : ""}`;
  if (entry.kind === "interventions") return `${on}: ${entry.edits.join("; then ")}`;
  const what = [
    entry.text ? `“${entry.text}”` : "",
    entry.image || "",
    "layer" in entry ? `layer ${entry.layer}, head ${entry.head}` : "",
    "component" in entry ? `component ${entry.component}` : "",
  ]
    .filter(Boolean)
    .join(", ");
  return `${on}${what ? `: ${what}` : ""}`;
}

/** The run that an entry is about, if this explorer has it. */
function entryRun(entry) {
  return (
    index().runs.find(
      (run) =>
        run.model === entry.model &&
        run.dataset === entry.dataset &&
        run.texts === entry.texts &&
        String(run.seed) === entry.seed,
    ) || null
  );
}

function Entry({ entry }) {
  const run = entryRun(entry);
  const { values, error } = useParts([entry.key, ...(run ? [`pictures/${run.dataset}/list`] : [])]);
  if (!values) return html`<${Waiting} error=${error} />`;
  const [part, list] = values;
  const share = { entry, part, run, list };
  return html`<h1 tabindex="-1">${entry.name}</h1><p class="note">${KINDS[entry.kind]}: <bdi>
    ${entrySentence(entry)}</bdi></p>
    ${entry.picture ? html`<${Maps} file=${entry.key} names=${[]} />` : null}
    ${{ interventions: Intervention, queries: Query, topics: Topics, neighbours: Neighbours, spatial: Spatial }[entry.kind](share)}`;
}

function Intervention({ part, run }) {
  const seeds = Object.keys(part.summary);
  const [seed, choose] = ui.useState(seeds[0]);
  const curves = part.curves.filter((curve) => curve.role === "eval" && curve.seed === seed);
  const groups = [...new Set(curves.map((curve) => curve.group))];
  const { all, edited } = part.unit_counts[seed];
  return html`<div class="controls"><${Choice} label="seed" value=${seed}
      options=${seeds.map((one) => [one, one])} onChange=${choose} /></div>
    <p class="note">All of this page is of one seed; results/tables/interventions.csv has the means over seeds.</p>
    ${
    curves.length
      ? html`<h2>Accuracy by the number of units</h2>
      <p class="note">Blue: edited, with its 95 % interval. Grey: as many random components of like variance, 95 % of the draws.</p>
      <div class="charts">${groups.map((group) => html`<${AccuracyChart} key=${group} group=${group}
        curve=${curves.find((curve) => curve.group === group)}
        name=${`${part.name}/${part.model}/${group}/${seed}`} />`)}</div>`
      : null
  }
    <h2>Before and after</h2>
    <${Table} label="Before and after"
      columns=${["setting", "group", "images", "units", "accuracy (%)", "95 % interval", "random units (%)"]}
      rows=${part.summary[seed].map((row) => [
        row.setting,
        row.group,
        `${row.split}, ${row.images}`,
        number(row.units),
        number(row.accuracy),
        `${number(row.accuracy_low)} to ${number(row.accuracy_high)}`,
        number(row.random),
      ])} />
    <h2>Units</h2>
    <p class="note">${edited} of ${all} are edited, the others come after them by the same rule
      ${part.units[seed].length < all ? `; here are the first ${part.units[seed].length}` : ""}. Names: what they fire on.</p>
    <${Table} label="Units" columns=${["unit", "edited", "share of the concept (%)", "−", "+"]}
      rows=${part.units[seed].map((row) => [
        row.unit ? html`<${PlaceLink} run=${run} unit=${row.unit} component=${row.component ?? undefined} />` : row.words,
        row.chosen ? row.do : "–",
        row.share === null || row.share === undefined ? "–" : number(100 * row.share),
        html`<${Text}>${row.fires_on_bottom || ""}<//>`,
        html`<${Text}>${row.fires_on_top || ""}<//>`,
      ])} />`;
}

function AccuracyChart({ group, curve, name }) {
  const rows = curve.units.map((units, n) => ({
    units,
    value: curve.accuracy[0][n],
    low: curve.accuracy[1][n],
    high: curve.accuracy[2][n],
    randomLow: curve.random[1][n],
    randomHigh: curve.random[2][n],
  }));
  const make = (Plot, width) =>
    Plot.plot({
      width,
      height: 220,
      ...CURVES,
      x: { label: "units edited" },
      y: { label: `accuracy, ${group} (%)`, grid: true },
      marks: [
        band(rows, "units", "randomLow", "randomHigh", { fill: "currentColor" }),
        band(rows, "units", "low", "high", { fill: "#0072B2" }),
        Plot.lineY(rows, { x: "units", y: "value", stroke: "#0072B2", strokeWidth: 2 }),
      ],
    });
  return html`<${Chart} make=${make} name=${name} label=${`accuracy of ${group} by the number of units`} />`;
}

function Query({ part, run, list }) {
  const rows = part.layer.map((_, n) => {
    const [random, sd] = [part.random_cosine[n], part.random_cosine_sd[n]];
    const bounds = sd === null ? [null, null] : [random - sd, random + sd];
    return { place: n + 1, cosine: part.cosine[n], randomLow: bounds[0], randomHigh: bounds[1] };
  });
  const make = (Plot, width) =>
    Plot.plot({
      width,
      height: 220,
      ...CURVES,
      x: { label: "components, the strongest first" },
      y: { label: "cosine with the query", zero: true, grid: true },
      marks: [
        band(rows, "place", "randomLow", "randomHigh", { fill: "currentColor" }),
        Plot.lineY(rows, { x: "place", y: "cosine", stroke: "#0072B2", strokeWidth: 2 }),
        Plot.ruleY(
          [part.reachable].filter((value) => value !== null),
          { stroke: "currentColor", strokeDasharray: "2 3" },
        ),
      ],
    });
  return html`<h2>How much of it the components rebuild</h2><${Chart} make=${make} name=${part.name}
    label="cosine with the query by number of components" />
    <p class="note">Dotted: all components together. Grey: as many random ones, mean and standard deviation.</p>
    <h2>Components that carry it</h2>
    <${Table} label="Components"
      columns=${["component", "score", ...(part.own_score ? ["its own head's"] : []), "at its end", "at the other"]}
      rows=${part.layer.map((layer, n) => [
        html`<${PlaceLink} run=${run} unit=${`${layer}.${part.head[n]}`} component=${part.component[n]} />`,
        number(part.score[n]),
        ...(part.own_score ? [number(part.own_score[n])] : []),
        html`<${Text}>${part.text[n]}<//>`,
        html`<${Text}>${part.opposite[n]}<//>`,
      ])} />
    <${Ends} ...${{ rows: part.images, run, list, title: "Images along it" }} />`;
}

const END_WORDS = {
  top: "highest",
  bottom: "lowest",
  nearest: "nearest",
  farthest: "farthest",
  spread: "spread over the scores",
};

/** Images at each end of a query or component, as pictures where they are shown here. */
function Ends({ rows, run, list, title }) {
  if (!rows) return null;
  return html`<h2>${title}</h2>${Object.entries(rows).map(([end, images]) => {
    const shown = list
      ? images.map(([name, score]) => [list.names.indexOf(name), score]).filter(([picture]) => picture >= 0)
      : [];
    return html`<section key=${end}><h3>${END_WORDS[end] || end}</h3>${shown.length ? html`
      <${Pictures} ...${{ list, pictures: shown.map(([picture]) => picture), side: 64, captions: shown.map(([, score]) => number(score, 2)), label: `${end} images` }} />` : null}
      ${shown.length < images.length ? html`<p class="note">
        ${images.length - shown.length} more are not among the pictures shown here.</p>` : null}</section>`;
  })}`;
}

function Neighbours({ part, run, list }) {
  const score =
    "component" in part && !("image" in part)
      ? "the score on the component"
      : `the cosine ${"layer" in part ? "of the head's contributions" : "of the embeddings"}, less their mean over the fit images`;
  return html`<p class="note">For images: ${score}; for texts: the projection.</p><${Ends} ...${{ rows: part.images, run, list, title: "Images" }} />
    ${part.texts ? html`<h2>Texts</h2>${Object.entries(part.texts).map(([end, rows]) => html`<section key=${end}><h3>
      ${END_WORDS[end] || end}</h3><ul class="texts plain">${rows.map(([text, score]) => html`<li key=${text}><a
      href=${link({ v: "search", ...(run ? runState(run) : {}), i: text })}><${Text}>${text}<//></a> <span
      class="score">${number(score)}</span></li>`)}</ul></section>`)}` : null}`;
}

function Topics({ part, run }) {
  const columns = ["text", "components", "heads", "cosine", "of all components", "of random ones"];
  const rows = part.topic.map((topic, n) => [
    html`<a href=${link({ v: "search", ...(run ? runState(run) : {}), q: topic })}><${Text}>${topic}<//></a>`,
    ...["components", "heads", "cosine", "reachable", "random_cosine"].map((name) => number(part[name][n])),
  ]);
  return html`<p class="note">How many components and heads carry each text, and the cosine of what they rebuild with it.
      ${part.seeds.includes(",") ? ` Means over seeds ${part.seeds}.` : ""}</p>
    <${Table} label="Topics" columns=${columns} rows=${rows} />`;
}

function Spatial({ entry, part }) {
  return html`<${Maps} file=${entry.key} names=${part.texts} side=${168} />
    <p class="note">All heads together. Red: evidence for the text, blue: against it${part.minus ? `; each minus “${part.minus}”` : part.texts.length > 1 ? "; each minus the mean of the texts" : ""}. Each map on its own scale.</p>`;
}
