// Proof: that the contributions add up, how much the explanations hold, and what all was computed from.
"use strict";

function ProofScreen({ run }) {
  const { values, error } = useParts([`${run.folder}/proof`, "exactness"]);
  if (!values) return html`<${Waiting} error=${error} />`;
  const [proof, exactness] = values;
  const key = `${run.model}/${run.dataset}/${run.seed}`;
  const rows = exactness.rows[key] || [];
  const skipped = exactness.skipped[key] || [];
  const source = (exactness.source[key] || [[]])[0];
  const model = index().models[run.model] || {};
  const largest = Math.max(...rows.map((row) => row[3] || 0));
  return html`<h1 tabindex="-1">Proof<span class="of">: ${run.model} on ${run.dataset}, seed ${run.seed}</span></h1>
    <h2>The contributions add up</h2>
    <p>Over ${rows.reduce((sum, row) => sum + row[1], 0)} images, the sum of all contributions is at most <strong>
      ${exponent(largest)}</strong> away from the model's own embedding, which has length 1.</p>
    <${Table} label="Exactness"
      columns=${["shard", "images", "skipped", "largest error of the sum", "as stored", "of the observed model"]}
      rows=${rows.map((row) => row.map((cell, n) => (n > 2 ? exponent(cell) : cell)))} />
    ${skipped.length ? html`<h3>Pictures that could not be read</h3><ul>${skipped.map(([image, reason]) => html`
      <li key=${image}><bdi>${image}</bdi>: ${reason}</li>`)}</ul>` : html`<p class="note">No picture was skipped.</p>`}
    ${
      proof.recovery
        ? html`<h2>What the explanations recover</h2>
    <p class="note">Zero-shot accuracy with the heads of layers ${proof.recovery.layers} replaced by their explanations,
      and the variance that these hold, on ${proof.recovery.images} images, MLPs
      ${proof.recovery.mlps === "mean" ? " at their mean" : ` ${proof.recovery.mlps}`}. Bands: 95 % intervals over
      images, or 95 % of the draws of a random control.</p>
    ${[
      ["top1", "accuracy (%)"],
      ["explained_variance", "explained variance (%)"],
    ].map(
      ([score, label]) =>
        html`<${RecoveryChart} key=${score} curves=${proof.recovery.curves} score=${score} label=${label}
          name=${`${key}/${run.texts}/${score}`} />`,
    )}
    <ul class="legend">${proof.recovery.curves.map((curve) => html`<li key=${curve.method}><svg width="26" height="8"
      aria-hidden="true"><line x1="0" x2="26" y1="4" y2="4" stroke=${themed(curve.colour)} stroke-width="2"
      stroke-dasharray=${curve.dash} /></svg>${curve.label}</li>`)}</ul>`
        : html`<p class="note">Nothing was classified: the dataset has no prompts in the config.</p>`
    }
    <h2>Computed from</h2>
    <dl class="facts">${[
      [
        "images",
        sampleOf(run) ||
          Object.entries(proof.roles)
            .map(([role, count]) => `${count} ${role}${proof.splits[role] ? ` (${proof.splits[role]})` : ""}`)
            .join(", "),
      ],
      [
        "protocol",
        proof.protocol === "held_out"
          ? "explained on fit images, scored on eval images"
          : "fitted and scored on the same images",
      ],
      ["text pool", `${run.texts}, ${proof.texts} texts`],
      ["seed", run.seed],
      ["weights", `${model.weights || ""} sha256 ${proof.sha256}`],
      ["architecture", model.architecture],
      [
        "preprocessing",
        [model.image_size, model.interpolation, model.resize_mode, `mean ${model.mean}`, `std ${model.std}`].join(", "),
      ],
      ["precision", `${source[0]}, stored as ${source[1]}`],
      ["software", `torch ${source[3]}, open_clip_torch ${source[4]}, code ${proof.code}`],
    ].map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd><bdi>${value}</bdi></dd></div>`)}</dl>
    ${index().missing.length ? html`<h2>Not in this explorer</h2><ul>${index().missing.map((sentence) => html`
      <li key=${sentence}>${sentence}</li>`)}</ul>` : null}`;
}

const exponent = (value) =>
  value === null || value === undefined
    ? "–"
    : value === 0
      ? "0"
      : Number(value)
          .toExponential(1)
          .replace("e-", " × 10⁻")
          .replace(/⁻(\d+)$/, (_, digits) => "⁻" + [...digits].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join(""));

/** Black lines of the figures, readable on dark paper too. */
const themed = (colour) => (colour === "#000000" ? "currentColor" : colour);

function RecoveryChart({ curves, score, label, name }) {
  const rows = curves.flatMap((curve) =>
    curve.budget.map((budget, n) => ({
      method: curve.label,
      budget,
      value: curve[score][0][n],
      low: curve[score][1][n],
      high: curve[score][2][n],
    })),
  );
  const make = (Plot, width) =>
    Plot.plot({
      width,
      height: 300,
      ...CURVES,
      x: { label: "texts a head" },
      y: { label, zero: true, grid: true },
      marks: curves
        .flatMap((curve) => {
          const own = rows.filter((row) => row.method === curve.label && row.value !== null);
          return [
            band(own, "budget", "low", "high", { fill: themed(curve.colour) }),
            Plot.lineY(own, {
              x: "budget",
              y: "value",
              stroke: themed(curve.colour),
              strokeDasharray: curve.dash,
              strokeWidth: 1.8,
            }),
          ];
        })
        .concat(
          Plot.tip(
            rows.filter((row) => row.value !== null),
            Plot.pointer({
              x: "budget",
              y: "value",
              title: (row) => `${row.method}\n${row.budget} texts: ${number(row.value)} %`,
              fill: "var(--paper)",
            }),
          ),
        ),
    });
  return html`<${Chart} make=${make} name=${name} label=${`${label} by texts a head`} />`;
}
