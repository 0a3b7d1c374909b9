// What vendor/plot.js holds: the marks that line charts with bands need, as the global `Plot`.
export {
  areaY,
  axisX,
  axisY,
  dot,
  gridY,
  lineY,
  plot,
  pointer,
  ruleX,
  ruleY,
  text,
  tip,
} from "@observablehq/plot";
