// The state of the page is its address: everything after the #, so that a link brings another machine to the same view.
"use strict";

// What is left out of an address.
const DEFAULTS = { v: "map" };
// The screen of an address that names none but has one of these.
const IMPLIED = { c: "head", q: "search", i: "search", with: "compare", p: "picture", o: "picture", e: "entries" };
// Keys that stay when another screen is opened: the run, and the head.
const KEPT = ["m", "d", "s", "t", "h", "n", "k"];

/** The address as an object of texts. */
function readState() {
  const state = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const implied = Object.keys(IMPLIED).find((key) => key in state);
  return { ...DEFAULTS, ...(implied ? { v: IMPLIED[implied] } : {}), ...state };
}

/** The address of a state. */
function address(state) {
  const entries = Object.entries(state).filter(
    ([key, value]) => value !== undefined && value !== null && value !== "" && DEFAULTS[key] !== value,
  );
  return (
    "#" + new URLSearchParams(entries.map(([key, value]) => [key, String(value)])).toString().replaceAll("%2F", "/")
  );
}

/** The address of this screen with changes; of another screen (a `v` in the changes) with what stays. */
function link(changes) {
  const state = readState();
  const base =
    "v" in changes && changes.v !== state.v
      ? Object.fromEntries(KEPT.filter((key) => key in state).map((key) => [key, state[key]]))
      : state;
  return address({ ...base, ...changes });
}

/** Go there; with `replace` the step back leads past this one. */
function go(changes, { replace = false } = {}) {
  const target = link(changes);
  if (replace) {
    history.replaceState(null, "", target);
    window.dispatchEvent(new Event("hashchange"));
  } else {
    location.hash = target;
  }
}

/** The run of a state: {run, problem}, a sentence where the address asks for what is not here. */
function findRun(state) {
  const runs = index().runs;
  const wanted = { model: state.m, dataset: state.d, seed: state.s, texts: state.t };
  const asked = Object.entries(wanted).filter(([, value]) => value !== undefined);
  let candidates = runs;
  for (const [key, value] of asked) {
    const fitting = candidates.filter((run) => String(run[key]) === value);
    if (!fitting.length) {
      return {
        run: candidates[0],
        problem:
          `This link asks for the ${key === "texts" ? "text pool" : key} “${value}”, which this explorer does not have` +
          `${key === "model" || !wanted.model ? "" : ` with ${candidates[0].model}`}. Shown instead: ${candidates[0][key]}.`,
      };
    }
    candidates = fitting;
  }
  return { run: candidates[0], problem: null };
}

/** The changes of an address that select a run. */
function runState(run) {
  return { m: run.model, d: run.dataset, s: String(run.seed), t: run.texts };
}
