// The data: script files, each one call part("key", value), loaded when a screen needs them.
// A page opened from disk may load scripts and pictures, but not fetch files.
"use strict";

const VERSION = 1; // of the layout of the files, see docs/explorer.md

const parts = new Map(); // key -> value
const loading = new Map(); // key -> promise of the value

/** Called by every data file. */
function part(key, value) {
  parts.set(key, value);
}

/** A key as the path of its file: names of files are written as they are, whatever they hold. */
function pathOf(key, ending) {
  return key.split("/").map(encodeURIComponent).join("/") + ending;
}

/** Promise of a part. */
function load(key) {
  if (!loading.has(key)) {
    loading.set(
      key,
      addScript(pathOf(key, ".js")).then(() => {
        if (!parts.has(key)) throw new Error(`${key}.js does not hold what its name says.`);
        return parts.get(key);
      }),
    );
  }
  return loading.get(key);
}

function addScript(path) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = path;
    script.onload = () => {
      script.remove();
      resolve();
    };
    script.onerror = () => {
      script.remove();
      reject(
        new Error(
          `${decodeURIComponent(path)} is not in this folder. Copy the whole folder, or make the explorer again.`,
        ),
      );
    };
    document.head.append(script);
  });
}

/** Hook: {values: of several parts, in order, null until all are there}, or {error: a sentence}. */
function useParts(keys) {
  const name = keys.join("\n");
  const [, update] = ui.useState(0);
  const failure = ui.useRef(null);
  ui.useEffect(() => {
    let current = true;
    failure.current = null;
    if (!keys.every((key) => parts.has(key))) {
      Promise.all(keys.map(load))
        .catch((error) => {
          failure.current = error;
        })
        .finally(() => {
          if (current) update((n) => n + 1);
        });
    }
    return () => {
      current = false;
    };
  }, [name]);
  if (failure.current) return { error: failure.current.message };
  return { values: keys.every((key) => parts.has(key)) ? keys.map((key) => parts.get(key)) : null };
}

/** The scripts of Observable Plot, loaded where curves are shown. */
let plotLoading = null;
function loadPlot() {
  plotLoading = plotLoading || addScript("vendor/plot.js");
  return plotLoading;
}

const index = () => parts.get("index");

/** How many of a run's images are kept, in words, where only a sample of them is; else undefined. */
const sampleOf = (run) => index().samples[`${run.dataset}/${run.seed}`];

/** The units of a run's overview, by their numbers: "0.0", …, "embedding". */
function unitsOf(overview) {
  const [first, count] = overview.layers;
  const units = [];
  for (let layer = first; layer < first + count; layer++) {
    for (let head = 0; head < overview.heads; head++) units.push(`${layer}.${head}`);
  }
  units.push("embedding");
  return units;
}

/** "layer 3, head 1", or "the whole embedding". */
function unitLabel(unit) {
  if (unit === "embedding") return "the whole embedding";
  const [layer, head] = unit.split(".");
  return `layer ${layer}, head ${head}`;
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** A number for readers, "–" where there is none; a true minus sign. */
function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  const text =
    Math.abs(value) >= 10 ** digits
      ? Math.round(value).toLocaleString("en")
      : String(Number(value.toPrecision(digits)));
  return text.replace("-", "−");
}

// The namings of a text index's codes, and what they are called.
const NAMINGS = ["says", "fires_on"];
const NAMING_WORDS = { says: "says", fires_on: "fires on" };

const POLES = [
  ["bottom", "−"],
  ["top", "+"],
];
