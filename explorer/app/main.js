// The frame around the screens, and the keys that work everywhere.
"use strict";

const SCREENS = {
  map: ["Map", MapScreen],
  head: ["Head", HeadScreen],
  search: ["Search", SearchScreen],
  compare: ["Compare", CompareScreen],
  picture: ["Pictures", PictureScreen],
  proof: ["Proof", ProofScreen],
  entries: ["Queries and edits", EntriesScreen],
};
const KEYS = [
  ["/", "search"],
  ["m", "map"],
  ["p", "pictures"],
  ["← → ↑ ↓", "move between heads, bars and pictures"],
  ["Enter", "open what is in focus"],
  ["j, k", "next and previous component of a head"],
  ["?", "this list"],
];

function App() {
  const [state, setState] = ui.useState(readState);
  const [help, setHelp] = ui.useState(false);
  ui.useEffect(() => {
    const onHash = () => setState(readState());
    window.addEventListener("hashchange", onHash);
    return () => window.removeEventListener("hashchange", onHash);
  }, []);
  ui.useEffect(() => {
    const onKey = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
      const screen = { "/": "search", m: "map", p: "picture" }[event.key];
      if (event.key === "?") {
        event.preventDefault();
        setHelp((open) => !open);
        return;
      }
      if (!screen) return;
      event.preventDefault();
      if (readState().v !== screen) go({ v: screen });
      if (screen === "search") focusSearch();
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, []);
  const screen = Object.hasOwn(SCREENS, state.v) ? state.v : "map";
  const { run, problem } = findRun(state);
  const place = [screen, state.p, state.o, state.e, screen === "head" ? state.h : ""].join("\n");
  const started = ui.useRef(false);
  ui.useEffect(() => {
    // another screen: readers begin at its heading
    if (started.current) {
      window.scrollTo(0, 0);
      focusHeading(screen);
    }
    started.current = true;
  }, [place]);
  document.title = `${SCREENS[screen][0]} · ${run.model} · ${run.dataset}`;
  const Screen = SCREENS[screen][1];
  const missing = index().missing.length;
  const sample = sampleOf(run);
  // another dataset may have another picture of the same name
  const chooseRun = (other) => go({ ...runState(other), ...(other.dataset === run.dataset ? {} : { p: undefined }) });
  const skip = (event) => {
    event.preventDefault();
    document.querySelector("main").focus();
  };
  return html`
    <button type="button" class="skip" onClick=${skip}>To the content</button>
    <header>
      <p class="title"><a href="#">What the heads do</a></p>
      <nav class="screens" aria-label="Screens">${Object.entries(SCREENS).map(([key, [name]]) => html`<a key=${key}
        href=${link(key === "compare" && screen === "compare" ? {} : { v: key })}
        aria-current=${key === screen ? "page" : undefined}>${name}</a>`)}</nav>
      <div class="controls run">${screen === "entries" ? null : html`<${RunChoice} run=${run} onChange=${chooseRun} />`}
        <button type="button" onClick=${() => setHelp(true)}>Keys</button></div>
    </header>
    <main tabindex="-1">
      ${problem ? html`<p class="problem" role="alert">${problem}</p>` : null}
      ${screen === "map" && missing ? html`<p class="note">
        ${missing === 1 ? "One part of the config is" : `${missing} parts of the config are`} not in this explorer:
        ${" "}<a href=${link({ v: "proof" })}>which, and how to add ${missing === 1 ? "it" : "them"}</a>.</p>` : null}
      ${sample ? html`<p class="note">Cards, scores (but of segmentation), pictures and neighbours are of a sample
        of ${run.dataset}, seed ${run.seed}: ${sample}.</p>` : null}
      <${Guarded} key=${screen} Screen=${Screen} state=${state} run=${run} />
    </main>
    ${help ? html`<${Help} close=${() => setHelp(false)} />` : null}`;
}

/** A screen; if it cannot show what the address asks for, a sentence in its place. */
function Guarded({ Screen, state, run }) {
  const [error, reset] = ui.useErrorBoundary();
  ui.useEffect(() => {
    if (error) reset();
  }, [address(state)]);
  return error
    ? html`<p class="problem" role="alert">This address cannot be shown (${error.message}).
      <a href="#">To the map</a></p>`
    : html`<${Screen} state=${state} run=${run} />`;
}

function Help({ close }) {
  const ref = ui.useRef(null);
  ui.useEffect(() => ref.current.showModal(), []);
  return html`<dialog ref=${ref} onClose=${close} aria-labelledby="keys"><h2 id="keys">Keys</h2>
    <dl>${KEYS.map(([key, what]) => html`<div key=${key}><dt><kbd>${key}</kbd></dt><dd>${what}</dd></div>`)}</dl>
    <form method="dialog"><button>Close</button></form></dialog>`;
}

/** Focus an element as soon as a screen has it: parts may still be loading. */
function whenThere(selector, then, tries = 40) {
  const element = document.querySelector(selector);
  if (element) then(element);
  else if (tries) setTimeout(() => whenThere(selector, then, tries - 1), 50);
}

const focusSearch = () => whenThere("#search", (input) => input.focus());

function focusHeading(screen) {
  if (screen === "search") return;
  whenThere("main h1", (heading) => {
    if (!document.activeElement || !document.activeElement.matches("input, select"))
      heading.focus({ preventScroll: true });
  });
}

load("index")
  .then(() => {
    const root = document.getElementById("app");
    if (index().version !== VERSION) {
      throw new Error(
        `These files were written as version ${index().version}, but this page reads version ${VERSION}. Make the explorer again: snakemake --cores all explorer`,
      );
    }
    root.replaceChildren();
    ui.render(html`<${App} />`, root);
  })
  .catch((error) => {
    const problem = document.createElement("p");
    problem.className = "problem";
    problem.setAttribute("role", "alert");
    problem.textContent = error.message;
    document.getElementById("app").replaceChildren(problem);
  });
