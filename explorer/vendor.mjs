// Rebuilds what vendor/ holds besides the entries: `npm ci && npm run vendor`.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

process.chdir(import.meta.dirname);

// The two libraries, and the packages whose code reached them. d3-array's own
// build carries internmap's code, so esbuild does not see that package.
const globals = { ui: "ui", plot: "Plot" };
const packages = new Map([["node_modules/internmap", new Set(["plot.js"])]]);
const sums = [];
for (const [name, globalName] of Object.entries(globals)) {
  const outfile = `vendor/${name}.js`;
  const { metafile } = await build({
    entryPoints: [`vendor/${name}.entry.mjs`],
    outfile,
    globalName,
    bundle: true,
    minify: true,
    format: "iife",
    target: "es2020",
    charset: "utf8",
    legalComments: "none",
    sourcemap: false,
    metafile: true,
    logLevel: "warning",
  });
  for (const [input, { bytesInOutput }] of Object.entries(metafile.outputs[outfile].inputs)) {
    const folder = input.match(/^.*node_modules\/(?:@[^/]+\/)?[^/]+/)?.[0];
    if (folder && bytesInOutput) packages.set(folder, (packages.get(folder) ?? new Set()).add(`${name}.js`));
  }
  const hash = createHash("sha256").update(readFileSync(outfile)).digest("hex");
  sums.push(`${hash}  ${name}.js\n`);
}
writeFileSync("vendor/SHA256SUMS", sums.sort((a, b) => (a.slice(66) < b.slice(66) ? -1 : 1)).join(""));

// Their licences, each as its package has it.
const rule = "=".repeat(72);
const licences = [...packages]
  .map(([folder, bundles]) => {
    const { name, version, license } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
    const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
    if (!file) throw new Error(`${name} ${version} carries no licence file`);
    const text = readFileSync(`${folder}/${file}`, "utf8").replaceAll("\r\n", "\n").replace(/^\n+|\s+$/g, "");
    return { name, heading: `${name} ${version} (${license}), in ${[...bundles].join(" and ")}`, text };
  })
  .sort((a, b) => (a.name < b.name ? -1 : 1))
  .map(({ heading, text }) => `${rule}\n${heading}\n${rule}\n\n${text}\n`);
writeFileSync("vendor/LICENSES.txt", licences.join("\n\n"));

// npm records where each package asks for money: the lock names no host.
const lock = JSON.parse(readFileSync("package-lock.json", "utf8"));
for (const entry of Object.values(lock.packages)) delete entry.funding;
writeFileSync("package-lock.json", `${JSON.stringify(lock, null, 2)}\n`);
