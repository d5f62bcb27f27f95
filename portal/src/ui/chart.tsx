// Lines over numbers or days, by uPlot. Colours follow the theme; a zoom stays while the data grow.

import { useEffect, useMemo, useRef, useState } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { type Language, useWords } from "../i18n";
import { Button } from "./button";
import { useTheme } from "./theme";

export interface Series {
  label: string;
  /** A CSS colour variable, such as "--teacher". */
  color: string;
  values: (number | null)[];
  /** Axis: the left one, or a right one of its own scale (a share from 0 to 1). */
  axis?: "left" | "right";
  /** Draw the points, for a line of few values. */
  points?: boolean;
  dash?: boolean;
}

interface ChartProps {
  /** What the picture shows, for those who cannot see it. */
  label: string;
  /** Rising. */
  x: number[];
  series: Series[];
  /** Whether x are seconds since the epoch; they are shown as the days and hours of UTC. */
  time?: boolean;
  height?: number;
  xLabel?: string;
  /** Whether the left axis begins at 0, as it should for amounts. */
  fromZero?: boolean;
  format?: (value: number) => string;
  formatRight?: (value: number) => string;
}

interface Range {
  min: number;
  max: number;
}

const DAY_SECONDS = 86_400;
const MOST_POINTS = 40;
const INK = "--ink-soft";
const LINE = "--line";
const GROUND = "--surface";

export default function Chart(props: ChartProps) {
  const { label, x, series, time = false, height = 260, xLabel, fromZero = false } = props;
  const frame = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const { language, t } = useWords();
  const { shade } = useTheme();
  const { zoom, zoomed, zoomTo } = useZoom();
  // The plot is made anew when its form changes; new values only enter it.
  const form = JSON.stringify([
    series.map(({ values, ...rest }) => rest),
    [time, height, xLabel, fromZero, shade, language],
  ]);
  const data = useMemo(() => [x, ...series.map((line) => line.values)] as uPlot.AlignedData, [x, series]);
  const latest = useRef({ props, data });
  latest.current = { props, data };

  // biome-ignore lint/correctness/useExhaustiveDependencies: `form` stands for all that it is made of
  useEffect(() => {
    const holder = frame.current;
    if (!holder) return;
    const options = optionsOf(
      latest.current.props,
      { holder, language, color: (name) => resolved(holder, shade, name) },
      zoomTo,
    );
    const made = new uPlot(options, latest.current.data, holder);
    if (zoom.current) made.setScale("x", zoom.current);
    plot.current = made;
    const watcher = new ResizeObserver(() => made.setSize({ width: holder.clientWidth, height }));
    watcher.observe(holder);
    return () => {
      watcher.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [form]);

  useEffect(() => {
    const made = plot.current;
    if (!made || made.data === data) return;
    made.setData(data, zoom.current === null);
    // Without a new scale, uPlot would not draw what has come.
    if (zoom.current) made.setScale("x", zoom.current);
  }, [data, zoom]);

  const showAll = () => {
    zoomTo(null);
    plot.current?.setData(latest.current.data, true);
  };
  return (
    <div className="chart">
      <div ref={frame} role="img" aria-label={label} />
      {zoomed && (
        <div className="chart-tools">
          <Button onClick={showAll}>{t("common.reset_zoom")}</Button>
        </div>
      )}
    </div>
  );
}

type Shade = "light" | "dark";

/** Where the plot is drawn: its element, the reader's language, and what a colour variable is there. */
interface Place {
  holder: HTMLElement;
  language: Language;
  color: (variable: string) => string;
}

type ZoomTo = (range: Range | null) => void;

/** The part of x that the reader looks at; null for all of it, however much that becomes. */
function useZoom() {
  const zoom = useRef<Range | null>(null);
  const [zoomed, setZoomed] = useState(false);
  const zoomTo = useMemo<ZoomTo>(
    () => (range) => {
      zoom.current = range;
      setZoomed(range !== null);
    },
    [],
  );
  return { zoom, zoomed, zoomTo };
}

function optionsOf(props: ChartProps, place: Place, zoomTo: ZoomTo): uPlot.Options {
  const { holder, language, color } = place;
  const { series, time = false, height = 260, format, formatRight, fromZero = false } = props;
  const hasRight = series.some((one) => one.axis === "right");
  return {
    width: holder.clientWidth,
    height,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    scales: {
      x: { time },
      ...(fromZero ? { y: { range: (_: uPlot, _min: number, max: number) => upwards(max) } } : {}),
      ...(hasRight ? { right: { range: [0, 1] as uPlot.Range.MinMax } } : {}),
    },
    cursor: { drag: { x: true, y: false }, points: { size: 6 } },
    legend: { live: true },
    hooks: {
      // A drag zooms; a double click, which shows everything again, ends it.
      setSelect: [({ select, posToVal }) => zoomTo(chosen(select, posToVal))],
      init: [(plot) => plot.over.addEventListener("dblclick", () => zoomTo(null))],
    },
    axes: axesOf(props, place, hasRight),
    series: [
      { label: props.xLabel ?? "", value: xShown(time, language) },
      ...series.map((one) => ({
        label: one.label,
        scale: one.axis === "right" ? "right" : "y",
        stroke: color(one.color),
        width: 2,
        spanGaps: true,
        ...(one.dash ? { dash: [6, 4] } : {}),
        points: {
          show: (plot: uPlot, line: number, from: number, to: number) => isPointed(plot, line, from, to, one),
          size: 6,
          fill: color(GROUND),
        },
        value: shown(one.axis === "right" ? formatRight : format),
      })),
    ],
  };
}

function axesOf(props: ChartProps, { holder, language, color }: Place, hasRight: boolean): uPlot.Axis[] {
  const { time = false, xLabel, format, formatRight } = props;
  const line = color(LINE);
  const font = `12px ${getComputedStyle(holder).fontFamily}`;
  const axis: uPlot.Axis = {
    stroke: color(INK),
    font,
    grid: { stroke: line, width: 1 },
    ticks: { stroke: line, width: 1 },
  };
  const bottom: uPlot.Axis = time
    ? { ...axis, space: 70, values: (_, values, _axis, _space, step) => values.map(moment(language, step)) }
    : { ...axis, incrs: WHOLE };
  const left: uPlot.Axis = { ...axis, size: 64, ...(format ? { values: written(format) } : {}) };
  if (!hasRight) return [xLabel ? labelled(bottom, xLabel, font) : bottom, left];
  const right = { ...axis, scale: "right", side: 1 as const, size: 52, grid: { show: false } };
  return [
    xLabel ? labelled(bottom, xLabel, font) : bottom,
    left,
    formatRight ? { ...right, values: written(formatRight) } : right,
  ];
}

/** Points help as long as they are few; and a line of one value is nothing but its point. */
function isPointed(plot: uPlot, line: number, from: number, to: number, { points }: Series): boolean {
  if (!points) return (plot.data[0]?.length ?? 0) < 2;
  const seen = plot.data[line]?.slice(from, to + 1).filter((value) => value != null) ?? [];
  return seen.length <= MOST_POINTS;
}

/** Steps and counts are whole numbers, and so are the marks of their axis. */
const WHOLE = [1, 10, 100, 1000, 10_000, 100_000, 1_000_000].flatMap((power) => [power, 2 * power, 5 * power]);

const labelled = (axis: uPlot.Axis, label: string, font: string): uPlot.Axis => ({
  ...axis,
  label,
  labelFont: font,
  labelSize: 20,
});

const written = (write: (value: number) => string) => (_: uPlot, values: number[]) =>
  values.map((value) => (value == null ? "" : write(value)));

const shown = (write?: (value: number) => string) => (_: uPlot, value: number | null) =>
  value == null ? "–" : write ? write(value) : String(value);

function xShown(time: boolean, language: Language): (plot: uPlot, value: number | null) => string {
  if (!time) return shown(new Intl.NumberFormat(language).format);
  return shown(moment(language, DAY_SECONDS));
}

/** A time on the axis: its day, or its hour where the marks are closer than days. */
function moment(language: Language, step: number): (seconds: number) => string {
  const parts: Intl.DateTimeFormatOptions =
    step < DAY_SECONDS ? { hour: "numeric", minute: "2-digit" } : { month: "short", day: "numeric" };
  const written = new Intl.DateTimeFormat(language, { ...parts, timeZone: "UTC" });
  return (seconds) => written.format(seconds * 1000);
}

function chosen(select: uPlot.Select, at: uPlot["posToVal"]): Range | null {
  if (select.width <= 0) return null;
  return { min: at(select.left, "x"), max: at(select.left + select.width, "x") };
}

/** From 0 to a little above the largest; to 1 when there is nothing. */
function upwards(max: number | null): [number, number] {
  return max ? [0, max * 1.08] : [0, 1];
}

/** A colour variable as the canvas understands it: `light-dark()` and the theme are worked out by the browser. */
function resolved(holder: HTMLElement, shade: Shade, variable: string): string {
  const probe = document.createElement("span");
  // The page itself may not have changed its shade yet.
  probe.style.colorScheme = shade;
  probe.style.color = `var(${variable})`;
  holder.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}
