// Small charts as plain SVG, and curves by Observable Plot.
"use strict";

/** The colour at a place from 0 to 1 on one of the scales, which the figures share. */
function scaleColour(scale, place) {
  const colours = index().scales[scale];
  return colours[Math.round(Math.min(Math.max(place, 0), 1) * (colours.length - 1))];
}

/** Black or white, whichever is easier to read on a colour. */
function inkOn(colour) {
  const [r, g, b] = [1, 3, 5]
    .map((start) => parseInt(colour.slice(start, start + 2), 16) / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#000" : "#fff";
}

/** What the charts of curves share: room for the labels of both axes. */
const CURVES = { marginLeft: 48, marginBottom: 44, style: { fontSize: "12px", background: "none" } };

/** A band between two columns of rows, where both are known; more: further channels of Plot's area. */
function band(rows, x, low, high, more) {
  return Plot.areaY(
    rows.filter((row) => row[low] !== null && row[high] !== null),
    { x, y1: low, y2: high, fillOpacity: 0.15, ...more },
  );
}

/** The range of a quantity: from 0, or as far to both sides. */
function rangeOf(quantity) {
  const values = quantity.values.filter((value) => value !== null);
  const high = Math.max(...values, 0);
  const low = Math.min(...values, 0);
  if (quantity.scale === "diverging" || low < 0) {
    const limit = Math.max(high, -low);
    return [-limit || -1, limit || 1];
  }
  return [0, high || 1];
}

/** A bar of a score beside a text; below 0 it is hatched. */
function Bar({ value, of }) {
  const width = of > 0 ? Math.min(Math.abs(value) / of, 1) * 100 : 0;
  return html`<span class="bar" aria-hidden="true"><span class=${value < 0 ? "against" : ""}
    style=${{ width: `${width}%` }}></span></span>`;
}

/** The spectrum of a head: a bar for each component, a link to its card. */
function Spectrum({ share, current, href, label }) {
  const most = Math.max(...share, 1e-9);
  return html`<figure class="spectrum"><figcaption>${label}</figcaption>
    <${Roving} class="bars" role="group" aria-label=${label}>${share.map(
      (value, component) => html`
      <a key=${component} href=${href(component)} aria-current=${component === current ? "true" : undefined}
        aria-label=${`component ${component}: ${number(value)} %`}
          title=${`component ${component}: ${number(value)} %`}>
        <span style=${{ height: `${Math.max((100 * value) / most, 1.5)}%` }}></span></a>`,
    )}<//>
    <div class="ends" aria-hidden="true"><span>component 0</span><span>${number(most)} % at most</span><span>
      ${share.length - 1}</span></div></figure>`;
}

/** A histogram of scores with an axis from low to high, and where 0 is. */
function Histogram({ counts, low, high, label }) {
  const most = Math.max(...counts, 1);
  const zero = low < 0 && high > 0 ? (-low / (high - low)) * 100 : null;
  return html`<figure class="histogram" role="img" aria-label=${`${label}, from ${number(low)} to ${number(high)}`}>
    <svg viewBox="0 0 ${counts.length} 10" preserveAspectRatio="none" aria-hidden="true">
      ${counts.map((count, bin) => html`<rect key=${bin} x=${bin + 0.06} width="0.88"
        y=${10 - (10 * count) / most} height=${(10 * count) / most} />`)}
      ${zero === null ? null : html`<line x1=${(zero / 100) * counts.length} x2=${(zero / 100) * counts.length} y1="0"
        y2="10" vector-effect="non-scaling-stroke" />`}
    </svg>
    <div class="ends" aria-hidden="true"><span>${number(low)}</span><span>${label}</span><span>
      ${number(high)}</span></div></figure>`;
}

/** A chart by Observable Plot, drawn once it is loaded. make: (Plot, width, ink) -> element */
function Chart({ make, name, label }) {
  const ref = ui.useRef(null);
  ui.useEffect(() => {
    let current = true;
    const draw = () => {
      if (!current || !ref.current) return;
      const width = Math.min(ref.current.clientWidth, 760);
      const chart = make(Plot, width);
      for (const mark of chart.querySelectorAll("[aria-label]")) mark.removeAttribute("aria-label"); // of groups, which have no role
      chart.setAttribute("role", "img");
      chart.setAttribute("aria-label", label);
      ref.current.replaceChildren(chart);
    };
    loadPlot().then(draw, () => {
      if (ref.current) ref.current.textContent = "vendor/plot.js is not in this folder, so there are no curves.";
    });
    window.addEventListener("resize", draw);
    return () => {
      current = false;
      window.removeEventListener("resize", draw);
    };
  }, [name]);
  return html`<div class="chart" ref=${ref} role="status">Drawing …</div>`;
}
