// What vendor/ui.js holds: Preact, its hooks, and htm bound to Preact's h, as the global `ui`.
import { Fragment, h, render } from "preact";
import {
  useCallback,
  useEffect,
  useErrorBoundary,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
} from "preact/hooks";
import htm from "htm";

export const html = htm.bind(h);
export {
  Fragment,
  h,
  render,
  useCallback,
  useEffect,
  useErrorBoundary,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
};
