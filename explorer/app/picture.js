// Pictures: all of a dataset, and one with its strongest components, its neighbours and its maps.
"use strict";

const ON_A_PAGE = 200;

function PictureScreen({ state, run }) {
  const { values, error } = useRun(run);
  if (!values) return html`<${Waiting} error=${error} />`;
  const [overview, texts, list] = values;
  const share = { overview, texts, list, run, state };
  if (state.o !== undefined) {
    const own = overview.own.find((part) => part.name === state.o);
    return own
      ? html`<${OwnPicture} ...${share} own=${own} number=${overview.own.indexOf(own)} />`
      : html`<p class="problem" role="alert">The picture “<bdi>
        ${state.o}</bdi>” is not among explorer.pictures of the config that this page was made with.</p>`;
  }
  if (state.p !== undefined) {
    const picture = list.names.indexOf(state.p);
    return picture < 0
      ? html`<p class="problem" role="alert">The picture “<bdi>
        ${state.p}</bdi>” is not among the ${list.names.length} pictures of ${run.dataset} that are shown.</p>`
      : html`<${OnePicture} ...${share} picture=${picture} key=${picture} />`;
  }
  return html`<${Gallery} ...${share} />`;
}

/** All pictures of a dataset, by page, or those with one value. */
function Gallery({ overview, list, run, state }) {
  const columns = Object.entries(list.factors);
  const values = columns.flatMap(([name, column]) =>
    column.values.length <= 60 ? column.values.map((value) => [name, value]) : [],
  );
  const options = [["", "all"], ...values.map(([name, value], n) => [String(n), `${name}: ${value}`])];
  const chosen = values.findIndex(([name, value]) => name === state.f && value === state.w);
  const column = state.f !== undefined && Object.hasOwn(list.factors, state.f) ? list.factors[state.f] : null;
  const code = column ? column.values.indexOf(state.w) : -1;
  const filter = (n) => (n === "" ? { f: undefined, w: undefined } : { f: values[n][0], w: values[n][1] });
  const pictures = list.names.flatMap((_, picture) => (!column || column.codes[picture] === code ? [picture] : []));
  const page = Math.min(Math.max(Number(state.page) || 0, 0), Math.max(Math.ceil(pictures.length / ON_A_PAGE) - 1, 0));
  const withMaps = {
    pictures: overview.maps.map(([picture]) => picture),
    captions: overview.maps.map(([, kind]) => kind),
    notes: overview.maps.map(([, kind]) => `${kind} segmented`),
  };
  const shown = pictures.slice(page * ON_A_PAGE, (page + 1) * ON_A_PAGE);
  return html`<h1 tabindex="-1">Pictures of ${run.dataset}</h1>
    <p class="note">
      ${list.names.length === list.total ? `The ${list.total} images` : `${list.names.length} of the ${list.total} images, evenly spread (explorer.images of the config),`}
      ${" that the seeds are to score; "}${overview.pictures} of them are scored by this seed.
      ${list.unreadable.length ? ` Not readable, and grey here: ${list.unreadable.length}.` : ""}</p>
    ${
      overview.own.length
        ? html`<h2>Your own</h2><ul class="own">${overview.own.map(
            (own, n) => html`<li key=${n}><a href=${link({ o: own.name })}>
      ${own.maps ? html`<span class="thumb"
        style=${stripStyle(`${run.folder}/own-${n}`, own.maps.length + 1, 0, 96)}></span>` : null}<bdi>
        ${own.name}</bdi></a></li>`,
          )}</ul>`
        : null
    }
    ${overview.maps.length ? html`<h2>With maps of their class</h2>
      <${Pictures} ...${{ list, ...withMaps, label: "pictures with maps" }} />` : null}
    <h2>All</h2>
    <div class="controls"><${Choice} quiet label="only" value=${chosen < 0 ? "" : String(chosen)} options=${options}
      onChange=${(n) => go({ ...filter(n), page: undefined }, { replace: true })} /></div>
    <${Pictures} ...${{ list, pictures: shown, side: 64, label: "pictures" }} />
    ${
      pictures.length > ON_A_PAGE
        ? html`<p class="pager"><span>
          ${page * ON_A_PAGE + 1} to ${page * ON_A_PAGE + shown.length} of ${pictures.length}</span>
      ${page > 0 ? html`<a
        href=${link({ page: page - 1 })}>earlier</a>` : null} ${(page + 1) * ON_A_PAGE < pictures.length ? html`<a
        href=${link({ page: page + 1 })}>later</a>` : null}</p>`
        : null
    }`;
}

function OnePicture({ overview, texts, list, run, picture }) {
  const { values, error } = useParts([`${run.folder}/pictures/${Math.floor(picture / list.across ** 2)}`]);
  const made = overview.maps.find(([other]) => other === picture);
  if (!values) {
    return html`<${Waiting} error=${error} />`;
  }
  const part = values[0][picture];
  return html`<h1 tabindex="-1"><bdi>${list.names[picture]}</bdi></h1>
    <div class="one"><span class="thumb large" role="img" aria-label=${pictureWords(list, picture)}
      style=${pictureStyle(list, picture, 2 * list.side)}></span>
      <dl class="facts">${Object.entries(list.factors).map(([name, column]) => html`<div key=${name}><dt>${name}</dt>
        <dd><bdi>${column.values[column.codes[picture]] || "–"}</bdi></dd></div>`)}</dl></div>
    ${
      made
        ? html`<h2>Where its class is</h2><${Maps} file=${`${run.folder}/map-${picture}`}
          names=${["evidence for the class, all heads", "mask"]} />
      <p class="note">One of the ${made[1]} examples of the segmentation.</p>`
        : null
    }
    ${
      part
        ? html`<${Strongest} ...${{ overview, texts, components: part.components, list }} />
      <${Similar} ...${{ list, neighbours: part.neighbours }} />`
        : html`<p class="note">
          ${list.unreadable.includes(picture) ? "This picture could not be read." : `Seed ${run.seed} does not score this picture; another seed does.`}</p>`
    }`;
}

function OwnPicture({ overview, texts, list, run, own, number: place }) {
  const units = unitsOf(overview);
  const names = own.maps
    ? own.maps.map(([unit, component]) => `${unitLabel(units[unit])}, component ${component}`)
    : [];
  const links = (own.maps || []).map(([unit, component]) => link({ v: "head", h: units[unit], c: component }));
  return html`<h1 tabindex="-1"><bdi>${own.name}</bdi><span class="of"> in ${run.model}</span></h1>
    ${
      own.maps
        ? html`<h2>Where its strongest components are</h2><${Maps} file=${`${run.folder}/own-${place}`} names=${names}
          links=${links} />
      <p class="note">Red: patches that raise the component's score, blue: that lower it; each map on its own scale.</p>`
        : html`<p class="note">Maps are made for the first seed.</p>`
    }
    <${Strongest} ...${{ overview, texts, components: own.components, list }} />
    <${Similar} ...${{ list, neighbours: own.neighbours }} />`;
}

/** The pictures most like one, [[picture, cosine], …]. */
function Similar({ list, neighbours }) {
  const pictures = neighbours.map(([other]) => other);
  const captions = neighbours.map(([, cosine]) => number(cosine, 2));
  const notes = captions.map((cosine) => `cosine ${cosine}`);
  const label = "most similar pictures";
  return html`<h2>Most similar pictures</h2><p class="note">by the cosine of their embeddings</p>
    <${Pictures} ...${{ list, pictures, side: 64, captions, notes, label }} />`;
}

/** The components that are strongest in a picture, with the name of the pole that it leans to. */
function Strongest({ overview, texts, components }) {
  const units = unitsOf(overview);
  const most = Math.max(...components.map(([, , score]) => Math.abs(score)), 1e-9);
  return html`<h2>Its strongest components</h2><p
    class="note">by |score|: how far the head's contribution lies from its mean along the component; the name is what that pole ${NAMING_WORDS[overview.naming]}</p>
    <${Table} label="Strongest components" columns=${["component", "score", "above … of the pictures", "pole"]}
      rows=${components.map(
      ([unit, component, score, rank, text]) => [
        html`<${PlaceLink} unit=${units[unit]} component=${component} />`,
        html`<span class="nowrap"><${Bar} value=${Math.abs(score)} of=${most} /> ${number(score)}</span>`,
        `${rank} %`,
        html`${score < 0 ? "−" : "+"} ${text >= 0 ? html`<${Text}>${texts[text]}<//>` : html`<span
          class="note">unnamed</span>`}`,
      ],
    )} />`;
}

/** The style of one field of a strip of maps, `side` pixels wide. */
function stripStyle(file, fields, field, side) {
  return {
    width: `${side}px`,
    height: `${side}px`,
    backgroundImage: `url("${pathOf(file, ".webp")}")`,
    backgroundSize: `${fields * side}px ${side}px`,
    backgroundPosition: `${-field * side}px 0`,
  };
}

/** A picture, and the same with each of its maps laid over it. */
function Maps({ file, names, links = null, side = 140 }) {
  const fields = names.length + 1;
  return html`<ul class="maps"><li><span class="thumb" role="img" aria-label="the picture as the model sees it"
    style=${stripStyle(file, fields, 0, side)}></span><span class="caption">as the model sees it</span></li>
    ${names.map(
      (
        name,
        n,
      ) => html`<li key=${n}><span class="thumb faded" style=${stripStyle(file, fields, 0, side)}></span><span
        class="thumb over" role="img" aria-label=${`map: ${name}`}
        style=${stripStyle(file, fields, n + 1, side)}></span>
      <span class="caption">${links ? html`<a href=${links[n]}>${name}</a>` : html`<bdi dir="auto">
        ${name}</bdi>`}</span></li>`,
    )}</ul>`;
}
